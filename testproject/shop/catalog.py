"""The products. Prices are in cents."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Product:
    """One thing on the shelf."""

    sku: str
    name: str
    note: str
    cents: int

    @property
    def price(self) -> str:
        """The price as text."""
        return money(self.cents)


def money(cents: int) -> str:
    """Return an amount as text, such as ``€1,204.50``."""
    return f"€{cents // 100:,}.{cents % 100:02}"


PRODUCTS = (
    Product("espresso", "Espresso", "double, house roast", 260),
    Product("flat-white", "Flat white", "oat or milk", 380),
    Product("croissant", "Croissant", "butter, this morning's", 290),
    Product("beans-250", "House beans", "250 g, whole", 1150),
    Product("filter-papers", "Filter papers", "box of 100", 490),
    Product("mug", "Stoneware mug", "320 ml, speckled", 1800),
    Product("kettle", "Gooseneck kettle", "0.9 l, steel", 6490),
    Product("grinder", "Hand grinder", "steel burrs", 8900),
)

BY_SKU = {product.sku: product for product in PRODUCTS}
