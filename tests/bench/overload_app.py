"""What is overloaded: each request waits for a while, as for a database, and then keeps the core busy for a while."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

WAIT = float(os.environ.get("OVERLOAD_WAIT", "0.005"))
WORK = float(os.environ.get("OVERLOAD_WORK", "0.001"))


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    await asyncio.sleep(WAIT)
    until = time.thread_time() + WORK
    while time.thread_time() < until:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
