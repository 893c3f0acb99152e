"""The shop in Django's admin."""

from django.contrib import admin

from shop.forms import AssociateForm
from shop.models import Associate, Sale


@admin.register(Associate)
class AssociateAdmin(admin.ModelAdmin):
    """Hire, rename, give a new PIN."""

    form = AssociateForm
    list_display = ["name"]


@admin.register(Sale)
class SaleAdmin(admin.ModelAdmin):
    """Sales can be read only."""

    list_display = ["__str__", "site", "at"]
    list_filter = ["site"]

    def has_add_permission(self, request):
        """Sales are made at the till."""
        return False

    def has_change_permission(self, request, obj=None):
        """A sale does not change."""
        return False

    def has_delete_permission(self, request, obj=None):
        """A sale does not go away."""
        return False
