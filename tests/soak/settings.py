"""The shop as the soak runs it: two regions at addresses of their own, passwords in no time."""

import os

from shop.settings import *  # noqa: F403
from shop.settings import DYNAMO_FAILOVER

DYNAMO_FAILOVER["REGIONS"] = [
    dict(zip(("NAME", "ENDPOINT_URL"), region.split("="), strict=True))
    for region in os.environ["SOAK_REGIONS"].split(",")
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.MD5PasswordHasher",
    "shop.pins.PinHasher",
]
ROOT_URLCONF = "tests.soak.urls"
