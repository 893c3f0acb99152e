"""A process of a site that does what a test tells it: the far end of ``workers.Worker``.

Reads commands from standard input and writes events to standard output, both lines of JSON::

    {"run": 7, "name": "load", "arguments": [KEY]}   -> {"done": 7, "result": {...}}
    {"stop": "hot.add"}                              -> {"stopped": 1, "call": "hot.add"}
    {"go": 1}

It ends when its standard input does.
"""

import itertools
import json
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError

#: The calls to a tier, about a session, that a thread can be stopped before.
HOT_CALLS = ["gets", "add", "cas", "set"]
COLD_CALLS = ["read", "put_new", "put_over", "revoke"]


class Gate:
    """Stops threads right before a call to a tier, until the test lets them go on."""

    def __init__(self, tell):
        self._tell = tell
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._closed = {}
        self._wanted = None

    def stop(self, call):
        """Stop the next such call; with ``*`` all calls, with None no more and none any longer."""
        with self._lock:
            self._wanted = call
            released = [] if call else list(self._closed)
        for number in released:
            self.go(number)

    def go(self, number):
        """Let one call go on, unless it does already."""
        with self._lock:
            opened = self._closed.pop(number, None)
        if opened is not None:
            opened.set()

    def watch(self, owner, name, label):
        """Let ``owner.name`` stop here first, where it is about a session."""
        call = getattr(owner, name)

        def stop_and_call(tier, what, *arguments, **options):
            # Not where the background tells of the process: it does whenever it likes.
            if not str(what).startswith("session-"):
                self._pass(label)
            return call(tier, what, *arguments, **options)

        setattr(owner, name, stop_and_call)

    def _pass(self, label):
        with self._lock:
            if self._wanted not in (label, "*"):
                return
            if self._wanted == label:
                self._wanted = None
            number = next(self._numbers)
            opened = self._closed[number] = threading.Event()
            self._tell(stopped=number, call=label)
        opened.wait()


class Commands:
    """What a request does to a session. A session that is over is None."""

    def open(self, data):
        """Return the key of a new session."""
        session = self._session()
        session.update(data)
        session.save()
        return session.session_key

    def load(self, key):
        session = self._session(key)
        data = dict(session.items())
        return data if session.session_key else None

    def change(self, key, data, at=None):
        """Load, set these keys and save; with ``at``, a monotonic time, save just then."""
        session = self._session(key)
        if not session.items() and session.session_key is None:
            return None
        session.update(data)
        while at is not None and time.monotonic() < at:
            pass  # to sleep is not exact enough
        session.save()
        return dict(session.items())

    def logout(self, key):
        session = self._session(key)
        session.items()  # as request.user does
        session.flush()

    def log_in(self, key, user):
        """Return the key that a session has after a login."""
        session = self._session(key)
        session["cart"] = session.get("cart", 0)
        session.cycle_key()
        session["_auth_user_id"] = user
        session.save()
        return session.session_key

    def write(self):
        """Bring to DynamoDB what is pending; return how much is left."""
        return self._runtime().writer.flush(30)

    def pending(self):
        return self._runtime().writer.pending_count

    def counts(self):
        return self._runtime().metrics.snapshot()

    def each(self, name, many, threads=1):
        """Return what a command answers to each of these lists of arguments."""
        command = getattr(self, name)
        if threads == 1:
            return [_answer(command, arguments) for arguments in many]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda arguments: _answer(command, arguments), many))

    def _session(self, key=None):
        from django_dynamo_failover.sessions import SessionStore

        return SessionStore(key)

    def _runtime(self):
        from django_dynamo_failover import runtime

        return runtime.current()


def _answer(command, arguments):
    try:
        return command(*arguments)
    except UpdateError:
        return None


class Process:
    """Commands in threads of their own, so that one that is stopped stops no other."""

    def __init__(self, stream):
        self._stream = stream
        self._writing = threading.Lock()
        self._commands = Commands()
        self._gate = Gate(self.tell)

    def serve(self, lines):
        from django_dynamo_failover.cache import MemcachedCache
        from django_dynamo_failover.dynamo import DynamoTable

        for name in HOT_CALLS:
            self._gate.watch(MemcachedCache, name, f"hot.{name}")
        for name in COLD_CALLS:
            self._gate.watch(DynamoTable, name, f"cold.{name}")
        with ThreadPoolExecutor(8) as pool:
            for line in lines:
                match json.loads(line):
                    case {"run": number, "name": name, "arguments": arguments}:
                        pool.submit(self._run, number, name, arguments)
                    case {"stop": call}:
                        self._gate.stop(call)
                    case {"go": number}:
                        self._gate.go(number)
            self._gate.stop(None)

    def tell(self, **event):
        with self._writing:
            self._stream.write(json.dumps(event) + "\n")
            self._stream.flush()

    def _run(self, number, name, arguments):
        try:
            result = _answer(getattr(self._commands, name), arguments)
        except Exception:  # whatever it is, the test is to see it
            self.tell(done=number, error=traceback.format_exc())
        else:
            self.tell(done=number, result=result)


if __name__ == "__main__":
    settings.configure(**json.loads(sys.argv[1]))
    Process(sys.stdout).serve(sys.stdin)
