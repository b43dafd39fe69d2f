"""The application that the end-to-end tests serve: small, and honest about who it is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

Message = dict[str, Any]

RELEASED = asyncio.Event()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode()).items()}
    match scope["path"]:
        case "/who":
            await answer(send, {**scope["extensions"]["asgiri"], "state": scope["state"]})
        case "/slow":
            if marks := os.environ.get("MARKS"):
                Path(marks, "slow").touch()
            await asyncio.sleep(float(query["seconds"]))
            await answer(send, {"slept": query["seconds"]})
        case "/upload":
            await upload(receive, send)
        case "/release":
            RELEASED.set()
            await answer(send, {})
        case "/env":
            await answer(send, {"value": os.environ.get(query["name"])})
        case "/block":
            Path(os.environ["MARKS"], "blocked").touch()
            time.sleep(float(query["seconds"]))
        case "/signals":
            await answer(send, {"status": subprocess.check_output(["cat", "/proc/self/status"], text=True)})
        case "/orphan":  # which lives a moment longer than its parent, and then tells whose it is
            tell = 'sleep 0.1; read -r _ _ _ parent _ </proc/$$/stat; echo "$parent" >"$MARKS/parent"'
            subprocess.run(["sh", "-c", "sh -c '" + tell + "' &"], check=True)
            await answer(send, {})
        case "/offers":
            await answer(send, {"modules": [*sys.modules], "extensions": [*scope["extensions"]]})
        case "/exit":
            os._exit(int(query["status"]))
        case path:
            await answer(send, {"path": path})


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["started"] = os.getpid()
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    if marks := os.environ.get("MARKS"):
        Path(marks, str(os.getpid())).touch()
    await send({"type": "lifespan.shutdown.complete"})


async def upload(receive: Any, send: Any) -> None:
    """Take nothing of a body until ``/release`` is asked for; then count it, and tell what memory that cost."""
    before = resident()
    await RELEASED.wait()
    size, peak = 0, resident()
    while True:
        message = await receive()
        size += len(message["body"])
        if size % (64 << 20) < len(message["body"]):
            peak = max(peak, resident())
        if not message["more_body"]:
            break
    await answer(send, {"size": size, "grown": max(peak, resident()) - before})


async def answer(send: Any, what: object) -> None:
    body = json.dumps(what).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
