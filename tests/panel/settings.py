"""The shop with what a browser needs of it: static files, and the strictest of policies."""

from fast import *  # noqa: F403  # made by ``web.prepare_site``
from fast import MIDDLEWARE as SHOPS

ROOT_URLCONF = "tests.panel.urls"
MIDDLEWARE = ["tests.panel.urls.only_from_here", *SHOPS]
MESSAGE_TAGS = {}  # those of the admin
