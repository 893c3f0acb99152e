"""Which datacenter answered, how old the session is, and what the engine has counted."""

import os

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.cache import caches
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from django_dynamo_failover import metrics, runtime
from shop.cart import Cart
from shop.session import ASSOCIATE, age


def counters() -> dict[str, int]:
    """Return the engine's counters of this process."""
    return runtime.current().metrics.snapshot()


def footer(request):
    """Context processor: the line at the foot of every page."""
    session = getattr(request, "session", None)  # no session: an error page before the middleware
    return {
        "site": settings.SHOP_SITE,
        "pid": os.getpid(),
        "session_age": None if session is None else age(session),
        "associate": None if session is None else session.get(ASSOCIATE),
        "counters": counters(),
    }


@never_cache
@login_required
@require_GET
def page(request):
    """Show all of it to a person."""
    rows = [(name, metrics.COUNTERS[name], value) for name, value in counters().items()]
    sessions = settings.CACHES[settings.SESSION_CACHE_ALIAS]
    return render(
        request,
        "shop/status.html",
        {
            "rows": rows,
            "hot": sessions["BACKEND"].rpartition(".")[2],
            "hot_at": _addresses(sessions.get("LOCATION", [])),
            "failover": settings.DYNAMO_FAILOVER,
        },
    )


@never_cache
@require_GET
def document(request):
    """Show it to a program; someone who is not logged in learns no more than that."""
    answer = {
        "site": settings.SHOP_SITE,
        "pid": os.getpid(),
        "user": None,
    }
    if request.user.is_authenticated:
        cart = Cart(request.session)
        answer |= {
            "user": request.user.get_username(),
            "associate": request.session.get(ASSOCIATE),
            "cart": {
                "items": cart.quantities,
                "count": cart.count,
                "total_cents": cart.total_cents,
                "total": cart.total,
            },
            "session_age": round(age(request.session) or 0, 3),
            "counters": counters(),
        }
    return JsonResponse(answer)


@require_GET
def ping(request):
    """Answer without a look at the session."""
    return HttpResponse(settings.SHOP_SITE, content_type="text/plain")


@csrf_exempt
@require_POST
def empty_hot_tier(request):
    """Empty the hot tier, as a restart of memcached would. Only with ``SHOP_DEMO_CONTROLS=1``."""
    caches[settings.SESSION_CACHE_ALIAS].clear()
    return HttpResponse("emptied", content_type="text/plain")


def _addresses(location: str | list[str]) -> list[str]:
    """Return the servers of a cache; LocMemCache's location is no address."""
    return [] if isinstance(location, str) else location
