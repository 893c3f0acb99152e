"""The logins of the demo. They are no secrets."""

MANAGER = "manager"
PASSWORD = "open-the-shop"
PINS = {"Ada": "1815", "Grace": "1906", "Linus": "1969"}

PINS_TEXT = ", ".join(f"{name} {pin}" for name, pin in PINS.items())
SUMMARY = f"Manager: {MANAGER} / {PASSWORD}. PINs: {PINS_TEXT}."
