"""What the soak serves. It takes its time to be imported, as real ones do: SOAK_SLEEP and SOAK_BURN, in seconds."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

WAIT = 0.02  # seconds that /wait takes


def burn(seconds: float) -> None:
    """Use the CPU."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


time.sleep(float(os.environ.get("SOAK_SLEEP", 0)))
burn(float(os.environ.get("SOAK_BURN", 0)))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The path, after a while for ``/wait``; its own body for ``/echo``."""
    assert scope["type"] == "http"
    body: bytes = scope["path"].encode()
    if body == b"/wait":
        await asyncio.sleep(WAIT)
    elif body == b"/echo":
        pieces = []
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(pieces)
    headers = [(b"content-length", b"%d" % len(body)), (b"x-worker", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
