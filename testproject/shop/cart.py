"""The cart: a dict of SKU to quantity under one key of the session."""

from dataclasses import dataclass

from django.contrib.sessions.backends.base import SessionBase

from shop.catalog import BY_SKU, Product, money

KEY = "cart"
MAX_QUANTITY = 99


@dataclass(frozen=True)
class Line:
    """One product in the cart."""

    product: Product
    quantity: int

    @property
    def cents(self) -> int:
        """The price of the line."""
        return self.product.cents * self.quantity

    @property
    def price(self) -> str:
        """The price of the line as text."""
        return money(self.cents)


class Cart:
    """The cart of a session. Every change stores the whole dict anew, so that it is saved."""

    def __init__(self, session: SessionBase) -> None:
        self._session = session

    @property
    def quantities(self) -> dict[str, int]:
        """Quantities by SKU, without products that are no longer sold."""
        stored = self._session.get(KEY, {})
        return {sku: quantity for sku, quantity in stored.items() if sku in BY_SKU}

    @property
    def lines(self) -> list[Line]:
        """The lines in the order in which they were added."""
        return [Line(BY_SKU[sku], quantity) for sku, quantity in self.quantities.items()]

    @property
    def count(self) -> int:
        """How many things are in the cart."""
        return sum(self.quantities.values())

    @property
    def total_cents(self) -> int:
        """What the cart costs."""
        return sum(line.cents for line in self.lines)

    @property
    def total(self) -> str:
        """What the cart costs as text."""
        return money(self.total_cents)

    def add(self, sku: str, number: int = 1) -> None:
        """Change the quantity of a product; a line of zero leaves the cart."""
        quantities = self.quantities
        quantity = min(MAX_QUANTITY, quantities.get(sku, 0) + number)
        if quantity > 0:
            quantities[sku] = quantity
        else:
            quantities.pop(sku, None)
        self._session[KEY] = quantities

    def empty(self) -> None:
        """Take everything out."""
        self._session.pop(KEY, None)
