"""The app of the shop."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """One package that is both project and app."""

    name = "shop"
    verbose_name = "Shop"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the signal that dates a session."""
        from shop import session

        session.connect()
