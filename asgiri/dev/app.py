"""What a worker serves under reload: the application, and around it what a developer sees in the browser.

While the newest code is broken, documents are the error page, and all else is the old code's. Below ``/.asgiri/`` the
wrapper answers itself: with the events that pages listen to, their script, and the way through to the old version.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, quote

import msgspec

from asgiri.config.nodes import printable
from asgiri.dev.insert import SCRIPT_NAME, Insertion, Phase, PolicyError
from asgiri.dev.page import RESERVED, TroubleApp, events_url, send_page, trouble_page
from asgiri.dev.script import SCRIPT
from asgiri.supervisor.bulletin import Bulletin
from asgiri.tracebacks import Trouble
from asgiri.types import ASGIApp, Headers, Message, Receive, Scope, Send

logger = logging.getLogger("asgiri.dev")

BEAT_SECONDS: Final = 15.0  # how often a stream of events without events says that it is there
COOKIE: Final = b"asgiri-through"
DEBUG: Final = "http.response.debug"  # an extension of ASGI: what an answer was made of, for tests

_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
_TEXT: Final = b"text/plain; charset=utf-8"
# Said by libraries that ask for parts of a page, where the browser does not say itself what a request is for.
_PARTIAL: Final = frozenset({b"x-requested-with", b"hx-request", b"turbo-frame", b"x-up-version", b"x-inertia"})


class DevApp:
    """Wraps an application. ``browser``: its pages get the script; ``news`` reads the bulletin.

    What was posted before is about older code than this worker's: it has come up, so the newest code does.
    """

    def __init__(self, app: ASGIApp, generation: int, *, browser: bool, news: Callable[[], Bulletin]) -> None:
        self._app = app
        self._stands_in = app if isinstance(app, TroubleApp) else None
        self._generation = generation
        self._browser = browser
        self._news = news
        self._run = run_of()
        self._born = news().number
        self._trouble: Trouble | None = None
        self._number = 0  # of the bulletin that tells of the trouble; 0 without
        self._until = asyncio.Event()  # set when the streams of events are to end; there are no others once it drains
        self._changed = asyncio.Event()
        self._told_of_policy = False
        self.refresh()

    @property
    def at(self) -> str:
        """Which code documents are of now: what a page compares."""
        return f"{self._run}.{self._generation}.{self._number}"

    def refresh(self) -> None:
        """Read the bulletin, and tell the pages.

        Where trouble is over, newer code than this worker's serves: the pages ask that one.
        """
        bulletin = self._news()
        if self._trouble is not None and bulletin.trouble is None:
            self._until.set()
            self._until = asyncio.Event()
        self._trouble = bulletin.trouble if bulletin.number > self._born else None
        self._number = bulletin.number if self._trouble is not None else 0
        if self._stands_in is not None:
            self._stands_in.trouble = self._trouble or self._stands_in.trouble
            self._stands_in.at = self.at
        self._tell()

    def leave(self) -> None:
        """The worker drains: end the streams of events, so that the pages ask who serves now."""
        self._until.set()
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root = scope.get("root_path", "").rstrip("/")
        path: str = scope["path"]
        if path.startswith(root + RESERVED):
            await self._own(path[len(root) + len(RESERVED) :], scope, receive, send)
            return
        if self._trouble is not None and self._stands_in is None and is_document(scope) and not self._passes(scope):
            through = f"{quote(root)}{RESERVED}through?to={quote(target_of(scope), safe='/')}"
            page = trouble_page(self._trouble, through=through, at=self.at, events=events_url(scope))
            await send_page(scope, send, page)
            return
        scope.setdefault("extensions", {})[DEBUG] = {}
        if self._browser and self._stands_in is None and scope["method"] == "GET" and is_document(scope):
            send = self._inserting(scope, root, send)
        await self._app(scope, receive, without_debug(send))

    def _inserting(self, scope: Scope, root: str, send: Send) -> Send:
        """``send`` for a page that may get the script."""
        insertion = Insertion(quote(root) + RESERVED + SCRIPT_NAME, self.at)

        async def insert(message: Message) -> None:
            if insertion.phase is Phase.PLAIN:
                await send(message)
                return
            try:
                messages = insertion.take(message)
            except PolicyError:
                self._tell_of_policy(scope)
                messages = (message,)
            for one in messages:
                await send(one)

        return insert

    def _tell_of_policy(self, scope: Scope) -> None:
        if not self._told_of_policy:
            self._told_of_policy = True
            logger.warning(
                "reload.browser: the Content-Security-Policy of %s allows no script from 'self' that connects to it: "
                "pages like that do not reload themselves",
                printable(scope["path"]),
            )

    # The way through

    def _passes(self, scope: Scope) -> bool:
        """Whether the browser was let through to the old version, for what is wrong now."""
        mine = b"%s=%s" % (COOKIE, self._pass())
        return any(
            mine in (part.strip() for part in value.split(b";"))
            for name, value in scope["headers"]
            if name == b"cookie"
        )

    def _pass(self) -> bytes:
        return f"{self._run}.{self._number}".encode()

    # What is below /.asgiri/

    async def _own(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await answer(scope, send, 405, b"only GET and HEAD are for here\n", (b"allow", b"GET, HEAD"))
        elif name == "events":
            await self._events(scope, receive, send)
        elif name == SCRIPT_NAME:
            kind = (b"content-type", b"text/javascript; charset=utf-8")
            await answer(scope, send, 200, SCRIPT.encode(), kind)
        elif name == "through":
            await self._through(scope, send)
        else:
            await answer(scope, send, 404, b"nothing of asgiri's is here\n")

    async def _through(self, scope: Scope, send: Send) -> None:
        """Note in the browser that it wants the old version, and send it there: only to a path of this server."""
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("to", [""])[0]
        if not is_local(asked):
            await answer(scope, send, 400, b"to: expected a path of this server, /like/this\n")
            return
        root = quote(scope.get("root_path", "").rstrip("/")) or "/"
        cookie = b"%s=%s; Path=%s; SameSite=Lax; HttpOnly" % (COOKIE, self._pass(), root.encode())
        await answer(scope, send, 303, b"", (b"location", asked.encode("ascii")), (b"set-cookie", cookie))

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Server-sent events: at once, and whenever it changes, which code documents are of now.

        https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        until = self._until
        if until.is_set():
            await answer(scope, send, 503, b"this worker is about to go\n")
            return
        fields = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        if scope["http_version"] == "1.1":  # what is asked next is for whoever serves then: not on a kept connection
            fields.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            while not until.is_set() and not gone.done():
                changed = self._changed  # from before what is told now
                await send({"type": "http.response.body", "body": self._event(), "more_body": True})
                while not await _either(changed, gone):
                    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body"})
        finally:
            gone.cancel()

    def _event(self) -> bytes:
        trouble = self._stands_in.trouble if self._stands_in is not None else self._trouble
        told = {
            "at": self.at,
            "generation": self._generation,
            "bulletin": self._number,
            "trouble": "" if trouble is None else trouble.message,
        }
        return b"data: " + msgspec.json.encode(told) + b"\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _either(changed: asyncio.Event, gone: asyncio.Future[None]) -> bool:
    """Whether one of them comes before it is time to say something."""
    waits = asyncio.ensure_future(changed.wait())
    both: set[asyncio.Future[Any]] = {waits, gone}
    try:
        done, _ = await asyncio.wait(both, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waits.cancel()
    return bool(done)


async def answer(scope: Scope, send: Send, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    """A whole answer of the wrapper's own; text unless a field says otherwise."""
    head: Headers = [*fields, (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    if body and not any(name == b"content-type" for name, _ in fields):
        head.append((b"content-type", _TEXT))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def without_debug(send: Send) -> Send:
    """``send``, but for what an answer was made of: it is for tests that run the application themselves."""

    async def sends(message: Message) -> None:
        if message.get("type") != DEBUG:
            await send(message)

    return sends


def is_document(scope: Scope) -> bool:
    """Whether the answer becomes a page of a browser's tab: no script's request, no part of a page, no frame."""
    if scope["method"] not in ("GET", "HEAD"):
        return False
    accepts = partial = False
    for name, value in scope["headers"]:
        if name == b"sec-fetch-dest":
            if value != b"document":
                return False
        elif name == b"accept":
            accepts = accepts or b"text/html" in value.lower()
        elif name in _PARTIAL:
            partial = True
    return accepts and not partial


def target_of(scope: Scope) -> str:
    """What was asked for, path and query, as a Location can have it."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    query: bytes = scope["query_string"]
    target = quote(path + b"?" + query if query else path, safe=_ASCII)
    return target if is_local(target) else "/"


def is_local(target: str) -> bool:
    """Whether a Location leads to this server: one slash in front, and nothing that browsers take for one or drop."""
    if not target.startswith("/") or target.startswith("//"):
        return False
    return all("!" <= letter <= "~" and letter != "\\" for letter in target)


def run_of() -> str:
    """What tells this run of the service from the ones before and beside it: its master, and when that was started.

    Generations begin with 1 each time, and cookies are the same for all ports of a host.
    """
    master = os.getppid()
    with suppress(OSError, IndexError), open(f"/proc/{master}/stat", encoding="utf-8", errors="replace") as file:
        return f"{master}-{file.read().rpartition(')')[2].split()[19]}"
    return str(master)
