"""A model without a table, by which Django's admin shows the health panel."""

from django.db import models


class FailoverHealth(models.Model):
    """The permissions of the panel: to look at it, and to do what its buttons do."""

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [("operate_failoverhealth", "Can operate session failover")]
        verbose_name = verbose_name_plural = "health panel"

    def __str__(self) -> str:
        return "Session failover"
