"""Addresses of the endpoints: ``path("health/", include("django_dynamo_failover.urls"))``."""

from django.urls import path

from . import views

app_name = "django_dynamo_failover"

urlpatterns = [
    path("live", views.live, name="live"),
    path("ready", views.ready, name="ready"),
    path("failover", views.failover, name="failover"),
]
