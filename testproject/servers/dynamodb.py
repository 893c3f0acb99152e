"""DynamoDB API servers that count their requests: dynalite under Node, and moto in a thread."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Self

from .process import HOST, ServerProcess


class Dynalite(ServerProcess):
    """dynalite under Node, a DynamoDB API server: it counts its requests and fails on demand.

    Args:
        path: a directory for the tables, which then outlive kill() and restart(); None: in memory.
        create_table_ms: how long a table stays CREATING, DELETING or UPDATING.
    """

    CONTROL = "/__control"

    def __init__(
        self, *, path: str | Path | None = None, create_table_ms: int = 0, port: int | None = None
    ) -> None:
        super().__init__(port=port)
        self.path = path
        self.create_table_ms = create_table_ms

    @staticmethod
    def available() -> bool:
        return _dynalite_folder() is not None

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.address}"

    def argv(self) -> list[str]:
        options = {
            "port": self.port,
            "path": str(self.path) if self.path is not None else None,
            "createTableMs": self.create_table_ms,
            "deleteTableMs": self.create_table_ms,
            "updateTableMs": self.create_table_ms,
        }
        script = Path(__file__).with_name("dynalite_counted.js")
        return ["node", str(script), json.dumps(options)]

    def environ(self) -> dict[str, str]:
        return {**os.environ, "NODE_PATH": str(_dynalite_folder() or "")}

    def is_ready(self) -> bool:
        self.requests()
        return True

    def requests(self) -> Counter[str]:
        """The requests since the start or the last reset_requests(): Counter({"GetItem": 2})."""
        return Counter(self._control("GET")["requests"])

    def reset_requests(self) -> None:
        self._control("POST", reset=True)

    def latency(self, milliseconds: float) -> None:
        """Wait so long before each request; 0 ends it. A restart forgets this and the faults."""
        self._control("POST", latency_ms=milliseconds)

    def throttle(self, reads_per_second: float) -> None:
        """Refuse the reads beyond so many in a second; 0 refuses none.

        What is not used is saved up for a tenth of a second. Refused ones are not in requests().
        """
        self._control("POST", reads_per_second=reads_per_second)

    def throttled(self) -> int:
        """How many reads throttle() has refused since the start or the last reset_requests()."""
        count: int = self._control("GET")["throttled"]
        return count

    def fail(
        self,
        operation: str,
        answer: str,
        *,
        status: int = 400,
        times: int | None = 1,
        after: bool = False,
        region: str | None = None,
    ) -> None:
        """Fail the next requests.

        Args:
            operation: such as "PutItem"; "*" for any.
            answer: an error type such as "ThrottlingException", or "drop" (close the connection),
                "hang" (keep it open, say nothing), "unprocessed" (BatchGetItem and BatchWriteItem:
                nothing done, all of it handed back).
            status: the HTTP status of an error type; 500 for "InternalServerError".
            times: how many requests; None for all until heal().
            after: carry the request out first, so that only its reply is lost.
            region: only requests that are signed for this one; None for any.
        """
        fault = {
            "operation": operation,
            "answer": answer,
            "status": status,
            "times": times,
            "after": after,
            "region": region,
        }
        self._control("POST", fault=fault)

    def heal(self, region: str | None = None) -> None:
        """End all faults, latency and throttling; with a region only the faults of that one."""
        if region is None:
            self._control("POST", faults=[], latency_ms=0, reads_per_second=0)
        else:
            self._control("POST", healed=region)

    def _control(self, method: str, **change: object) -> dict[str, Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request(method, self.CONTROL, json.dumps(change) if change else None)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()


def _dynalite_folder() -> Path | None:
    """The node_modules with dynalite in it: of NODE_PATH, of this project, or npm's global one."""
    node = shutil.which("node")
    if node is None:
        return None
    here = Path(__file__).resolve().parent.parent
    folders = [Path(entry) for entry in os.environ.get("NODE_PATH", "").split(os.pathsep) if entry]
    folders += [here / "node_modules", here.parent / "node_modules"]
    folders += [
        prefix / "lib" / "node_modules"
        for prefix in (
            Path(node).parent.parent,
            Path(node).resolve().parent.parent,
            Path("/usr/local"),
        )
    ]
    return next((folder for folder in folders if (folder / "dynalite").is_dir()), None)


class MotoServer:
    """moto's DynamoDB in a thread of this process, for machines without Node.

    It cannot be killed or frozen. moto keeps one set of tables per Python process, so they outlive
    stop(). Requests are served one at a time: its conditional writes are not atomic among threads.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._requests: Counter[str] = Counter()

    @staticmethod
    def available() -> bool:
        return all(importlib.util.find_spec(name) for name in ("moto", "flask", "flask_cors"))

    @property
    def endpoint_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> Self:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        class SilentHandler(MotoRequestHandler):
            def log_request(self, *args: object) -> None:
                pass

        moto = DomainDispatcherApplication(create_backend_app)
        lock = threading.Lock()

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            target = environ.get("HTTP_X_AMZ_TARGET", "")
            with lock:
                self._requests[target.partition(".")[2] or "unknown"] += 1
                return moto(environ, start_response)

        self._server = make_server(
            HOST, self.port, application, threaded=True, request_handler=SilentHandler
        )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="moto", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def requests(self) -> Counter[str]:
        """The requests since the start or the last reset_requests(), by operation."""
        return self._requests.copy()

    def reset_requests(self) -> None:
        self._requests.clear()

    def __enter__(self) -> Self:
        return self if self._thread is not None else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<MotoServer {HOST}:{self.port}>"
