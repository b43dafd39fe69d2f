"""What an application may put into the start of its answer, on the wire of both engines."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import Answer, Peer, in_loop, parse_answers, request, settle

each_engine = pytest.mark.parametrize("engine", ["h11", "httptools"])


async def exchange(
    engine: str, *messages: Message, method: str = "GET", defaults: list[tuple[bytes, bytes]] | None = None
) -> tuple[list[Answer], list[BaseException]]:
    """The answers, and what the app was told of its messages: it goes on after each."""
    errors: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except (TypeError, ValueError, RuntimeError) as error:
                errors.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peer, "engine", engine)
        peer = Peer(app)
    peer.shared.context.set_default_headers(defaults or [])
    peer.feed(request("/", method=method))
    await settle()
    answers, rest = parse_answers(peer.sent(), methods=[method], ended=peer.transport.is_closing())
    assert not rest
    await peer.end()
    return answers, errors


def start(headers: Any = (), status: Any = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: Any = b"abc") -> Message:
    return {"type": "http.response.body", "body": data}


def generated() -> Iterator[tuple[bytes, bytes]]:
    yield b"X-A", b"1"
    yield b"x-b", b"2"


class Pairs(list[Any]):
    """A list of a kind of its own."""


GOOD: list[tuple[str, Any]] = [
    ("a list of tuples", [(b"x-a", b"1"), (b"x-b", b"2")]),
    ("a list of lists", [[b"x-a", b"1"], [b"X-B", b"2"]]),
    ("a tuple", ((b"X-A", b"1"), (b"x-b", b"2"))),
    ("a generator", generated),
    ("an iterator", lambda: iter([(b"x-a", b"1"), (b"x-b", b"2")])),
    ("the pairs of a dict", {b"x-a": b"1", b"X-b": b"2"}.items()),
    ("a list of a kind of its own", Pairs([(b"x-a", b"1"), (b"x-b", b"2")])),
    ("byte arrays", [(bytearray(b"X-a"), bytearray(b"1")), (b"x-b", memoryview(b"2"))]),
]


@each_engine
@pytest.mark.parametrize("headers", [row[1] for row in GOOD], ids=[row[0] for row in GOOD])
@in_loop
async def test_header_fields_in_each_shape(engine: str, headers: Any) -> None:
    [answer], errors = await exchange(engine, start(headers() if callable(headers) else headers), body())
    assert not errors
    assert (answer.status, answer.body) == (200, b"abc")
    assert answer.headers == {"x-a": "1", "x-b": "2", "content-length": "3"}


@each_engine
@pytest.mark.parametrize(
    "headers",
    [
        [("x-a", "1")],
        [(b"x-a", "1")],
        [("x-a", b"1")],
        [(b"x-a", 1)],
        [(b"x-a", None)],
        [(b"x-a",)],
        [(b"x-a", b"1", b"2")],
        [b"ab"],
        ["ab"],
        [None],
        5,
        None,
        {b"ab": b"1"},
        {"ab": "1"},
    ],
    ids=repr,
)
@in_loop
async def test_what_is_no_header_field(engine: str, headers: Any) -> None:
    bad = start([(b"content-length", b"77"), *headers]) if isinstance(headers, list) else start(headers)
    [answer], errors = await exchange(engine, bad, start([(b"x-a", b"1")], 201), body())
    assert [type(error) for error in errors] == [TypeError]
    assert (answer.status, answer.body) == (201, b"abc"), "the app may try again, and nothing is left of the first"
    assert answer.headers == {"x-a": "1", "content-length": "3"}


@each_engine
@pytest.mark.parametrize("name", [b"Content-Length", b"content-length", b"CONTENT-LENGTH"])
@in_loop
async def test_a_length_of_the_apps_own(engine: str, name: bytes) -> None:
    [answer], errors = await exchange(engine, start([(name, b"3")]), body())
    assert not errors
    assert answer.headers == {"content-length": "3"}


@each_engine
@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"3"), (b"Content-Length", b"3")],
        [(b"content-length", b"3"), (b"content-length", b"4")],
        [(b"content-length", b"3"), (b"content-length", b"3"), (b"content-length", b"3")],
        [(b"content-length", b"3, 3")],
        [(b"content-length", b"+3")],
        [(b"content-length", b"-3")],
        [(b"content-length", b"")],
        [(b"content-length", b"0x3")],
        [(b"content-length", "٣".encode())],
    ],
    ids=repr,
)
@in_loop
async def test_a_length_that_is_none(engine: str, headers: Any) -> None:
    [answer], errors = await exchange(engine, start(headers), start([], 201), body())
    assert [type(error) for error in errors] == [ValueError]
    assert (answer.status, answer.headers) == (201, {"content-length": "3"})


@each_engine
@pytest.mark.parametrize(("size", "what"), [(b"2", "longer"), (b"4", "shorter")])
@in_loop
async def test_a_length_that_is_wrong(engine: str, size: bytes, what: str) -> None:
    [answer], [error] = await exchange(engine, start([(b"content-length", size)]), body())
    assert isinstance(error, RuntimeError)
    assert what in str(error)
    assert answer.status == 500


@each_engine
@pytest.mark.parametrize("name", [b"Date", b"date", b"DATE"])
@in_loop
async def test_what_the_app_sets_is_not_doubled(engine: str, name: bytes) -> None:
    defaults = [(b"server", b"asgiri"), (b"date", b"today"), (b"x-more", b"1")]
    [answer], errors = await exchange(engine, start([(name, b"tomorrow")]), body(), defaults=defaults)
    assert not errors
    assert answer.headers == {"date": "tomorrow", "server": "asgiri", "x-more": "1", "content-length": "3"}


@each_engine
@in_loop
async def test_twice_what_is_a_default_stays_twice(engine: str) -> None:
    headers = [(b"X-More", b"2"), (b"x-more", b"3")]
    [answer], _ = await exchange(engine, start(headers), body(), defaults=[(b"date", b"today"), (b"x-more", b"1")])
    assert answer.headers == {"x-more": "2, 3", "date": "today", "content-length": "3"}


@each_engine
@pytest.mark.parametrize("status", [HTTPStatus.CREATED, 201], ids=repr)
@in_loop
async def test_a_status_may_be_a_member_of_http_status(engine: str, status: Any) -> None:
    [answer], errors = await exchange(engine, start(status=status), body())
    assert not errors
    assert answer.status == 201


@each_engine
@pytest.mark.parametrize("status", ["201", b"201", None, 201.0, True, 0, 99, 101, 600, 1000, -1], ids=repr)
@in_loop
async def test_what_is_no_status(engine: str, status: Any) -> None:
    [answer], errors = await exchange(engine, start(status=status), body())
    assert errors
    assert answer.status == 500


@each_engine
@pytest.mark.parametrize("status", [204, 304, HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED], ids=repr)
@in_loop
async def test_a_status_without_content(engine: str, status: Any) -> None:
    [answer], errors = await exchange(engine, start(status=status), body())
    assert not errors
    assert answer.status == int(status)
    assert not answer.headers


@each_engine
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@in_loop
async def test_after_the_answer_nothing_is_taken(engine: str, method: str) -> None:
    late: list[Message] = [start(), body(), {"type": "http.response.trailers", "headers": []}]
    [answer], errors = await exchange(engine, start(), body(), *late, method=method)
    assert [type(error) for error in errors] == [RuntimeError] * 3
    assert answer.body == (b"abc" if method == "GET" else b"")
