"""``manage.py runserver``: Django's own, after ``setup_shop``."""

import os

from django.contrib.staticfiles.management.commands.runserver import Command as RunserverCommand
from django.core.management import call_command


class Command(RunserverCommand):
    """Make the shop ready, so that ``runserver`` is all a fresh clone needs."""

    def run(self, **options):
        """Set up once, in the parent of the auto-reloader's processes."""
        if "RUN_MAIN" not in os.environ:
            call_command("setup_shop", stdout=self.stdout)
        super().run(**options)
