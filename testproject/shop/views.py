"""The register: products, cart, checkout, and who stands at it."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from shop import pins
from shop.cart import Cart
from shop.catalog import BY_SKU, PRODUCTS
from shop.forms import SwitchForm
from shop.models import Sale
from shop.session import ASSOCIATE


@login_required
@require_GET
def till(request):
    """Show the products and the cart."""
    return render(request, "shop/till.html", {"products": PRODUCTS, "cart": Cart(request.session)})


@login_required
@require_POST
def cart_add(request, sku):
    """Put one more into the cart."""
    return _change(request, sku, +1)


@login_required
@require_POST
def cart_remove(request, sku):
    """Take one out of the cart."""
    return _change(request, sku, -1)


@login_required
@require_POST
def checkout(request):
    """Turn the cart into a sale."""
    cart = Cart(request.session)
    if not cart.count:
        messages.error(request, "The cart is empty.")
        return redirect("till")
    sale = Sale.objects.create(
        seller=request.session.get(ASSOCIATE) or request.user.get_username(),
        site=settings.SHOP_SITE,
        items=cart.quantities,
        total_cents=cart.total_cents,
    )
    messages.success(request, f"Paid {cart.total}. Receipt #{sale.pk}.")
    cart.empty()
    return redirect("till")


@login_required
def switch(request):
    """Let an associate take over the register with a PIN. The cart and the login stay."""
    form = SwitchForm(request.POST or None)
    locked = pins.seconds_locked(request.session)
    if request.method == "POST" and not locked and form.is_valid():
        associate = form.cleaned_data["associate"]
        if associate.check_pin(form.cleaned_data["pin"]):
            pins.note_success(request.session)
            request.session[ASSOCIATE] = associate.name
            return redirect("till")
        left = pins.note_failure(request.session)
        locked = pins.seconds_locked(request.session)
        if left:
            form.add_error("pin", f"Wrong PIN. Tries left: {left}.")
    status = 429 if locked else 200
    return render(request, "shop/switch.html", {"form": form, "locked": locked}, status=status)


@login_required
@require_POST
def switch_back(request):
    """End the associate's turn."""
    request.session.pop(ASSOCIATE, None)
    return redirect("till")


def _change(request, sku, number):
    if sku not in BY_SKU:
        raise Http404("No such product.")
    Cart(request.session).add(sku, number)
    return redirect("till")
