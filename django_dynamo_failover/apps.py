"""The Django app."""

from django.apps import AppConfig


class DynamoFailoverConfig(AppConfig):
    """Registers the system checks."""

    name = "django_dynamo_failover"
    verbose_name = "Session failover"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        from . import checks, deploy_checks  # noqa: F401
