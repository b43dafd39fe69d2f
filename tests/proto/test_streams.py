"""Random streams of pipelined requests on real sockets, as h11 reads their answers on the other end."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from pathlib import Path

import h11
import msgspec
import pytest

from asgiri.config.schema import Http1
from asgiri.server import Server
from asgiri.types import Message, Receive, Scope, Send
from tests.proto.fakes import read_body, reply, request
from tests.serving import config, connected, on_both_loops

ENGINES = ["h11", "httptools"]
# Connections that are open at the same time, and streams one after the other on each place.
AT_ONCE = 16
ROUNDS = 3


@dataclass
class Asked:
    """A request, and what has to come back."""

    method: str
    data: bytes
    status: int
    body: bytes
    closes: bool


class App:
    """Answers in every way there is, as the path says."""

    def __init__(self, file: Path) -> None:
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, kind, size = scope["path"].split("/")
        content = letters(int(size))
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        match kind:
            case "echo":
                await reply(send, await read_body(receive) or b"")
            case "late":
                for _ in range(len(content) % 5):
                    await asyncio.sleep(0)
                await reply(send, content)
            case "stream":
                await send(start)
                for begin in range(0, len(content), 700):
                    part = content[begin : begin + 700]
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body"})
            case "file":
                await send(start)
                with self.file.open("rb") as file:
                    await send({"type": "http.response.zerocopysend", "file": file, "count": len(content)})
            case "close":
                await reply(send, content, 200, (b"Connection", b"close"))
            case "empty":
                await reply(send, b"", 204)
            case _:
                await reply(send, content, 200, (b"content-length", b"%d" % len(content)))


def letters(size: int) -> bytes:
    return b"abcdefghijklmnopqrstuvwxyz"[size % 26 :][:size].ljust(size, b"-")


KINDS = ["now"] * 8 + ["echo"] * 4 + ["late", "late", "stream", "stream", "file", "empty", "close"]
SIZES = [0, 1, 5, 100, 1500, 9000, 20_000, 70_000]


def any_request(chance: random.Random) -> Asked:
    kind = chance.choice(KINDS)
    size = chance.choice(SIZES)
    method = chance.choice(["GET", "GET", "GET", "HEAD", "POST"])
    fields = chance.choice([[], [], [], ["Accept: */*"], ["Accept: */*", "User-Agent: x"], ["Connection: keep-alive"]])
    says_close = chance.random() < 0.05
    closes = says_close or kind == "close"
    if says_close:
        fields = ["Connection: close"]
    sent = letters(chance.choice([0, 3, 2000])) if method == "POST" else b""
    target = f"/{kind}/{size}"
    if sent and chance.random() < 0.5:
        data = request(target, *fields, "Transfer-Encoding: chunked", method=method)
        data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent)
    else:
        data = request(target, *fields, method=method, body=sent)
    body = {"echo": sent, "empty": b"", "file": b"f" * size}.get(kind, letters(size))
    status = 204 if kind == "empty" else 200
    return Asked(method, data, status, b"" if method == "HEAD" else body, closes)


def any_stream(chance: random.Random) -> list[Asked]:
    return [any_request(chance) for _ in range(chance.randint(1, 25))]


def read_as_h11(asked: list[Asked], data: bytes) -> list[tuple[int, bytes]]:
    """Status and content of all answers; the data must end where the last one does."""
    found: list[tuple[int, bytes]] = []
    for one in asked:
        if not data:
            break
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method=one.method, target="/", headers=[("host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        status, body = 0, b""
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise AssertionError(f"{event!r} after {len(found)} answers, status {status}, {len(body)} bytes")
        found.append((status, body))
        data = client.trailing_data[0]
    assert not data, f"bytes behind the last answer: {data[:80]!r}"
    return found


async def check_stream(server: Server, seed: int) -> None:
    chance = random.Random(seed)
    asked = any_stream(chance)
    last = next((number for number, one in enumerate(asked) if one.closes), len(asked) - 1)
    data = b"".join(one.data for one in asked)
    async with connected(server) as client:

        async def send() -> None:
            begin = 0
            with contextlib.suppress(OSError, RuntimeError):  # the server has closed; uvloop says it in its own way
                while begin < len(data):
                    end = begin + chance.choice([1, 20, 90, 200, 1000, 5000, 100_000])
                    client.send(data[begin:end])
                    begin = end
                    await client.drain()
                    for _ in range(chance.randint(0, 3)):
                        await asyncio.sleep(0)
                client.half_close()

        sending = asyncio.ensure_future(send())
        # Who sends on behind the end may see a reset instead of the answers.
        with contextlib.suppress(*[OSError] if last + 1 < len(asked) else []):
            found = read_as_h11(asked, await client.rest())
            expected = [(one.status, one.body) for one in asked[: last + 1]]
            assert len(found) == len(expected), f"seed {seed}: {len(found)} answers, not {len(expected)}"
            assert found == expected, f"seed {seed}"
        await sending


@pytest.mark.parametrize("engine", ENGINES)
@on_both_loops
async def test_any_stream_is_answered_as_it_was_asked(engine: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"f" * max(SIZES))
    settings = msgspec.structs.replace(config(), http1=Http1(engine=engine))  # type: ignore[arg-type]
    async with Server(App(file), config=settings) as server:
        for first in range(0, ROUNDS * AT_ONCE, AT_ONCE):
            await asyncio.gather(*(check_stream(server, seed) for seed in range(first, first + AT_ONCE)))
