"""The boto3 client of one region: made in the background, one per process, with deadlines.

Nothing else in the package imports boto3, and no import of this module does: it takes 98 ms, so
the thread that makes the client pays for it.
"""

import concurrent.futures
import concurrent.futures.thread
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from .conf import Region
from .exceptions import (
    ColdMisconfigured,
    ColdThrottled,
    ColdUnavailable,
    ConditionFailed,
    FailoverError,
    ValueTooLarge,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

_MAKE_AGAIN_AFTER = 3.0  # a look-up of credentials that fails may have taken 9 s
_LONGEST_PAUSE = 2.0
_CODE_LENGTH = 60  # of an error: some server may answer anything

#: Trying again gives the same answer. All other errors are taken for ones that pass.
_MISCONFIGURED_CODES = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "ResourceNotFoundException",
        "SerializationException",
        "SignatureDoesNotMatch",
        "SubscriptionRequiredException",
        "UnknownOperationException",
        "UnrecognizedClientException",
        "ValidationException",
    }
)
#: The region is well, but asked too much.
_THROTTLED_CODES = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
    }
)
_MISCONFIGURED_CLASSES = (
    "ConfigNotFound",
    "ConfigParseError",
    "EndpointProviderError",
    "InvalidConfigError",
    "InvalidRegionError",
    "MissingDependencyException",
    "NoCredentialsError",
    "NoRegionError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "UnknownCredentialError",
    "UnknownEndpointError",
)
_FINAL = (ColdMisconfigured, ConditionFailed, ValueTooLarge)


class DynamoClient:
    """Asks one region, and answers with the errors of this package.

    ``until`` is always a ``time.monotonic()`` time. No attempt starts after it, and a failed one
    is repeated only while as much time is left as it took; so a call ends at most
    ``connect_timeout + read_timeout`` after it. Timeouts are in seconds.

    ``make_session`` returns a new boto3 ``Session``. It is called in a thread of its own.
    """

    def __init__(
        self,
        region: Region,
        *,
        connect_timeout: float,
        read_timeout: float,
        attempts: int,
        max_connections: int,
        make_session: Callable[[], Any] | None = None,
    ) -> None:
        self._region = region
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._attempts = attempts
        self._max_connections = max_connections
        self._make_session = make_session
        #: How often the region has said that it was asked too much.
        self.throttles = 0
        self._maker = _ClientMaker(self._make)

    def warm(self) -> None:
        """Start to make the client, and return at once. Not to be called before a fork.

        A child that is forked while this imports boto3 could never import it.
        """
        self._own_maker().start()

    def wait(self, timeout: float) -> None:
        """Wait until the client that is being made, if one is, is there; before a fork."""
        self._maker.wait(timeout)

    def call(
        self,
        operation: str,
        ask: Callable[["DynamoDBClient"], T],
        until: float,
    ) -> T:
        """Return what one request answers. Its errors become those of this package.

        Up to ``attempts`` times; a request that is throttled, as often as there is time. Not
        botocore's own retries: they know no deadline.
        """
        attempt = failures = 0
        while True:
            attempt += 1
            client = self._own_maker().client(until)
            started = time.monotonic()
            if started >= until:
                raise ColdUnavailable(f"{operation}: the deadline has passed")
            try:
                return ask(client)
            except Exception as error:
                failure = _translate(error, operation)
            # Raised out here, it does not carry botocore's error, whose text may say too much.
            if isinstance(failure, ColdThrottled):
                self.throttles += 1
            else:
                failures += 1
            if failures >= self._attempts or isinstance(failure, _FINAL):
                raise failure
            ended = time.monotonic()
            self.pause(attempt, until - (ended - started), failure)

    def pause(self, tries: int, until: float, failure: FailoverError) -> None:
        """Wait before the next of several tries; raise the failure if that would be too late."""
        # 25 ms on average, then 50, 100 … up to 1 s, at random so that processes spread out.
        seconds = random.uniform(0, min(0.05 * 2 ** (tries - 1), _LONGEST_PAUSE))  # noqa: S311
        if time.monotonic() + seconds >= until:
            raise failure
        time.sleep(seconds)
        # A busy machine wakes late. Throttling is not to be taken for an outage then.
        if time.monotonic() >= until:
            raise failure

    def _own_maker(self) -> "_ClientMaker":
        # A client that crosses a fork gave the child other sessions' items: two processes read
        # one connection. No lock here, for another thread may have held it at the fork.
        maker = self._maker
        if maker.pid != os.getpid():
            maker = self._maker = _ClientMaker(self._make)
        return maker

    def _make(self) -> "DynamoDBClient":
        import boto3
        from botocore.config import Config
        from botocore.exceptions import NoCredentialsError

        # Never the default session of boto3: it is the site's own, and not safe among threads.
        session = self._make_session() if self._make_session else boto3.Session()
        credentials = session.get_credentials()
        if credentials is None:
            # Such a client would be made, and never find any for as long as it lives.
            raise NoCredentialsError
        credentials.get_frozen_credentials()  # an assumed role is asked for here, not in a request
        client: DynamoDBClient = session.client(
            "dynamodb",
            region_name=self._region.name,
            endpoint_url=self._region.endpoint_url,
            config=Config(
                connect_timeout=self._connect_timeout,
                read_timeout=self._read_timeout,
                retries={"mode": "standard", "total_max_attempts": 1},
                tcp_keepalive=True,
                max_pool_connections=self._max_connections,
            ),
        )
        return client


class _ClientMaker:
    """The client of one process, made once in a thread of its own; a failure is kept for 3 s."""

    def __init__(self, make: Callable[[], "DynamoDBClient"]) -> None:
        self.pid = os.getpid()
        self._make = make
        self._lock = threading.Lock()
        self._future: Future[DynamoDBClient | FailoverError] | None = None
        self._make_again_at = 0.0

    def client(self, until: float) -> "DynamoDBClient":
        """Return the client; wait for it until then at most. Raises ``ColdUnavailable``."""
        future = self.start()
        try:
            result = future.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise ColdUnavailable("CreateClient: not ready yet") from None
        if isinstance(result, FailoverError):
            raise type(result)(*result.args)  # a new one: many threads may raise it
        return result

    def start(self) -> "Future[DynamoDBClient | FailoverError]":
        """Return the client to be. It is being made, or was, or could not be a moment ago."""
        with self._lock:
            if self._future is not None and not self._is_over(self._future):
                return self._future
            future = self._future = Future()
        try:
            threading.Thread(
                target=self._run, args=(future,), name="dynamo-client", daemon=True
            ).start()
        except RuntimeError:  # no thread can start any more: the process is about to exit
            self._run(future)
        return future

    def wait(self, timeout: float) -> None:
        """Wait until nothing is being made in this process."""
        if self._future is not None and self.pid == os.getpid():
            concurrent.futures.wait([self._future], timeout)

    def _is_over(self, future: "Future[DynamoDBClient | FailoverError]") -> bool:
        return (
            future.done()
            and isinstance(future.result(), FailoverError)
            and time.monotonic() >= self._make_again_at
        )

    def _run(self, future: "Future[DynamoDBClient | FailoverError]") -> None:
        try:
            result: DynamoDBClient | FailoverError = self._make()
        except Exception as error:
            result = _translate(error, "CreateClient")
        self._make_again_at = time.monotonic() + _MAKE_AGAIN_AFTER
        future.set_result(result)


def _translate(error: Exception, operation: str) -> FailoverError:
    """Return this package's error for one of botocore's: only its code and the operation."""
    if isinstance(error, FailoverError):
        return error
    text = f"{operation}: {type(error).__name__}"
    # The first is a missing boto3, the second what botocore says to a malformed endpoint URL.
    if isinstance(error, ImportError) or type(error) is ValueError:
        return ColdMisconfigured(text)

    from botocore import exceptions as botocore

    if isinstance(error, botocore.ClientError):
        details = error.response.get("Error", {})
        code = str(details.get("Code") or "ClientError")[:_CODE_LENGTH]
        text = f"{operation}: {code}"
        if code == "ConditionalCheckFailedException":
            return ConditionFailed(text)
        if code == "ValidationException" and "Item size" in str(details.get("Message")):
            return ValueTooLarge(text)
        if code in _THROTTLED_CODES:
            return ColdThrottled(text)
        return (ColdMisconfigured if code in _MISCONFIGURED_CODES else ColdUnavailable)(text)
    classes = tuple(getattr(botocore, name) for name in _MISCONFIGURED_CLASSES)
    return (ColdMisconfigured if isinstance(error, classes) else ColdUnavailable)(text)
