"""A Django session engine that keeps users logged in when a datacenter is lost.

Every page hit is served by a hot tier, a Django cache; every change reaches a cold tier, a
DynamoDB table, within ``WRITE_INTERVAL``. ``SESSION_ENGINE = "django_dynamo_failover.sessions"``.
"""

__version__ = "0.1.0"
