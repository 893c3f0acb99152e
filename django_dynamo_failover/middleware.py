"""``SessionMiddleware``: Django's, that answers 503 when no tier can answer for a session."""

import logging
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import patch_vary_headers

from .cold import Waited, waited
from .exceptions import SessionUnavailable

logger = logging.getLogger(__name__)

#: How long a browser should wait before it tries again, in seconds.
RETRY_AFTER = 5


class SessionMiddleware(DjangoSessionMiddleware):
    """Use it in place of ``django.contrib.sessions.middleware.SessionMiddleware``.

    An outage of both tiers never deletes the cookie: the answer is 503 with ``Retry-After``,
    or with ``ON_UNAVAILABLE = "anonymous"`` the page without a session.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer a request; also when Django's own error page wanted the session."""
        with _one_deadline():
            try:
                return super().__call__(request)  # under ASGI the coroutine of __acall__
            except SessionUnavailable as error:
                return _unavailable(error)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request, as ``__call__``."""
        with _one_deadline():
            try:
                return await super().__acall__(request)
            except SessionUnavailable as error:
                return _unavailable(error)

    def process_request(self, request: HttpRequest) -> None:
        """Put the session on the request. Asks no tier yet, and starts nothing."""
        super().process_request(request)
        request.session.in_request = True  # type: ignore[attr-defined]

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a view that could not have its session."""
        if isinstance(exception, SessionUnavailable):
            return _unavailable(exception)
        return None

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Save the session, and leave the cookie alone if there was no way to have or save it."""
        session = getattr(request, "session", None)
        failure = getattr(session, "failure", None)
        if failure is not None and response.status_code == 500:
            # Raised in another middleware below this one, for which Django answers itself.
            return _unavailable(failure, response)
        if not getattr(session, "done_without", False):
            try:
                response = super().process_response(request, response)
            except SessionUnavailable as error:
                return _unavailable(error, response)
        if getattr(session, "done_without", False):  # which it may be only since it was to be saved
            response.cookies.pop(settings.SESSION_COOKIE_NAME, None)
            patch_vary_headers(response, ("Cookie",))
        return response


@contextmanager
def _one_deadline() -> Iterator[None]:
    """A block that is one request to the cold tier."""
    token = waited.set(Waited())
    try:
        yield
    finally:
        waited.reset(token)


def _unavailable(error: SessionUnavailable, instead_of: HttpResponse | None = None) -> HttpResponse:
    logger.error("Answered 503: the session is unavailable (%s).", error)
    response = HttpResponse(
        "Your session cannot be reached right now. You are still logged in; please try again.",
        status=503,
        content_type="text/plain; charset=utf-8",
        headers={"Retry-After": str(RETRY_AFTER), "Cache-Control": "no-store"},
    )
    if instead_of is not None:
        # What it has open is closed with ours. Its close() would end the request too early.
        closers: list[Any] = getattr(instead_of, "_resource_closers", [])
        response._resource_closers += closers  # type: ignore[attr-defined]  # noqa: SLF001
    return response
