"""``manage.py setup_shop``: the database and the demo users."""

from django.contrib.auth import get_user_model
from django.core.management import BaseCommand, call_command

from shop import people
from shop.models import Associate


class Command(BaseCommand):
    """Create the tables, the manager and the associates. Safe to run twice."""

    help = (
        "Create the shop's tables, its manager and its associates. Safe to run twice. "
        "Example: SHOP_DATABASE=shop.sqlite3 manage.py setup_shop"
    )

    def handle(self, *args, **options):
        """Run."""
        call_command("migrate", verbosity=0, interactive=False)
        users = get_user_model().objects
        if not users.filter(username=people.MANAGER).exists():
            users.create_superuser(people.MANAGER, password=people.PASSWORD)
        for name, pin in people.PINS.items():
            if not Associate.objects.filter(name=name).exists():
                associate = Associate(name=name)
                associate.set_pin(pin)
                associate.save()
        self.stdout.write(f"The shop is ready. {people.SUMMARY}")
