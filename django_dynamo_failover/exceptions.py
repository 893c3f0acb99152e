"""Everything the package raises, and whose fault it is."""


class FailoverError(Exception):
    """Base of all errors of this package."""


class SessionUnavailable(FailoverError):
    """Neither tier can answer for a session right now: try again, it is not gone.

    ``middleware.SessionMiddleware`` turns it into a 503 with ``Retry-After``. The cookie stays.
    """


class SessionUnreadable(SessionUnavailable):
    """What a tier holds for a session is not what this engine wrote there.

    It may be corrupt, forged, swapped, or signed by a SECRET_KEY that this site does not have.
    That proves nothing about the session, so it is neither ended nor overwritten.
    """


class SessionTooLarge(FailoverError):
    """A session does not fit where ``OVERSIZE`` says it must: store less in it."""


class SessionEnded(FailoverError):
    """The session was deleted, revoked or has expired; raised only on proof."""


class SessionExists(FailoverError):
    """A session cannot be created: its id is taken."""


class TierUnavailable(FailoverError):
    """A tier gave no answer: an error, a timeout, a throttle, or an open breaker."""


class HotUnavailable(TierUnavailable):
    """The Django cache gave no answer."""


class ColdUnavailable(TierUnavailable):
    """No region of DynamoDB gave an answer within the deadline."""


class ColdThrottled(ColdUnavailable):
    """DynamoDB has no capacity left for the table, though it is there."""


class ColdMisconfigured(ColdUnavailable):
    """DynamoDB refuses for a reason that a retry does not cure: table, permission, key schema."""


class ValueTooLarge(FailoverError):
    """A tier refuses the value for its size, and always will."""


class ConditionFailed(FailoverError):
    """The condition of a conditional write did not hold."""


class Unreadable(FailoverError):
    """Bytes that fail authentication or have an unknown format."""
