"""The addresses of the shop."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from shop import status, views

urlpatterns = [
    path("", views.till, name="till"),
    path("cart/add/<slug:sku>/", views.cart_add, name="cart-add"),
    path("cart/remove/<slug:sku>/", views.cart_remove, name="cart-remove"),
    path("checkout/", views.checkout, name="checkout"),
    path("switch/", views.switch, name="switch"),
    path("switch/back/", views.switch_back, name="switch-back"),
    path(
        "login/",
        LoginView.as_view(template_name="shop/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("status/", status.page, name="status"),
    path("status.json", status.document, name="status-json"),
    path("ping", status.ping, name="ping"),
    path("health/", include("django_dynamo_failover.urls")),
    path("admin/", admin.site.urls),
]

if settings.SHOP_DEMO_CONTROLS:
    urlpatterns.append(path("demo/empty-hot-tier", status.empty_hot_tier))
