"""The wrapper under reload: whose answer a request gets, what pages are told, and the way to the old version."""

from __future__ import annotations

import asyncio
import os
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest

from asgiri.dev.app import BEAT_SECONDS, DevApp, is_document, is_local, run_of, target_of
from asgiri.dev.page import TroubleApp, trouble_page, trouble_text
from asgiri.dev.script import SCRIPT
from asgiri.server import HttpProtocolVersion, Server
from asgiri.supervisor.bulletin import Board, Bulletin, read
from asgiri.tracebacks import Trouble
from asgiri.types import ASGIApp, Message, Receive, Scope, Send
from tests.asgi.exchange import lines, records_of
from tests.proto.fakes import in_loop, reply, settle
from tests.serving import config, url_of

BROKEN = Trouble("importing main failed", "NameError", "name 'x' is not defined")
OTHER = Trouble("importing main failed", "SyntaxError", "invalid syntax")
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "sec-fetch-dest": "document"}
PAGE = b"<!doctype html><body>old</body>"
HTML = (b"content-type", b"text/html; charset=utf-8")


class Posted:
    """A bulletin, and what posts it."""

    def __init__(self) -> None:
        self.now = Bulletin()

    def __call__(self) -> Bulletin:
        return self.now

    def post(self, trouble: Trouble | None, *apps: DevApp) -> None:
        self.now = Bulletin(self.now.number + 1, trouble)
        for app in apps:
            app.refresh()


async def old(scope: Scope, receive: Receive, send: Send) -> None:
    await reply(send, PAGE, 200, HTML, (b"content-length", b"%d" % len(PAGE)))


def made(app: ASGIApp = old, posted: Posted | None = None, *, browser: bool = False, generation: int = 3) -> DevApp:
    return DevApp(app, generation, browser=browser, news=posted or Posted())


def scope_of(
    path: str = "/a", headers: dict[str, str] | None = None, method: str = "GET", root: str = "", query: bytes = b""
) -> Scope:
    fields = [(name.encode(), value.encode()) for name, value in (BROWSER if headers is None else headers).items()]
    scope: Scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": root + path,
        "raw_path": (root + path).encode(),
    }
    scope.update({"query_string": query, "root_path": root, "headers": fields, "extensions": {}})
    return scope


async def ask(app: ASGIApp, scope: Scope) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, fields and body of the answer."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    [start, *rest] = sent
    return start["status"], dict(start["headers"]), b"".join(message.get("body", b"") for message in rest)


# Whose answer


@in_loop
async def test_without_trouble_all_is_the_applications() -> None:
    for scope in (
        scope_of(),
        scope_of(headers={}),
        scope_of(method="POST"),
        scope_of("/.asgirix"),
        scope_of("/x/.asgiri/"),
    ):
        status, _, body = await ask(made(), scope)
        assert (status, body) == (200, PAGE)


DOCUMENTS = [
    ({"accept": "text/html"}, "GET", True),
    (BROWSER, "GET", True),
    (BROWSER, "HEAD", True),
    (BROWSER, "POST", False),
    ({}, "GET", False),
    ({"accept": "*/*"}, "GET", False),
    ({"accept": "application/json"}, "GET", False),
    ({"accept": "text/html", "sec-fetch-dest": "empty"}, "GET", False),
    ({"accept": "text/html", "sec-fetch-dest": "iframe"}, "GET", False),
    ({"accept": "image/*", "sec-fetch-dest": "image"}, "GET", False),
    ({"accept": "*/*", "sec-fetch-dest": "document"}, "GET", False),
    ({"accept": "text/html", "x-requested-with": "XMLHttpRequest"}, "GET", False),
    ({"accept": "text/html, */*", "hx-request": "true"}, "GET", False),
    ({"accept": "text/html", "turbo-frame": "a"}, "GET", False),
]


@pytest.mark.parametrize(("headers", "method", "document"), DOCUMENTS)
@in_loop
async def test_while_there_is_trouble_documents_are_the_error_page(
    headers: dict[str, str], method: str, document: bool
) -> None:
    posted = Posted()
    app = made(posted=posted)
    posted.post(BROKEN, app)
    scope = scope_of(headers=headers, method=method)
    assert is_document(scope) is document
    status, fields, body = await ask(app, scope)
    if not document:
        assert (status, body) == (200, PAGE)
        return
    through = "/.asgiri/through?to=/a"
    page = trouble_page(BROKEN, through=through, at=app.at)
    assert (status, fields[b"cache-control"], fields[b"content-length"]) == (500, b"no-store", b"%d" % len(page))
    assert body == (b"" if method == "HEAD" else page)


@in_loop
async def test_trouble_that_is_over_is_not_shown() -> None:
    posted = Posted()
    app = made(posted=posted)
    posted.post(BROKEN, app)
    posted.post(None, app)
    assert (await ask(app, scope_of()))[0] == 200


@in_loop
async def test_trouble_of_older_code_than_the_workers_is_not_shown() -> None:
    """The first requests come before the master clears the bulletin."""
    posted = Posted()
    posted.post(BROKEN)
    app = made(posted=posted)
    before = app.at
    assert (await ask(app, scope_of()))[0] == 200
    posted.post(None, app)
    assert app.at == before  # and pages that are here already do not reload for that
    posted.post(OTHER, app)
    assert (await ask(app, scope_of()))[0] == 500
    assert app.at != before


@in_loop
async def test_it_reads_a_board() -> None:
    board = Board()
    app = DevApp(old, 1, browser=False, news=lambda: read(board.fileno()))
    board.post(BROKEN)
    app.refresh()
    assert (await ask(app, scope_of()))[0] == 500
    board.post(None)
    app.refresh()
    assert (await ask(app, scope_of()))[0] == 200
    board.close()


@in_loop
async def test_what_is_no_http_passes_as_it_is() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    posted = Posted()
    dev = made(app, posted, browser=True)
    posted.post(BROKEN, dev)
    for scope in ({"type": "lifespan"}, {"type": "websocket", "path": "/.asgiri/events"}):
        await dev(scope, receive, send)
        assert seen.pop() == (scope, receive, send)


@in_loop
async def test_what_the_application_raises_passes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("mine")

    for browser in (False, True):
        with pytest.raises(KeyError, match="mine"):
            await ask(made(app, browser=browser), scope_of())


@in_loop
async def test_what_stands_in_shows_the_newest_trouble() -> None:
    posted = Posted()
    stand_in = TroubleApp(BROKEN)
    app = made(stand_in, posted, generation=1, browser=True)
    status, _, body = await ask(app, scope_of())
    assert (status, body) == (500, trouble_page(BROKEN, through=None, at=app.at))
    posted.post(OTHER, app)
    assert (await ask(app, scope_of()))[2] == trouble_page(OTHER, through=None, at=app.at)
    assert (await ask(app, scope_of(headers={"accept": "*/*"})))[2] == trouble_text(OTHER)


# The way through


@in_loop
async def test_who_goes_through_stays_until_it_is_another_trouble() -> None:
    posted = Posted()
    app = made(posted=posted)
    posted.post(BROKEN, app)
    status, fields, _ = await ask(app, scope_of("/.asgiri/through", query=b"to=/a%3Fb%3D1"))
    assert (status, fields[b"location"]) == (303, b"/a?b=1")
    cookie, _, attributes = fields[b"set-cookie"].decode().partition("; ")
    assert attributes == "Path=/; SameSite=Lax; HttpOnly"
    through = BROWSER | {"cookie": f"a=b; {cookie}; c=d"}
    assert (await ask(app, scope_of(headers=through)))[2] == PAGE
    assert (await ask(app, scope_of(headers=BROWSER | {"cookie": f"{cookie}1"})))[0] == 500
    posted.post(OTHER, app)
    assert (await ask(app, scope_of(headers=through)))[0] == 500


@pytest.mark.parametrize(
    "target", ["/", "/a", "/a?b=c&d=%2F", "/a%20b?c=d+e", "/a;b=1,2/~c", "/%C3%BC?q=%22%3E%3Cb%3E&amp=1", "/'\"<>"]
)
@in_loop
async def test_the_pages_link_leads_to_where_one_was(target: str) -> None:
    path, _, query = target.partition("?")
    posted = Posted()
    app = made(posted=posted)
    posted.post(BROKEN, app)
    scope = scope_of(path, query=query.encode())
    assert target_of(scope) == target
    page = (await ask(app, scope))[2].decode()
    link = urlsplit(page.partition('<a href="')[2].partition('"')[0])
    assert link.path == "/.asgiri/through"
    assert parse_qs(link.query) == {"to": [target]}
    _, fields, _ = await ask(app, scope_of(link.path, query=link.query.encode()))
    assert fields[b"location"].decode() == target


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        " /a",
        "/a\r\nset-cookie: a=b",
        "/\u00fc",
        "/\x00",
        "evil.example",
        "javascript:alert(1)",
        "",
    ],
)
@in_loop
async def test_it_leads_nowhere_else(target: str) -> None:
    assert not is_local(target)
    query = httpx.QueryParams({"to": target})
    status, fields, body = await ask(made(), scope_of("/.asgiri/through", query=str(query).encode()))
    assert (status, body) == (400, b"to: expected a path of this server, /like/this\n")
    assert b"location" not in fields
    assert b"set-cookie" not in fields


@in_loop
async def test_a_path_that_would_lead_elsewhere_is_no_target() -> None:
    assert target_of(scope_of("//evil.example/")) == "/"
    scope = {**scope_of("/\u00fc"), "raw_path": b"/\xfc"}
    assert target_of(scope) == "/%FC"


@in_loop
async def test_below_a_root_path() -> None:
    posted = Posted()
    app = made(posted=posted, browser=True)
    assert b'<script src="/r%20o/.asgiri/reload.js"' in (await ask(app, scope_of(root="/r o")))[2]
    assert (await ask(app, scope_of("/.asgiri/reload.js", root="/r o")))[2] == SCRIPT.encode()
    posted.post(BROKEN, app)
    page = (await ask(app, scope_of(root="/r")))[2]
    assert b'href="/r/.asgiri/through?to=/r/a"' in page
    assert b'data-events="/r/.asgiri/events"' in page
    _, fields, _ = await ask(app, scope_of("/.asgiri/through", root="/r", query=b"to=/r/a"))
    assert fields[b"location"] == b"/r/a"
    assert b"Path=/r;" in fields[b"set-cookie"]
    status, _, _ = await ask(app, {**scope_of("/.asgiri/through"), "root_path": "/r"})
    assert status == 500  # it is not below the root path: a page of the application's


# What is below /.asgiri/


@in_loop
async def test_the_script_is_served_whole() -> None:
    status, fields, body = await ask(made(), scope_of("/.asgiri/reload.js"))
    assert (status, body) == (200, SCRIPT.encode())
    assert fields[b"content-type"] == b"text/javascript; charset=utf-8"
    _, fields, body = await ask(made(), scope_of("/.asgiri/reload.js", method="HEAD"))
    assert (fields[b"content-length"], body) == (b"%d" % len(SCRIPT), b"")


@in_loop
async def test_what_is_not_there() -> None:
    assert (await ask(made(), scope_of("/.asgiri/")))[0] == 404
    assert (await ask(made(), scope_of("/.asgiri/x")))[0] == 404
    status, fields, _ = await ask(made(), scope_of("/.asgiri/events", method="POST"))
    assert (status, fields[b"allow"]) == (405, b"GET, HEAD")
    assert (await ask(made(), scope_of("/.asgiri/events", method="HEAD")))[2] == b""


class Listener:
    """A client of the events."""

    def __init__(self, app: ASGIApp) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.task = asyncio.ensure_future(app(scope_of("/.asgiri/events"), self._receive, self._send))

    async def _receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def events(self) -> list[Any]:
        data = b"".join(message["body"] for message in self.sent[1:] if message.get("body"))
        return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in data.split(b"\n\n") if event]


@in_loop
async def test_events_tell_which_code_it_is_and_when_that_changes() -> None:
    posted = Posted()
    app = made(posted=posted)
    listener = Listener(app)
    await settle()
    fields = dict(listener.sent[0]["headers"])
    assert (fields[b"content-type"], fields[b"connection"]) == (b"text/event-stream", b"close")
    assert listener.events() == [{"at": app.at, "generation": 3, "bulletin": 0, "trouble": ""}]
    posted.post(BROKEN, app)
    await settle()
    assert listener.events()[1:] == [{"at": app.at, "generation": 3, "bulletin": 1, "trouble": BROKEN.message}]
    posted.post(OTHER, app)
    await settle()
    assert [event["bulletin"] for event in listener.events()] == [0, 1, 2]
    posted.post(None, app)  # newer code serves: that one is to be asked
    await listener.task
    assert listener.sent[-1] == {"type": "http.response.body"}
    assert len(listener.events()) == 3
    listener = Listener(app)
    await settle()
    assert [event["bulletin"] for event in listener.events()] == [0]
    app.leave()
    await listener.task
    assert listener.sent[-1] == {"type": "http.response.body"}
    assert (await ask(app, scope_of("/.asgiri/events")))[0] == 503  # and who comes then tries elsewhere


@in_loop
async def test_who_has_gone_is_forgotten() -> None:
    app = made()
    listener = Listener(app)
    await settle()
    listener.gone.set()
    await listener.task
    assert len(listener.sent) == 2


@in_loop
async def test_a_quiet_stream_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BEAT_SECONDS == 15
    monkeypatch.setattr("asgiri.dev.app.BEAT_SECONDS", 0.005)
    app = made()
    listener = Listener(app)
    async with asyncio.timeout(10):
        while len(listener.sent) < 4:
            await asyncio.sleep(0)
    assert {message["body"] for message in listener.sent[2:]} == {b":\n\n"}
    app.leave()
    await listener.task


# The script in pages


@in_loop
async def test_pages_get_the_script_where_that_is_wanted() -> None:
    app = made(browser=True)
    _, fields, body = await ask(app, scope_of())
    assert body == PAGE.replace(
        b"</body>", f'<script src="/.asgiri/reload.js" data-at="{app.at}" defer></script>\n</body>'.encode()
    )
    assert fields[b"content-length"] == b"%d" % len(body)
    for scope in (scope_of(method="POST"), scope_of(method="HEAD"), scope_of(headers={"accept": "*/*"})):
        assert (await ask(app, scope))[2] == PAGE
    assert (await ask(made(), scope_of()))[2] == PAGE


@in_loop
async def test_a_policy_that_forbids_it_is_told_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await reply(send, PAGE, 200, HTML, (b"content-security-policy", b"default-src 'none'"))

    dev = made(app, browser=True)
    with records_of("asgiri.dev") as log:
        for _ in range(3):
            assert (await ask(dev, scope_of("/a\x1b")))[2] == PAGE
    [line] = lines(log)
    assert line.startswith(
        "WARNING reload.browser: the Content-Security-Policy of /a\\x1b allows no script from 'self'"
    )


# On a server


def serving(app: ASGIApp, version: HttpProtocolVersion) -> Server:
    return Server(app, http_version=version, config=config())


def client(version: HttpProtocolVersion) -> httpx.AsyncClient:
    two = version is HttpProtocolVersion.HTTP_2
    return httpx.AsyncClient(http1=not two, http2=two, trust_env=False)


each_version = pytest.mark.parametrize("version", [HttpProtocolVersion.HTTP_1_1, HttpProtocolVersion.HTTP_2])


@each_version
@in_loop
async def test_what_an_answer_was_made_of_is_swallowed(version: HttpProtocolVersion) -> None:
    """As Starlette's templates send it, where the scope offers ``http.response.debug``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"]["http.response.debug"] == {}
        await send({"type": "http.response.debug", "info": {"template": object(), "context": {}}})
        await reply(send, PAGE, 200, HTML)

    for browser in (False, True):
        async with serving(made(app, browser=browser), version) as server, client(version) as http:
            answer = await http.get(url_of(server), headers=BROWSER)
            assert (answer.status_code, b"<script" in answer.content) == (200, browser)


@each_version
@in_loop
async def test_pages_and_events_on_the_wire(version: HttpProtocolVersion) -> None:
    async def streams(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [HTML]})
        for piece in (b"<body>", b"a</bo", b"dy></html>"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    posted = Posted()
    app = made(streams, posted, browser=True)
    async with serving(app, version) as server, client(version) as http:
        url = url_of(server)
        answer = await http.get(url, headers=BROWSER)
        tag = f'<script src="/.asgiri/reload.js" data-at="{app.at}" defer></script>\n'
        assert answer.text == f"<body>a{tag}</body></html>"
        async with http.stream("GET", f"{url}/.asgiri/events") as events:
            pieces = events.aiter_text()
            assert f'"at":"{app.at}"' in await anext(pieces)
            posted.post(BROKEN, app)
            assert BROKEN.message in await anext(pieces)
            app.leave()
            assert [piece async for piece in pieces] == []
        assert (await http.get(url, headers=BROWSER)).status_code == 500
        assert (await http.head(url, headers=BROWSER)).status_code == 500
        assert (await http.post(url, content=b"a" * 100_000)).status_code == 200


@in_loop
async def test_what_stands_in_on_the_wire() -> None:
    version = HttpProtocolVersion.HTTP_1_1
    async with serving(made(TroubleApp(BROKEN)), version) as server, client(version) as http:
        answer = await http.post(url_of(server), content=b"a" * 100_000)
        assert (answer.status_code, answer.content) == (500, trouble_text(BROKEN))
        assert (await http.head(url_of(server))).headers["content-length"] == str(len(trouble_text(BROKEN)))


def test_a_run_of_the_service_is_not_taken_for_another() -> None:
    pid, _, started = run_of().partition("-")
    assert int(pid) == os.getppid()
    assert int(started) > 0
    assert made().at == f"{run_of()}.3.0"
