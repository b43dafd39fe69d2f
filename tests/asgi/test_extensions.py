"""The extensions of the ASGI spec, on a hand-written stream: trailers, early hints, files, debug."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import tempfile
from pathlib import Path

import pytest

from asgiri.asgi.scope import HTTP_EXTENSIONS
from asgiri.codec.events import Request
from asgiri.errors import ClientDisconnectedError
from asgiri.types import ASGIApp, Headers, Message, Receive, Scope, Send
from tests.asgi.exchange import (
    ANSWERED,
    DISCONNECT,
    FAILED,
    OK,
    Call,
    Exchange,
    body,
    get,
    length,
    lines,
    post,
    says,
    start,
)
from tests.proto.fakes import in_loop, settle

CONTENT = b"0123456789"


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return str(file)


def announced(*headers: object) -> Message:
    return {**start(200, *headers), "trailers": True}


def trailers(*headers: object, more: bool = False) -> Message:
    return {"type": "http.response.trailers", "headers": list(headers), "more_trailers": more}


def hint(*links: object) -> Message:
    return {"type": "http.response.early_hint", "links": list(links)}


def pathsend(path: object) -> Message:
    return {"type": "http.response.pathsend", "path": path}


def zerocopy(file: object, more: bool = False, **part: object) -> Message:
    return {"type": "http.response.zerocopysend", "file": file, "more_body": more, **part}


def asks(*te: bytes, method: str = "GET") -> Request:
    headers: Headers = [(b"host", b"a"), *((b"te", value) for value in te)]
    return Request(1, method, b"/p", b"/p", b"", headers, "1.1", True)


def catches(errors: list[BaseException], *messages: Message) -> ASGIApp:
    """Sends the messages, keeps what is raised, and lets it pass."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await says(*messages)(scope, receive, send)
        except Exception as error:
            errors.append(error)
            raise

    return app


def outcome(
    app: ASGIApp, request: Request | None = None, extensions: dict[str, dict[str, object]] | None = None
) -> list[Call]:
    calls: list[Call] = []

    @in_loop
    async def test() -> None:
        offered = HTTP_EXTENSIONS if extensions is None else extensions
        calls.extend(await Exchange(app, request, extensions=offered).finish())

    test()
    return calls


# A message is known where its extension is offered


@pytest.mark.parametrize(
    "message", [trailers(), hint(b"</a>"), pathsend("/"), zerocopy(0), {"type": "http.response.debug", "info": {}}]
)
@pytest.mark.parametrize("extensions", [{}, {"asgiri": {}, "tls": {}}])
def test_what_is_not_offered_is_not_known(
    message: Message, extensions: dict[str, dict[str, object]], log: list[logging.LogRecord]
) -> None:
    errors: list[BaseException] = []
    assert outcome(catches(errors, message), None, extensions) == FAILED
    assert [type(error) for error in errors] == [RuntimeError]
    assert repr(message["type"]) in str(errors[0])


@pytest.mark.parametrize("kind", ["asgiri", "tls", "http.response.push", None])
def test_not_every_extension_is_a_message(kind: object, log: list[logging.LogRecord]) -> None:
    errors: list[BaseException] = []
    extensions: dict[str, dict[str, object]] = {"asgiri": {}, "tls": {}, "http.response.push": {}}
    assert outcome(catches(errors, {"type": kind}), None, extensions) == FAILED
    assert [type(error) for error in errors] == [RuntimeError]


def test_debug_is_taken_and_dropped_where_it_is_offered(log: list[logging.LogRecord]) -> None:
    debug: Message = {"type": "http.response.debug", "info": {"template": object()}}
    offered: dict[str, dict[str, object]] = {"http.response.debug": {}}
    assert outcome(says(debug, *OK), None, offered) == ANSWERED
    assert not log
    assert outcome(says(start(200), debug), None, offered) == FAILED


# Trailers

T1, T2 = (b"x-sum", b"1"), (b"x-time", b"2")


@pytest.mark.parametrize(
    ("messages", "calls"),
    [
        ([announced(), body(b"ok"), trailers(T1)],
         [("head", 200, []), ("body", b"ok", False), ("trailers", [T1])]),
        ([announced(), body(b"a", True), body(b"b"), trailers((b"X-Sum", b"1"))],
         [("head", 200, []), ("body", b"a", False), ("body", b"b", False), ("trailers", [T1])]),
        ([announced(), body(), trailers(T1, more=True), trailers(more=True), trailers(T2)],
         [("head", 200, []), ("body", b"", False), ("trailers", [T1, T2])]),
        ([announced(), body(), {"type": "http.response.trailers"}],
         [("head", 200, []), ("body", b"", False), ("trailers", [])]),
        ([announced(length(2)), body(b"ok"), trailers(T1)],
         [("head", 200, [length(2)]), ("body", b"ok", False), ("trailers", [T1])]),
    ],
)  # fmt: skip
def test_trailers(messages: list[Message], calls: list[Call], log: list[logging.LogRecord]) -> None:
    assert outcome(says(*messages), asks(b"trailers")) == calls
    assert not log


@pytest.mark.parametrize(
    ("te", "taken"),
    [
        ([], False),
        ([b"trailers"], True),
        ([b"Trailers"], True),
        ([b"deflate;q=0.5 , trailers"], True),
        ([b"gzip", b"trailers"], True),
        ([b"gzip"], False),
        ([b"xtrailers"], False),
        ([b""], False),
    ],
)
def test_trailers_go_to_who_asks_for_them(te: list[bytes], taken: bool) -> None:
    calls = outcome(says(announced(), body(b"ok"), trailers(T1)), asks(*te))
    assert calls[2:] == [("trailers", [T1] if taken else [])]


def test_no_trailers_are_announced_where_they_are_not_offered() -> None:
    assert outcome(says(announced(), body(b"ok")), None, {}) == ANSWERED


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([trailers(T1)], "before http.response.start"),
        ([announced(), trailers(T1)], "before the body was complete"),
        ([start(200), trailers(T1)], "no trailers: True"),
        ([announced(), body(b"a", True), trailers(T1)], "before the body was complete"),
        ([start(200), body(b"ok"), trailers(T1)], "no trailers: True"),
        ([announced(), body(), body()], "after the body was complete"),
        ([announced(), body(), start(200)], "already"),
        ([announced(), body(), hint(b"</a>")], "after the body was complete"),
        ([announced(), body(), pathsend("/")], "after the body was complete"),
        ([announced(), body(), zerocopy(0)], "after the body was complete"),
        ([announced(), body(), trailers(), trailers()], "after the answer was complete"),
        ([announced(), body(), trailers(), body()], "after the answer was complete"),
        ([announced(), body(), trailers((b"x", b"1\n2"))], "cannot be sent"),
        ([announced(), body(), trailers((b"x", b"1\n2"), more=True), trailers()], "cannot be sent"),
    ],
)  # fmt: skip
def test_trailers_out_of_place(messages: list[Message], what: str, log: list[logging.LogRecord]) -> None:
    errors: list[BaseException] = []
    outcome(catches(errors, *messages), asks(b"trailers"))
    assert [type(error) for error in errors] == [RuntimeError]
    assert what in str(errors[0])


def test_ill_formed_trailers(log: list[logging.LogRecord]) -> None:
    errors: list[BaseException] = []
    calls = outcome(catches(errors, announced(), body(), trailers(("x", "1"))), asks(b"trailers"))
    assert calls == [("head", 200, []), ("body", b"", False), ("reset",)]
    assert [type(error) for error in errors] == [TypeError]


def test_trailers_that_were_announced_and_never_come(log: list[logging.LogRecord]) -> None:
    calls = outcome(says(announced(), body(b"ok"), trailers(T1, more=True)), asks(b"trailers"))
    assert calls == [("head", 200, []), ("body", b"ok", False), ("reset",)]
    assert lines(log) == ["ERROR the application returned without completing its answer (GET '/p', request 7-1)"]


def test_the_app_may_try_again_with_better_trailers() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(announced(), body(), trailers(T1, more=True))(scope, receive, send)
        with pytest.raises(RuntimeError):
            await send(trailers((b"x", b"1\n2")))
        await send(trailers(T2))

    assert outcome(app, asks(b"trailers"))[2:] == [("trailers", [T1, T2])]


@in_loop
async def test_the_request_is_told_until_the_trailers_are_sent() -> None:
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(announced(), body(b"ok"))(scope, receive, send)
        heard.append(await receive())
        await send(trailers())
        heard.append(await receive())

    exchange = Exchange(app, post())
    exchange.session.body_received(b"abc")
    await exchange.finish()
    assert heard == [{"type": "http.request", "body": b"abc", "more_body": True}, DISCONNECT]


# Early hints

HINTED: Call = ("interim", 103, [(b"link", b"</a.css>; rel=preload"), (b"link", b"</b.js>")])
LINKS = (b"</a.css>; rel=preload", bytearray(b"</b.js>"))


@pytest.mark.parametrize(
    ("messages", "calls"),
    [
        ([hint(*LINKS), *OK], [HINTED, *ANSWERED]),
        ([hint(*LINKS), hint(*LINKS), *OK], [HINTED, HINTED, *ANSWERED]),
        ([start(200), hint(*LINKS), body(b"ok")], [HINTED, *ANSWERED]),
        ([hint(), *OK], ANSWERED),
        ([{"type": "http.response.early_hint", "links": (link for link in LINKS)}, *OK], [HINTED, *ANSWERED]),
        # Behind the head no interim answer can come (RFC 9110 section 15.2), though the spec lets the app send it
        ([start(200), body(b"a", True), hint(*LINKS), body()],
         [("head", 200, []), ("body", b"a", False), ("body", b"", True)]),
    ],
)  # fmt: skip
def test_early_hints(messages: list[Message], calls: list[Call], log: list[logging.LogRecord]) -> None:
    assert outcome(says(*messages)) == calls
    assert not log


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([hint("</a>")], TypeError),
        ([hint(5)], TypeError),
        ([{"type": "http.response.early_hint"}], TypeError),
        ([{"type": "http.response.early_hint", "links": b"</a>"}], TypeError),
        ([{"type": "http.response.early_hint", "links": "</a>"}], TypeError),
        ([hint(b"</a>\nset-cookie: a=b")], RuntimeError),
        ([*OK, hint(b"</a>")], RuntimeError),
    ],
)
def test_early_hints_that_are_refused(
    messages: list[Message], error: type[Exception], log: list[logging.LogRecord]
) -> None:
    errors: list[BaseException] = []
    assert outcome(catches(errors, *messages)) == (FAILED if len(messages) == 1 else ANSWERED)
    assert [type(one) for one in errors] == [error]


# Path send


@pytest.mark.parametrize(
    ("method", "head", "calls"),
    [
        ("GET", start(200), [("head", 200, [length(10)]), ("file", CONTENT, True)]),
        ("GET", start(200, length(10)), [("head", 200, [length(10)]), ("file", CONTENT, True)]),
        ("GET", start(200, (b"transfer-encoding", b"chunked")),
         [("head", 200, [(b"transfer-encoding", b"chunked")]), ("file", CONTENT, True)]),
        # What is silent has no bytes, and the connection's codec knows that
        ("HEAD", start(200), [("head", 200, [length(10)]), ("file", CONTENT, True)]),
        ("HEAD", start(200, length(10)), [("head", 200, [length(10)]), ("file", CONTENT, True)]),
        ("GET", start(304), [("head", 304, []), ("file", CONTENT, True)]),
        ("HEAD", start(304), [("head", 304, []), ("file", CONTENT, True)]),
    ],
)  # fmt: skip
def test_a_path(method: str, head: Message, calls: list[Call], path: str, log: list[logging.LogRecord]) -> None:
    assert outcome(says(head, pathsend(path)), get(method)) == calls
    assert not log


def test_a_path_and_trailers(path: str) -> None:
    calls = outcome(says(announced(), pathsend(path), trailers(T1)), asks(b"trailers"))
    assert calls == [("head", 200, []), ("file", CONTENT, False), ("trailers", [T1])]


def test_an_empty_file_is_an_empty_body(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    calls = outcome(says(start(200), pathsend(str(tmp_path / "empty"))))
    assert calls == [("head", 200, [length(0)]), ("body", b"", True)]


@pytest.mark.parametrize(
    ("messages", "error", "what"),
    [
        ([pathsend("FILE")], RuntimeError, "before http.response.start"),
        ([start(200, length(9)), pathsend("FILE")], RuntimeError, "longer than its Content-Length, by 1"),
        ([start(200, length(11)), pathsend("FILE")], RuntimeError, "shorter than its Content-Length, by 1"),
        ([start(200, (b"x", b"\n")), pathsend("FILE")], RuntimeError, "head cannot be sent"),
        ([start(200), pathsend(b"FILE")], TypeError, "path"),
        ([start(200), pathsend(Path("FILE"))], TypeError, "path"),
        ([start(200), pathsend(None)], TypeError, "path"),
        ([start(200), pathsend("nothing\0")], ValueError, "null"),
        ([start(200), pathsend("NOTHING")], FileNotFoundError, "NOTHING"),
        ([start(200), pathsend("DIRECTORY")], IsADirectoryError, "DIRECTORY"),
        ([start(200), pathsend("FIFO")], OSError, "not a regular file"),
        ([start(200), pathsend("/dev/null")], OSError, "not a regular file"),
    ],
)
def test_a_path_that_is_refused_costs_a_500(
    messages: list[Message],
    error: type[Exception],
    what: str,
    path: str,
    tmp_path: Path,
    log: list[logging.LogRecord],
) -> None:
    os.mkfifo(tmp_path / "FIFO")
    (tmp_path / "DIRECTORY").mkdir()
    names = {"FILE": path, **{name: str(tmp_path / name) for name in ("NOTHING", "DIRECTORY", "FIFO")}}
    name = messages[-1]["path"]
    if name in names:
        messages = [*messages[:-1], pathsend(names[name])]
    before = open_files()
    errors: list[BaseException] = []
    assert outcome(catches(errors, *messages)) == FAILED
    assert isinstance(errors[0], error)
    assert not isinstance(errors[0], ClientDisconnectedError)
    assert what in str(errors[0])
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_after_a_file_that_is_not_there_another_body_may_come(log: list[logging.LogRecord]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(404))
        with pytest.raises(FileNotFoundError):
            await send(pathsend("/nothing/here"))
        await send(body(b"no"))

    assert outcome(app) == [("head", 404, [length(2)]), ("body", b"no", True)]
    assert not log


def test_a_path_is_the_whole_body(path: str, log: list[logging.LogRecord]) -> None:
    errors: list[BaseException] = []
    calls = outcome(catches(errors, start(200), body(b"a", True), pathsend(path)))
    assert calls == [("head", 200, []), ("body", b"a", False), ("reset",)]
    assert "cannot be mixed" in str(errors[0])
    errors.clear()
    calls = outcome(catches(errors, start(200), pathsend(path), pathsend(path)))
    assert calls == [("head", 200, [length(10)]), ("file", CONTENT, True)]
    assert "after the answer was complete" in str(errors[0])


# Zero copy send


def test_stretches_of_a_file_may_be_mixed_with_pieces(path: str, log: list[logging.LogRecord]) -> None:
    with open(path, "rb") as file:
        messages = [
            start(200),
            zerocopy(file, True, offset=8),
            body(b"-", True),
            zerocopy(file.fileno(), True, offset=2, count=3),
            zerocopy(file, True, offset=7, count=100),
            body(b"."),
        ]
        calls = outcome(says(*messages))
        assert not file.closed
        assert file.tell() == 0, "an offset of its own leaves the position alone"
    sent = [("file", b"89", False), ("body", b"-", False), ("file", b"234", False), ("file", b"789", False)]
    assert calls == [("head", 200, []), *sent, ("body", b".", True)]
    assert not log


@pytest.mark.parametrize("headers", [[], [length(4)]])
def test_one_stretch_is_an_answer(headers: Headers, path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        calls = outcome(says(start(200, *headers), zerocopy(file, offset=3, count=4)))
    assert calls == [("head", 200, [length(4)]), ("file", b"3456", True)]


def test_stretches_are_held_to_the_content_length(path: str, log: list[logging.LogRecord]) -> None:
    errors: list[BaseException] = []
    with open(path, "rb") as file:
        calls = outcome(catches(errors, start(200, length(12)), body(b"12345", True), zerocopy(file)))
        assert file.tell() == 0, "nothing of it was sent"
    assert calls == [("head", 200, [length(12)]), ("body", b"12345", False), ("reset",)]
    assert "longer than its Content-Length, by 3" in str(errors[0])


@pytest.mark.parametrize("raw", [False, True])
def test_without_an_offset_the_file_goes_on_from_where_it_is(raw: bool, path: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with open(path, "rb") as file:
            assert file.read(1) == b"0"  # and the descriptor is at the end: a reader has a buffer
            if raw:
                os.lseek(file.fileno(), 1, os.SEEK_SET)
            source = file.fileno() if raw else file
            await send(start(200))
            await send(zerocopy(source, True, count=2))
            await send(zerocopy(source, True, offset=None, count=0))
            await send(zerocopy(source, True, count=3))
            assert os.lseek(source, 0, os.SEEK_CUR) == 6 if isinstance(source, int) else source.tell() == 6
            await send(zerocopy(source))

    sent = [("file", b"12", False), ("body", b"", False), ("file", b"345", False), ("file", b"6789", True)]
    assert outcome(app) == [("head", 200, []), *sent]


@pytest.mark.parametrize("offset", [10, 11, 1 << 40])
def test_behind_the_end_of_the_file_there_is_nothing(offset: int, path: str) -> None:
    with open(path, "rb") as file:
        calls = outcome(says(start(200), zerocopy(file, offset=offset, count=5)))
    assert calls == [("head", 200, [length(0)]), ("body", b"", True)]


@pytest.mark.parametrize(
    ("message", "error", "what"),
    [
        ({"type": "http.response.zerocopysend"}, TypeError, "file"),
        (zerocopy("name"), TypeError, "file"),
        (zerocopy(True), TypeError, "file"),
        (zerocopy("TEXT"), TypeError, "for text"),
        (zerocopy("BYTES"), TypeError, "descriptor"),
        (zerocopy("PIPE"), TypeError, "regular"),
        (zerocopy("FILE", offset=-1), ValueError, "offset"),
        (zerocopy("FILE", offset=1.0), TypeError, "offset"),
        (zerocopy("FILE", count=-1), ValueError, "count"),
        (zerocopy("FILE", count="1"), TypeError, "count"),
        (zerocopy("CLOSED"), ValueError, "closed"),
        (zerocopy(1 << 20), OSError, "descriptor"),
    ],
)
def test_what_is_no_stretch_of_a_file(
    message: Message, error: type[Exception], what: str, path: str, log: list[logging.LogRecord]
) -> None:
    errors: list[BaseException] = []
    reads, writes = os.pipe()
    with open(path, "rb") as file, open(path) as text, open(reads, "rb") as pipe, io.BytesIO(b"1") as memory:
        os.close(writes)
        closed = open(path, "rb")  # noqa: SIM115
        closed.close()
        files = {"FILE": file, "TEXT": text, "BYTES": memory, "PIPE": pipe, "CLOSED": closed}
        name = message.get("file")
        if isinstance(name, str) and name in files:
            message = {**message, "file": files[name]}
        assert outcome(catches(errors, start(200), message)) == FAILED
    assert isinstance(errors[0], error)
    assert what in str(errors[0])


def test_a_temporary_file(path: str) -> None:
    """What the file is wrapped in is no io class, and passes its attributes on."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(CONTENT)
        file.seek(4)
        assert outcome(says(start(200), zerocopy(file)))[1] == ("file", CONTENT[4:], True)
    with tempfile.NamedTemporaryFile("w") as text:
        assert outcome(says(start(200), zerocopy(text))) == FAILED


# While a file is on its way


@in_loop
async def test_nothing_else_may_be_sent_while_a_file_is(path: str, log: list[logging.LogRecord]) -> None:
    go_on = asyncio.Event()
    refused: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(announced())
        sending = asyncio.ensure_future(send(pathsend(path)))
        await settle()
        with open(path, "rb") as file:
            late = [start(200), body(b"x"), zerocopy(file), trailers()]
            for message in late:
                with pytest.raises(RuntimeError) as caught:
                    await send(message)
                refused.append(str(caught.value))
        await send(hint(b"</a>"))  # of no use, and no fault
        go_on.set()
        await sending
        await send(trailers())

    exchange = Exchange(app)
    exchange.stream.sending = lambda: wait(go_on)
    assert await exchange.finish() == [("head", 200, []), ("file", CONTENT, False), ("trailers", [])]
    assert ["while a file was being sent" in text for text in refused] == [False, True, True, True]
    assert not log


async def wait(event: asyncio.Event) -> None:
    await event.wait()


@pytest.mark.parametrize("swallowed", [False, True])
def test_a_file_that_cannot_be_read_to_its_end_cuts_the_connection(
    swallowed: bool, path: str, log: list[logging.LogRecord]
) -> None:
    @in_loop
    async def test() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(200))
            with pytest.raises(ClientDisconnectedError, match="a file could not be sent") as caught:
                await send(pathsend(path))
            assert await receive() == DISCONNECT
            with pytest.raises(ClientDisconnectedError):
                await send(body())
            if not swallowed:
                raise caught.value

        async def broken() -> None:
            raise OSError(errno.EIO, "the disk is broken")

        exchange = Exchange(app)
        exchange.stream.sending = broken
        assert await exchange.finish() == [("head", 200, [length(10)]), ("file", CONTENT, True), ("reset",)]

    before = open_files()
    test()
    assert open_files() == before
    assert len(log) == 1, "once, and whatever the app makes of it"
    assert "the disk is broken (GET '/p', request 7-1)" in lines(log)[0]


@in_loop
async def test_a_file_whose_sending_is_cancelled_cuts_the_connection(path: str, log: list[logging.LogRecord]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        sending = asyncio.ensure_future(send(pathsend(path)))
        await settle()
        sending.cancel()
        await asyncio.wait([sending])
        with pytest.raises(ClientDisconnectedError):
            await send(body())

    exchange = Exchange(app)
    exchange.stream.sending = lambda: wait(asyncio.Event())
    assert await exchange.finish() == [("head", 200, [length(10)]), ("file", CONTENT, True), ("reset",)]
    assert not log


@in_loop
async def test_an_app_that_is_cancelled_while_it_sends_a_file(path: str, log: list[logging.LogRecord]) -> None:
    exchange = Exchange(says(start(200), pathsend(path)))
    exchange.stream.sending = lambda: wait(asyncio.Event())
    task = exchange.start()
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert exchange.stream.calls[2:] == [("reset",), ("finished",)]
    assert not log


@in_loop
async def test_a_peer_that_leaves_while_a_file_is_sent(path: str, log: list[logging.LogRecord]) -> None:
    raised: list[OSError] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        try:
            await send(pathsend(path))
        except OSError as error:
            raised.append(error)
            raise

    async def leaves() -> None:
        exchange.session.lost()

    exchange = Exchange(app)
    exchange.stream.sending = leaves
    assert await exchange.finish() == [("head", 200, [length(10)]), ("file", CONTENT, True)]
    assert [type(error) for error in raised] == [ClientDisconnectedError]
    assert not log


# The peer is gone


@pytest.mark.parametrize("before", [[], [start(200)], [announced(), body(b"ok")]], ids=len)
@pytest.mark.parametrize(
    "message",
    [trailers(), hint(b"</a>"), pathsend("/nothing"), zerocopy(0), {"type": "http.response.debug"}],
    ids=lambda message: str(message["type"]),
)
@in_loop
async def test_every_message_hears_that_the_peer_is_gone(before: list[Message], message: Message) -> None:
    raised: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await says(*before)(scope, receive, send)
        exchange.session.lost()
        with pytest.raises(OSError, match="disconnected") as caught:
            await send(message)
        raised.append(caught.type)

    exchange = Exchange(app)
    await exchange.finish()
    assert raised == [ClientDisconnectedError]


@in_loop
async def test_hints_wait_for_a_peer_that_does_not_read() -> None:
    exchange = Exchange(says(hint(b"</a>"), hint(b"</b>"), *OK))
    exchange.stream.stalled = asyncio.Event()
    exchange.start()
    await settle()
    assert exchange.stream.calls == [("interim", 103, [(b"link", b"</a>")])]
    exchange.stream.stalled.set()
    assert len(await exchange.finish()) == 4
