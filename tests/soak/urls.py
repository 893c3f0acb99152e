"""The addresses of the shop, and two more: to change one key of a session, and to see all of it."""

import os

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from shop.session import ASSOCIATE
from shop.urls import urlpatterns as shop_urls

MARK = "mark "


@csrf_exempt
@require_POST
def mark(request):
    """Write a number into a slot of the session: ``slot=3&value=17``."""
    if request.user.is_authenticated:
        request.session[MARK + request.POST["slot"]] = int(request.POST["value"])
    return _state(request)


@never_cache
@require_GET
def state(request):
    """Show who is logged in and what was written."""
    return _state(request)


def _state(request):
    slots = {
        name.removeprefix(MARK): value
        for name, value in request.session.items()
        if name.startswith(MARK)
    }
    slots[ASSOCIATE] = request.session.get(ASSOCIATE)
    user = request.user.get_username() if request.user.is_authenticated else None
    return JsonResponse({"user": user, "pid": os.getpid(), "slots": slots})


urlpatterns = [path("soak/mark/", mark), path("soak/", state), *shop_urls]
