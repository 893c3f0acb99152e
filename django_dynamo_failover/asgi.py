"""For ASGI servers: write what is pending before the process ends."""

import asyncio
from typing import TYPE_CHECKING

from . import runtime

if TYPE_CHECKING:
    from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope


def flush_at_shutdown(application: "ASGI3Application") -> "ASGI3Application":
    """Return the application with an answer to the server's lifespan messages.

    Python's hooks at exit are not enough: uvicorn ends with the very signal that it was sent.
    """

    async def answer(
        scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable"
    ) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await application(scope, receive, send)

    return answer


async def _live(receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    # After the last request. Not in the loop's own thread, which others may still need.
    await asyncio.to_thread(runtime.reset)
    await send({"type": "lifespan.shutdown.complete"})
