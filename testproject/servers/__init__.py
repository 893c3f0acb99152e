"""Servers on free ports of 127.0.0.1 for tests and demo: memcached, redis, dynalite, moto.

Only the standard library, plus moto (imported when it is started) and boto3 (when a client is asked
for). Every server is a context manager, and none outlives the Python process that started it, not
even if that is killed with -9.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Any

from .dynamodb import Dynalite, MotoServer
from .fault_proxy import FaultProxy
from .memcached import Memcached
from .process import HOST, ServerProcess, free_port
from .redis import Redis

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = [
    "HOST",
    "Dynalite",
    "FaultProxy",
    "Memcached",
    "MotoServer",
    "Redis",
    "ServerProcess",
    "boto3_client",
    "create_table",
    "dynamodb_server",
    "free_port",
    "hot_server",
]


def dynamodb_server(**options: Any) -> Dynalite | MotoServer:
    """Dynalite (which takes the options) where Node has it, else moto; not started yet."""
    return Dynalite(**options) if Dynalite.available() else MotoServer()


def hot_server() -> Memcached | None:
    """A memcached, not started yet; None where the binary is missing."""
    return Memcached() if Memcached.available() else None


@cache
def boto3_client(endpoint_url: str, region: str = "us-east-1") -> DynamoDBClient:
    """The one client for this server and region, with credentials of its own making."""
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name=region,
    )
    config = Config(connect_timeout=1, read_timeout=10, retries={"total_max_attempts": 2})
    client: DynamoDBClient = session.client("dynamodb", endpoint_url=endpoint_url, config=config)
    return client


def create_table(endpoint_url: str, table: str, region: str = "us-east-1") -> None:
    """Create an empty session table as createtable_dynamo does, without its code."""
    client = boto3_client(endpoint_url, region)
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    # dynalite refuses items for a moment, even where a table shall take 0 ms to be created.
    while client.describe_table(TableName=table)["Table"]["TableStatus"] != "ACTIVE":
        time.sleep(0.001)
