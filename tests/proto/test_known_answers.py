"""Answers whose head an application said before: each leaves as if it were the first, whatever asks for it."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import pytest

from asgiri.asgi.answers import MOST_KNOWN
from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext
from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import Peer, in_loop, reply, request, settle

pytestmark = pytest.mark.usefixtures("each_engine")

BODY = b"hello"
LENGTH = (b"content-length", b"5")
SAID: dict[str, dict[str, Any]] = {
    "length": {"status": 200, "headers": [LENGTH]},
    "another status": {"status": 404, "headers": [LENGTH]},
    "no length": {"status": 200, "headers": [(b"x-a", b"1")]},
    "nothing": {"status": 200},
    "upper case": {"status": 200, "headers": [(b"Content-Length", b"5"), (b"X-A", b"1")]},
    "its own date": {"status": 200, "headers": [LENGTH, (b"date", b"never")]},
    "it closes": {"status": 200, "headers": [LENGTH, (b"connection", b"close")]},
    "chunked": {"status": 200, "headers": [(b"transfer-encoding", b"chunked")]},
    "lists": {"status": 200, "headers": [[b"content-length", b"5"], [b"x-a", b"1"]]},
    "bytearrays": {"status": 200, "headers": [(bytearray(b"content-length"), bytearray(b"5"))]},
    "views": {"status": 200, "headers": [(memoryview(b"content-length"), memoryview(bytearray(b"5")))]},
    "a tuple": {"status": 200, "headers": (LENGTH,)},
    "an iterator": {"status": 200, "headers": LENGTH},
    "too short": {"status": 200, "headers": [(b"content-length", b"4")]},
    "no number": {"status": 200, "headers": [(b"content-length", b"five")]},
    "no token": {"status": 200, "headers": [LENGTH, (b"x a", b"1")]},
    "a line break": {"status": 200, "headers": [LENGTH, (b"x-a", b"1\r\nx-b: 2")]},
    "no content": {"status": 204, "headers": []},
    "not modified": {"status": 304, "headers": [LENGTH]},
    "no status": {"status": 200.0, "headers": [LENGTH]},
}
ASKED = {
    "GET": request("/"),
    "HEAD": request("/", method="HEAD"),
    "close": request("/", "Connection: close"),
    "HTTP/1.0": request("/", version="1.0"),
    "HEAD of HTTP/1.0": request("/", version="1.0", method="HEAD"),
    "behind another": request("/") + request("/"),
}


def context_of(said: dict[str, Any]) -> AppContext:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = {"type": "http.response.start", **said}
        if said.get("headers") is LENGTH:
            message["headers"] = iter([LENGTH])
        await send(message)
        await send({"type": "http.response.body", "body": b"" if said["status"] == 204 else BODY})

    context = AppContext(app=app, extensions=HTTP_EXTENSIONS)
    context.set_default_headers([(b"date", b"today"), (b"x-server", b"1")])
    return context


async def answer(context: AppContext, asked: bytes) -> bytes:
    """What leaves on a connection of its own."""
    peer = Peer(context.app)
    peer.shared.context = context
    peer.feed(asked)
    await settle()
    await settle()
    return peer.sent()


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
@in_loop
async def test_what_was_said_before_leaves_as_if_it_were_new(said: dict[str, Any]) -> None:
    warm = context_of(said)
    for before in ASKED.values():
        await answer(warm, before)
    for asked in ASKED.values():
        assert await answer(warm, asked) == await answer(context_of(said), asked), asked


@in_loop
async def test_what_is_said_of_one_thing_is_not_said_of_another() -> None:
    context = context_of(SAID["length"])
    apps = [context_of(said).app for said in SAID.values()]
    fresh = [await answer(context_of(said), ASKED["GET"]) for said in SAID.values()]
    for _ in range(2):
        for app, expected in zip(apps, fresh, strict=True):
            context.app = app
            assert await answer(context, ASKED["GET"]) == expected


@in_loop
async def test_the_date_of_now() -> None:
    context = context_of(SAID["length"])
    assert b"date: today\r\n" in await answer(context, ASKED["GET"])
    context.set_default_headers([(b"date", b"tomorrow")])
    said = await answer(context, ASKED["GET"])
    assert b"date: tomorrow\r\n" in said
    assert b"today" not in said


@in_loop
async def test_a_list_that_the_application_changes() -> None:
    headers = [LENGTH]
    context = context_of({"status": 200, "headers": headers})
    await answer(context, ASKED["GET"])
    headers.append((b"x-a", b"1"))
    assert b"x-a: 1\r\n" in await answer(context, ASKED["GET"])
    headers.pop()
    assert b"x-a" not in await answer(context, ASKED["GET"])


@in_loop
async def test_an_application_that_never_says_the_same_twice() -> None:
    said: dict[str, Any] = {"status": 200, "headers": [LENGTH]}
    context = context_of(said)
    begin = datetime.datetime(2026, 1, 1)
    for number in range(2 * MOST_KNOWN):
        value = (begin + datetime.timedelta(seconds=number)).isoformat().encode()
        said["headers"] = [LENGTH, (b"x-at", value)]
        assert value in await answer(context, ASKED["GET"])
    assert len(context.known_heads) == MOST_KNOWN


@in_loop
async def test_a_stack_that_is_full_on_the_way_out_leaves_nobody_waiting() -> None:
    def deeper(send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            await send(message)

        return wrapped

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(int(scope["path"][1:])):
            send = deeper(send)
        await reply(send, BODY)

    limit = sys.getrecursionlimit()
    ends = set()
    for depth in range(limit - 120, limit):
        peer = Peer(app)
        peer.feed(request(f"/{depth}"))
        await settle()
        assert peer.answers or peer.transport.is_closing(), depth
        ends |= set(peer.statuses)
        await peer.end()
    assert ends == {200, 500}
