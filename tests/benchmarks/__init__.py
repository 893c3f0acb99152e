"""What the package costs, measured. Each module says how to run it."""

import os
import uuid

from django.conf import settings
from servers import create_table


def configure(memcached, dynamodb, **options):
    """Configure Django for the engine on these servers, with a table of its own."""
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    table = f"sessions-{uuid.uuid4().hex}"
    create_table(dynamodb.endpoint_url, table)
    settings.configure(
        SECRET_KEY="benchmark",
        CACHES={
            "default": {
                "BACKEND": "django_dynamo_failover.cache.MemcachedCache",
                "LOCATION": memcached.address,
            }
        },
        SESSION_ENGINE="django_dynamo_failover.sessions",
        DYNAMO_FAILOVER={
            "TABLE": table,
            "REGIONS": [{"NAME": "us-east-1", "ENDPOINT_URL": dynamodb.endpoint_url}],
            **options,
        },
    )
