"""A DynamoDB API server in front of another one, which says what a test wants to be said."""

import http.client
import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from servers import HOST

TTL_ON = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}}
BACKUPS_ON = {
    "ContinuousBackupsDescription": {
        "ContinuousBackupsStatus": "ENABLED",
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"},
    }
}


class Relay:
    """Passes requests on to a dynalite, and changes what it answers to some operations.

    ``edits`` has for an operation what makes another answer of its answer. By itself it says what
    dynalite cannot: that TTL and backups are on, and which ``replicas`` the table has. Its clock is
    ``ahead`` seconds ahead. Operations that are ``swallowed`` are not passed on. ``after`` is
    called with each operation and its request.
    """

    def __init__(self, server, replicas):
        self.server = server
        self.ahead = 0
        self.swallowed = set()
        self.after = lambda operation, request: None
        self.edits = {
            "DescribeTable": lambda answer: described(answer, Replicas=replicas_in(*replicas)),
            "DescribeTimeToLive": lambda answer: TTL_ON,
            "DescribeContinuousBackups": lambda answer: BACKUPS_ON,
        }
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                relay.answer(self)

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer((HOST, 0), Handler)
        self.endpoint_url = f"http://{HOST}:{self._http.server_port}"

    def answer(self, request):
        body = request.rfile.read(int(request.headers["Content-Length"]))
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        if operation in self.swallowed:
            reply(request, 200, {}, self.ahead)
            return
        connection = http.client.HTTPConnection(HOST, self.server.port, timeout=10)
        connection.request("POST", "/", body, dict(request.headers))
        response = connection.getresponse()
        status, answer = response.status, json.loads(response.read())
        connection.close()
        unknown = "UnknownOperation" in answer.get("__type", "")
        if operation in self.edits and (status == 200 or unknown):
            status, answer = 200, self.edits[operation](answer)
        self.after(operation, json.loads(body))
        reply(request, status, answer, self.ahead)

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self._http.shutdown()
        self._http.server_close()


def reply(request, status, answer, ahead):
    """Answer a request."""
    data = json.dumps(answer).encode()
    request.send_response_only(status)
    request.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def described(answer, **attributes):
    """Return the answer to DescribeTable with other attributes of the table."""
    return {"Table": {**answer["Table"], **attributes}} if "Table" in answer else answer


def replicas_in(*regions, status="ACTIVE"):
    """Return what DescribeTable says of replicas."""
    return [{"RegionName": region, "ReplicaStatus": status} for region in regions]
