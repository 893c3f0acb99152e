"""The addresses of the shop, and static files, which gunicorn serves nobody by itself."""

from django.contrib.staticfiles.views import serve
from django.urls import path
from shop.urls import urlpatterns as shops

urlpatterns = [path("static/<path:path>", serve, {"insecure": True}), *shops]


def only_from_here(get_response):
    """A middleware: nothing inline, nothing from another host, nothing as data."""

    def answer(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return answer
