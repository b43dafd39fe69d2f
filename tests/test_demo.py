"""The demo app, asked through httpx and by hand: pages, echoes, streams, and clients that go away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from asgiri import __version__
from asgiri.demo import Message, Receive, Scope, Send, app

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

DASH = "\N{EN DASH}"
END: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


def ask(method: str, target: str, **options: Any) -> httpx.Response:
    """What the demo answers, through httpx's ASGI transport."""
    wrapped = options.pop("app", app)

    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(wrapped, client=("192.0.2.7", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://demo:8000") as client:
            return await client.request(method, target, **options)

    return asyncio.run(asking())


def with_scope(**changes: Any) -> Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]:
    """The demo under a scope with some values changed."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, **changes}, receive, send)

    return changed


def scope_of(path: str, method: str = "GET", query: bytes = b"", **more: Any) -> Scope:
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "query_string": query}
    return {**scope, "headers": [], **more}


def converse(scope: Scope, *incoming: Message) -> list[Message]:
    """Run the demo by hand: it receives the messages one after another, then nothing more, for ever.

    Returns what it sent. Fails when it leaves a task behind, or takes more than a second.
    """
    sent: list[Message] = []
    waiting = list(incoming)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        await asyncio.wait_for(app(scope, receive, send), 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    return sent


def body_of(sent: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent[1:])


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if tag == "a" and name == "href"]


def fact(page: str, name: str) -> str:
    return page.split(f"<dt>{name}</dt><dd>")[1].split("</dd>")[0]


# The page


def test_the_page_tells_who_answered_and_how() -> None:
    extension = {"worker": 2, "generation": 5, "pid": 99, "version": "9.8.7"}
    answering = with_scope(extensions={"asgiri": extension}, http_version="2", scheme="https")
    page = ask("GET", "/", app=answering).text
    assert fact(page, "Protocol") == "HTTP/2"
    assert fact(page, "Scheme") == "https"
    assert (fact(page, "Worker"), fact(page, "Generation"), fact(page, "Process")) == ("2", "5", "99")
    assert (fact(page, "Client"), fact(page, "Server")) == ("192.0.2.7:4711", "demo:8000")
    assert "version 9.8.7" in page


def test_what_the_scope_does_not_tell_is_a_dash() -> None:
    page = ask("GET", "/", app=with_scope(client=None, server=None)).text
    assert {fact(page, name) for name in ("Worker", "Generation", "Process", "Client", "Server")} == {DASH}
    assert f"version {__version__}" in page


@pytest.mark.parametrize(
    ("address", "shown"), [(("::1", 80), "[::1]:80"), (("/run/a.sock", None), "/run/a.sock"), (("", 0), DASH)]
)
def test_addresses_are_shown_as_they_are_written(address: tuple[str, int | None], shown: str) -> None:
    assert fact(ask("GET", "/", app=with_scope(server=address)).text, "Server") == shown


def test_the_page_is_guarded_and_brings_all_it_needs() -> None:
    answer = ask("GET", "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    for outside in ("<script", "http://", "https://", "@import", "url("):
        assert outside not in answer.text.replace("http://www.w3.org/2000/svg", "")
    for step in ("asgiri module:app", "asgiri -c asgiri.yaml", "asgiri --help"):
        assert f"<code>{step}</code>" in answer.text


def test_values_of_the_request_are_escaped() -> None:
    evil = '<img src=x onerror="alert(1)">'
    changes = {"http_version": evil, "scheme": evil, "client": (evil, None), "root_path": f'/"{evil}'}
    extension = {"asgiri": dict.fromkeys(("worker", "generation", "pid", "version"), evil)}
    assert "<img" not in ask("GET", "/", app=with_scope(extensions=extension, path="/", **changes)).text
    assert "<img" not in ask("GET", "/", app=with_scope(path=f"/{evil}")).text


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = Links(ask("GET", "/").text).found
    assert links == ["/echo", "/stream", "/slow?seconds=3", "/status/418", "/ws"]
    for link in links:
        assert ask("HEAD", link.replace("seconds=3", "seconds=0")).status_code in (200, 418)


def test_links_and_routes_know_the_root_path() -> None:
    page = ask("GET", "/", app=with_scope(root_path="/demo app", path="/demo app/"))
    assert "/demo%20app/echo" in Links(page.text).found
    assert ask("GET", "/", app=with_scope(root_path="/demo", path="/demo")).text.count("<h1>") == 1
    assert ask("GET", "/", app=with_scope(root_path="/demo", path="/demo/status/299")).status_code == 299


# Methods and unknown paths


@pytest.mark.parametrize("target", ["/", "/echo", "/slow?seconds=0", "/status/404", "/ws", "/none"])
def test_head_answers_like_get_without_the_body(target: str) -> None:
    get, head = ask("GET", target), ask("HEAD", target)
    assert head.content == b""
    assert head.status_code == get.status_code
    if target != "/echo":  # which tells the method
        assert head.headers == get.headers


@pytest.mark.parametrize("target", ["/", "/stream", "/slow", "/status/200", "/ws"])
@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS"])
def test_other_methods_on_pages_are_not_allowed(method: str, target: str) -> None:
    answer = ask(method, target)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_small_page(method: str) -> None:
    answer = ask(method, "/no/<b>such</b>")
    assert answer.status_code == 404
    assert "<code>/no/&lt;b&gt;such&lt;/b&gt;</code>" in answer.text
    assert Links(answer.text).found == ["/"]


def test_a_path_that_is_no_text_is_answered_all_the_same() -> None:
    assert converse(scope_of("/\udcff"), END)[0]["status"] == 404


# /echo


def test_echo_lists_the_request() -> None:
    answer = ask("GET", "/echo?a=1&b=%20", headers={"X-Test": "<yes>"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    lines = answer.text.splitlines()
    assert lines[0] == "GET /echo?a=1&b=%20 HTTP/1.1"
    assert "x-test: <yes>" in lines


def test_echo_makes_do_without_a_raw_path() -> None:
    sent = converse(scope_of("/r é/echo", method="DELETE", root_path="/r é"), END)
    assert body_of(sent) == b"DELETE /r%20%C3%A9/echo HTTP/1.1\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_echo_gives_the_body_back_byte_for_byte(method: str) -> None:
    data = bytes(range(256)) * 5
    answer = ask(method, "/echo", content=data, headers={"content-type": "image/x-noise"})
    assert answer.content == data
    assert answer.headers["content-type"] == "image/x-noise"
    assert answer.headers["content-length"] == str(len(data))


def test_echo_answers_each_piece_before_it_asks_for_the_next() -> None:
    log: list[str] = []
    pieces: list[Message] = [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": b"two"},
    ]

    async def receive() -> Message:
        log.append("receive")
        return pieces.pop(0)

    async def send(message: Message) -> None:
        log.append(f"{message.get('body', message['type'])!r} {message.get('more_body', '')}")

    asyncio.run(app(scope_of("/echo", "POST"), receive, send))
    assert log == [
        "receive",
        "'http.response.start' ",
        "b'one' True",
        "receive",
        "b'' True",
        "receive",
        "b'two' False",
    ]


def test_echo_stops_when_the_client_goes_away() -> None:
    assert converse(scope_of("/echo", "POST"), GONE) == []
    sent = converse(scope_of("/echo", "PUT"), {**END, "body": b"half", "more_body": True}, GONE)
    assert [message.get("body") for message in sent] == [None, b"half"]


def test_echo_does_not_reflect_trace() -> None:
    answer = ask("TRACE", "/echo", headers={"cookie": "secret"})
    assert answer.status_code == 405
    assert "secret" not in answer.text


# /stream and /slow


def test_stream_sends_each_line_by_itself() -> None:
    sent = converse(scope_of("/stream", query=b"count=3&interval=0"), END)
    assert [message.get("body", b"") for message in sent[1:]] == [
        b"line 1 of 3\n",
        b"line 2 of 3\n",
        b"line 3 of 3\n",
        b"",
    ]
    assert b"content-length" not in dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("query", "count"), [("", 10), ("count=9999", 1000), ("count=-4", 0), ("count=0", 0), ("count=inf", 1000)]
)
def test_stream_is_bounded(query: str, count: int) -> None:
    answer = ask("GET", f"/stream?interval=-1&{query}")
    assert len(answer.text.splitlines()) == count


@pytest.mark.parametrize("target", ["/stream?count=x", "/stream?interval=nan", "/slow?seconds=1s"])
def test_what_is_no_number_is_a_bad_request(target: str) -> None:
    answer = ask("GET", target)
    assert answer.status_code == 400
    assert "must be a number between 0 and" in answer.text


def test_stream_stops_when_the_client_goes_away() -> None:
    sent = converse(scope_of("/stream", query=b"interval=10"), END, GONE)
    assert body_of(sent) == b"line 1 of 10\n"


def test_slow_answers_after_a_while() -> None:
    sent = converse(scope_of("/slow", query=b"seconds=0.01"), END)
    assert body_of(sent) == b"This answer took 0.01 seconds.\n"


def test_slow_answers_nobody_who_has_gone() -> None:
    assert converse(scope_of("/slow", query=b"seconds=99999"), END, GONE) == []


def test_a_send_after_the_client_has_gone_is_no_error() -> None:
    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionResetError

    async def run() -> None:
        await app(scope_of("/stream"), receive, send)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


def test_a_cancelled_wait_leaves_no_task() -> None:
    async def never(*_message: Message) -> Any:
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(app(scope_of("/slow"), never, never))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


# /status


@pytest.mark.parametrize(
    ("status", "text"), [(200, "200 OK\n"), (418, "418 I'm a Teapot\n"), (599, "599\n"), (299, "299\n")]
)
def test_status_answers_as_asked(status: int, text: str) -> None:
    answer = ask("GET", f"/status/{status}")
    assert answer.status_code == status
    assert answer.text.lower() == text.lower()


@pytest.mark.parametrize(("status", "length"), [(204, None), (205, b"0"), (304, None)])
def test_some_statuses_have_no_body(status: int, length: bytes | None) -> None:
    sent = converse(scope_of(f"/status/{status}"), END)
    assert sent[0]["status"] == status
    assert dict(sent[0]["headers"]).get(b"content-length") == length
    assert body_of(sent) == b""


@pytest.mark.parametrize("code", ["", "1", "199", "600", "20x", "٢٠٠", "200/", "0200"])
def test_what_is_no_status_is_not_found(code: str) -> None:
    answer = ask("GET", f"/status/{code}")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")


# /ws

CONNECT: Message = {"type": "websocket.connect"}
ACCEPT: Message = {"type": "websocket.accept"}
LEFT: Message = {"type": "websocket.disconnect", "code": 1001, "reason": ""}


def talk(*incoming: Message, **scope: Any) -> list[Message]:
    return converse({"type": "websocket", "path": "/ws", **scope}, CONNECT, *incoming)


def heard(**content: object) -> Message:
    return {"type": "websocket.receive", "text": None, "bytes": None, **content}


def said(**content: object) -> Message:
    return {"type": "websocket.send", "text": None, "bytes": None, **content}


def test_a_websocket_sends_back_what_it_gets() -> None:
    messages = ({"text": "h\u00e9"}, {"bytes": b"\x00\xff"}, {"text": ""}, {"bytes": b""}, {"bytes": b"close"})
    sent = talk(*[heard(**message) for message in messages], LEFT)
    assert sent == [ACCEPT, *[said(**message) for message in messages]]


def test_it_closes_when_it_is_told_to() -> None:
    assert talk(heard(text="Close"), heard(text="close"), heard(text="late")) == [
        ACCEPT,
        said(text="Close"),
        {"type": "websocket.close", "code": 1000, "reason": "as you said"},
    ]


def test_a_websocket_elsewhere_is_refused() -> None:
    assert talk(path="/echo") == [{"type": "websocket.close"}]
    assert talk(LEFT, path="/demo/ws", root_path="/demo") == [ACCEPT]


def test_a_websocket_whose_client_has_gone_is_no_error() -> None:
    incoming = [CONNECT, heard(text="a")]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise ConnectionResetError

    asyncio.run(app({"type": "websocket", "path": "/ws"}, receive, send))
    assert not incoming


def test_by_http_there_is_a_page_that_speaks_to_it() -> None:
    answer = ask("GET", "/demo/ws", app=with_scope(root_path="/demo"))
    assert "<code>/demo/ws</code>" in answer.text
    assert Links(answer.text).found == ["/demo/"]
    for outside in ("http://", "https://", "ws://", "wss://", "@import", "url(", " src=", "innerHTML"):
        assert outside not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_the_page_may_run_its_own_script_and_no_other() -> None:
    answer = ask("GET", "/ws")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    script = answer.text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert answer.text.count("<script") == 1
    assert (policy["script-src"], policy["connect-src"]) == (f"'sha256-{digest}'", "'self'")
    assert policy["default-src"] == "'none'"
    assert "script-src" not in ask("GET", "/").headers["content-security-policy"]


# Other scopes


def test_lifespan_completes() -> None:
    sent = converse({"type": "lifespan"}, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


def test_an_unknown_scope_is_an_error() -> None:
    with pytest.raises(ValueError, match="scope type 'mail'"):
        converse({"type": "mail"})
