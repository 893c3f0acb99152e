"""Signals for what an operator may want to act upon.

All are sent by ``send_robust`` from the thread where it happened, which may be the background
thread. ``id`` is the first 8 characters of the storage id, never the session key.
"""

import django.dispatch

#: A session that the hot tier had lost, or held an older version of, came from DynamoDB.
#: Arguments: ``id``.
session_restored = django.dispatch.Signal()
#: Two sites changed the same session. Arguments: ``id``, ``kept`` ("ours", "theirs" or
#: "merged").
session_conflict = django.dispatch.Signal()
#: A session was found deleted, revoked or expired in DynamoDB. Arguments: ``id``.
session_ended = django.dispatch.Signal()
#: A write to DynamoDB failed and will be tried again. Arguments: ``id``, ``error`` (class name).
cold_write_failed = django.dispatch.Signal()
#: A tier stopped or started to answer. Arguments: ``tier`` ("hot" or the name of a region).
tier_down = django.dispatch.Signal()
tier_up = django.dispatch.Signal()
