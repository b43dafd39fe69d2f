"""What the applications of all frameworks share: gates that requests wait at, and notes of what happened.

The routes, which every application has (``KEY`` is of one test alone):

    GET /                     text "hello"
    GET /json?name=N          {"hello": N}, and POST /json answers with what it is sent
    POST /form                {"name", "colours"} of an urlencoded form
    POST /upload              {"filename", "size", "sha256", "note"} of a multipart form
    POST /count               {"size", "sha256"} of any body
    GET /stream/KEY           "first\\n"; "second\\n" once the gate KEY is open
    GET /endless/KEY          pieces without an end; notes "begun" when it begins and "ended" when it ends
    GET /events               three server-sent events
    POST /background/KEY      "accepted"; then waits for the gate KEY, and notes "done"
    POST /gates/KEY           opens the gate KEY
    GET /notes/KEY            the notes under KEY
    GET /startup              {"startup": what the startup left, "variable": what it has set a context variable to}
    GET /meet/KEY             a plain function, which waits until as many are in it as the barrier KEY wants: two
    GET /file                 the bytes of FILE
    GET /cookies              sets two cookies; "seen": the cookie "seen" of the request, as JSON
    GET /redirect             leads to /json
    GET /headers              "size": of the header field X-Large, which the answer has as well
    GET /fail                 raises
    GET /fail-late            raises when a part of the answer is out
    GET /where                {"root_path", "path", "json": the address of /json, as the framework makes it}
    WebSocket /ws/KEY         chooses the subprotocol "chat", echoes texts and bytes, closes with 4001 for "bye"; notes
                              how it ended: "closed CODE"
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections import defaultdict
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from asgiri.types import Message, Receive, Scope, Send

PATIENCE = 20.0  # seconds

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")

notes: defaultdict[str, list[str]] = defaultdict(list)
gates: defaultdict[str, threading.Event] = defaultdict(threading.Event)
barriers: defaultdict[str, threading.Barrier] = defaultdict(lambda: threading.Barrier(2))

FILE = Path(os.environ.get("FRAMEWORKS_FILE", __file__))
EVENTS = "".join(f"event: tick\ndata: {number}\n\n" for number in range(3))


class OnPurposeError(Exception):
    """What the applications raise."""


async def passed(key: str) -> None:
    """Wait until the gate is open. It is opened by threads, too, so it is looked at."""
    async with asyncio.timeout(PATIENCE):
        while not gates[key].is_set():
            await asyncio.sleep(0.002)


def passed_by_thread(key: str) -> None:
    assert gates[key].wait(PATIENCE)


def meet(key: str) -> None:
    """Wait for the other one. BrokenBarrierError when none comes."""
    barriers[key].wait(PATIENCE)


def digest(body: bytes) -> dict[str, Any]:
    return {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def started() -> None:
    """What each startup does."""
    VARIABLE.set("set by the startup")


def stopped() -> None:
    """What each shutdown does: the file is looked for when the service has ended."""
    Path("stopped").write_text("by the shutdown", "utf-8")


def pause() -> None:
    """Between two pieces of an answer without an end, in a thread."""
    time.sleep(0.005)


class Watched:
    """An application whose answers for files are looked at: which messages they are made of goes into the notes."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/file"):
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            kind = message["type"]
            if kind not in notes["file"]:
                notes["file"].append(kind)
            await send(message)

        await self._app(scope, receive, noting)
