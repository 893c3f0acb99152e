"""Stand between a client and a server and break what passes: ``python -m tests.soak.proxy``.

A process of its own, so that the load generator does not slow it down. ``Proxy`` is its remote
control.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable

from servers import HOST, ServerProcess, free_port

from tests.soak import ROOT


class Proxy(ServerProcess):
    """A TCP proxy in front of ``port``. It passes everything on until it is told otherwise."""

    def __init__(self, target: int) -> None:
        super().__init__()
        self.target = target
        self.control = free_port()

    @staticmethod
    def available() -> bool:
        return True

    def argv(self) -> list[str]:
        numbers = (self.port, self.target, self.control)
        return [sys.executable, "-m", "tests.soak.proxy", *map(str, numbers)]

    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "testproject")])}

    def refuse(self) -> None:
        """Close the port and all connections."""
        self._order("refuse")

    def swallow(self) -> None:
        """Accept connections and bytes, and pass nothing on: a black hole."""
        self._order("swallow")

    def delay(self, seconds: float) -> None:
        """Pass everything on so much later, in both directions."""
        self._order(f"delay {seconds}")

    def cut(self) -> None:
        """Cut all connections with a reset; new ones are fine."""
        self._order("cut")

    def heal(self) -> None:
        """Pass everything on. What was swallowed comes late, as after a lost route."""
        self._order("heal")

    def _order(self, order: str) -> None:
        with socket.create_connection((HOST, self.control), timeout=5) as connection:
            connection.sendall(order.encode() + b"\n")
            if connection.recv(16) != b"done\n":
                raise RuntimeError(f"{self} did not {order}")


class _Relay:
    """The proxy itself, on the event loop."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._delay = 0.0
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, HOST, self._port)

    async def obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match (await reader.readline()).decode().split():
            case ["refuse"]:
                if self._server is not None:
                    self._server.close()
                    self._server = None
                self._cut()
            case ["swallow"]:
                self._open.clear()
            case ["delay", seconds]:
                self._delay = float(seconds)
            case ["cut"]:
                self._cut()
            case ["heal"]:
                self._delay = 0.0
                self._open.set()
                await self.listen()
        writer.write(b"done\n")
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._open.wait()
            server_reader, server_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            self._abort(writer)
            return
        self._writers.add(server_writer)
        await asyncio.gather(self._pass(reader, server_writer), self._pass(server_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self._open.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                writer.write(data)
                await writer.drain()
        self._writers.discard(writer)
        writer.close()

    def _cut(self) -> None:
        for writer in list(self._writers):
            self._abort(writer)

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()


async def main(port: int, target: int, control: int) -> None:
    """Serve until killed."""
    relay = _Relay(port, target)
    orders: Callable[..., object] = relay.obey
    async with await asyncio.start_server(orders, HOST, control):
        await relay.listen()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
