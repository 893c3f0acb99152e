"""The shop as an ASGI application, which serves its own static files: it is a demo."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from django_dynamo_failover.asgi import flush_at_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = flush_at_shutdown(ASGIStaticFilesHandler(get_asgi_application()))
