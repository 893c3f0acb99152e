"""The addresses of the shop, static files, which gunicorn serves nobody by itself, and an icon."""

from django.contrib.staticfiles.views import serve
from django.http import HttpResponse
from django.urls import path
from shop.urls import urlpatterns as shops

urlpatterns = [
    path("static/<path:path>", serve, {"insecure": True}),
    path("favicon.ico", lambda request: HttpResponse(status=204)),
    *shops,
]


def only_from_here(get_response):
    """A middleware: nothing inline, nothing from another host, nothing as data."""

    def answer(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer
