"""The shop as a WSGI application, which serves its own static files: it is a demo."""

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = StaticFilesHandler(get_wsgi_application())
