"""A TCP proxy that fails on demand in the ways of networks: in front of memcached or dynalite."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self

from .process import HOST, free_port

Mode = Literal["pass", "refuse", "black hole", "freeze", "reset", "slow", "error"]

_BLOCK = 65_536


class FaultProxy:
    """Passes all on to the server at ``port``, or fails; always at the same address.

    ==============  ==========================================================================
    ``pass``        what comes in goes on, what is answered goes back
    ``refuse``      nobody listens, and the connections there were are closed
    ``black hole``  takes connections and requests, and never answers
    ``freeze``      takes them too, and passes the requests on when another mode is set
    ``reset``       answers each request with a TCP reset
    ``slow``        holds each answer back for ``delay`` seconds
    ``error``       answers each request with ``reply``, and does not pass it on
    ==============  ==========================================================================

    The mode holds for the connections that are open, too.
    """

    def __init__(self, port: int, *, delay: float = 5.0, reply: bytes = b"") -> None:
        self.server_port = port
        self.port = free_port()
        self.delay = delay
        self.reply = reply
        self._mode: Mode = "pass"
        self._changed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.address}"

    def set(self, mode: Mode) -> None:
        """Change the mode; return when it holds."""
        self._run(self._set(mode))

    def start(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        """Close everything. Nothing happens if it does not run."""
        if self._thread.is_alive():
            self._run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    async def _set(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "refuse":
            await self._close()
        elif self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, HOST, self.port)

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side has gone, or this proxy goes
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, self.server_port)
        answers = asyncio.create_task(self._pass_answers(server_reader, writer))
        try:
            while request := await reader.read(_BLOCK):
                while self._mode == "freeze":
                    await self._changed.wait()
                if self._mode == "reset":
                    _reset(writer)
                    return
                if self._mode == "error":
                    writer.write(self.reply)
                elif self._mode != "black hole":
                    server_writer.write(request)
        finally:
            answers.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await answers
            server_writer.close()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while answer := await reader.read(_BLOCK):
            if self._mode == "slow":
                await asyncio.sleep(self.delay)
            if self._mode in ("pass", "slow"):
                writer.write(answer)
        writer.close()

    def __enter__(self) -> Self:
        return self if self._thread.is_alive() else self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<FaultProxy {self.address} {self._mode}>"


def _reset(writer: asyncio.StreamWriter) -> None:
    # To linger for 0 seconds is to send RST instead of FIN.
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
