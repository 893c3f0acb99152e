"""What the shop stores: who sells and what was sold. Products are in ``catalog``."""

from django.db import models

from shop import pins
from shop.catalog import money


class Associate(models.Model):
    """Someone who sells at a register that a manager has opened."""

    name = models.CharField(max_length=40, unique=True)
    pin = models.CharField("PIN (hashed)", max_length=160, editable=False)

    class Meta:
        """Order the profile buttons."""

        ordering = ["name"]

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def set_pin(self, pin: str) -> None:
        """Store the hash of a new PIN; does not save."""
        self.pin = pins.hash_pin(pin)

    def check_pin(self, pin: str) -> bool:
        """Tell whether this is the associate's PIN."""
        return pins.check_pin(pin, self.pin)


class Sale(models.Model):
    """A cart that was paid."""

    at = models.DateTimeField(auto_now_add=True)
    seller = models.CharField(max_length=150)
    site = models.CharField(max_length=40)
    items = models.JSONField()
    total_cents = models.PositiveIntegerField()

    class Meta:
        """Show the newest first."""

        ordering = ["-at"]

    def __str__(self) -> str:
        """Return the receipt line."""
        return f"#{self.pk}: {money(self.total_cents)} by {self.seller}"
