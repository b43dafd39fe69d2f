"""What a peer can make an engine spend, in time and memory, with bytes that keep within the limits.

Times are of the processor, not of the clock, and the bounds are ten times and more what a slow machine takes: they are
passed only by work that grows with what has come before.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import pytest

from asgiri.codec import rules
from asgiri.codec.engines import Http1Engine
from asgiri.codec.events import Body, Event, Failure, Request
from asgiri.codec.rules import HttpLimits
from asgiri.errors import RemoteProtocolError
from tests.codec.rows import CHUNKED, GET, GOOD, A, head
from tests.codec.wire import each_engine

# Seconds of processor for each piece of a drip, on average. A turn of the event loop alone costs ten microseconds.
A_PIECE = 100e-6

LONG_HEADS = {
    "one long field": (GET + b"\r\nHost: a\r\n", b"X: " + b"v" * 65_500),
    "many fields": (GET + b"\r\nHost: a\r\n", (b"X: " + b"v" * 650 + b"\r\n") * 98),
    "many short fields": (GET + b"\r\nHost: a\r\n", b"X:\r\n" * 98),
    "a long line": (b"GET /", b"p" * 8170),
    "a long chunk line": (CHUNKED, b"1;" + b"e" * 4090),
    "a long quoted extension": (CHUNKED, b'1;a="' + b"\\e" * 2000),
    "a long trailer": (CHUNKED + b"0\r\n", b"X: " + b"v" * 65_500),
    "many trailers": (CHUNKED + b"0\r\n", (b"X: " + b"v" * 650 + b"\r\n") * 99),
    "leading empty lines": (b"\r\n", b"\r\n" * 30_000),
}


@each_engine
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(("begin", "data"), LONG_HEADS.values(), ids=LONG_HEADS)
def test_what_drips_in_costs_the_same_for_each_piece(engine: Http1Engine, begin: bytes, data: bytes, step: int) -> None:
    codec = engine(HttpLimits())
    codec.receive(begin)
    pieces = [data[i : i + step] for i in range(0, len(data), step)]
    started = time.process_time()
    for piece in pieces:
        assert codec.receive(piece) == []
    assert time.process_time() - started < len(pieces) * A_PIECE + 0.1


@each_engine
@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"1;a\r\nx\r\n", b"0000000000000001\r\nx\r\n"])
def test_tiny_chunks_cost_the_same_each(engine: Http1Engine, chunk: bytes) -> None:
    count = 16_000
    codec = engine(HttpLimits())
    codec.receive(CHUNKED)
    data = chunk * count
    events: list[Event] = []
    started = time.process_time()
    for at in range(0, len(data), 65_536):
        events += codec.receive(data[at : at + 65_536])
    spent = time.process_time() - started
    assert sum(len(event.data) for event in events if isinstance(event, Body)) == count
    assert spent < count * A_PIECE


@each_engine
def test_tiny_chunks_that_are_mostly_extension_are_refused_soon(engine: Http1Engine) -> None:
    codec = engine(HttpLimits())
    codec.receive(CHUNKED)
    taken = 0
    while not isinstance(codec.receive(b"1;" + b"e" * 99 + b"\r\nx\r\n")[-1], Failure):
        taken += 1
    assert taken == rules.EXTENSIONS_SIZE // 99


def refuse(check: Callable[..., object], *arguments: object) -> None:
    try:
        check(*arguments)
    except RemoteProtocolError:
        pass


K64 = 1 << 16
LIMITS = HttpLimits()
# Lines up to the limits that come near to what the patterns look for, many times over.
HARD = {
    "blanks behind a size": lambda: refuse(rules.check_chunk_line, b"1" + b" " * 4000),
    "blanks behind an extension": lambda: refuse(rules.check_chunk_line, b"1;a" + b" " * 4000),
    "extensions with blanks": lambda: refuse(rules.check_chunk_line, b"1" + b" ; a" * 1000 + b" "),
    "extensions with values": lambda: refuse(rules.check_chunk_line, b"1" + b";a=b" * 1000 + b"="),
    "extensions with blanks and values": lambda: refuse(rules.check_chunk_line, b"1" + b" ; a = b" * 500 + b"\x80"),
    "quoted extensions": lambda: refuse(rules.check_chunk_line, b"1" + b';a="b"' * 600 + b'"'),
    "backslashes": lambda: refuse(rules.check_chunk_line, b'1;a="' + b"\\\\" * 2000),
    "an open quote": lambda: refuse(rules.check_chunk_line, b'1;a="' + b"a" * 4000),
    "a long name": lambda: refuse(rules.check_field_line, b"a" * K64),
    "a long value that ends badly": lambda: refuse(rules.check_field_line, b"a:" + b" b" * (K64 // 2) + b"\x00"),
    "a head without an end": lambda: rules.HEAD.match(GET + b"\r\n" + b"a:\r\n" * (K64 // 4)),
    "a head of versions": lambda: rules.HEAD.match(b"GET /" + b" HTTP/1.1" * 7000),
    "a long line of no blanks": lambda: refuse(rules.check_request_line, b"a" * K64),
    "a long Host": lambda: refuse(rules.check_host, "1.1", [b"a" * K64 + b"@"]),
    "a Host of brackets": lambda: refuse(rules.check_host, "1.1", [b"[" * K64]),
    "a Host of colons": lambda: refuse(rules.check_host, "1.1", [b"[" + b":" * K64]),
    "a long port": lambda: refuse(rules.check_host, "1.1", [b"a:" + b"1" * K64 + b"x"]),
    "a long authority": lambda: refuse(rules.split_target, b"GET", b"http://" + b"a" * 8000 + b"#"),
    "a long length": lambda: refuse(rules.check_framing, "1.1", b"content-length:" + b"1" * K64 + b"\r\n", LIMITS),
    "many lengths": lambda: refuse(rules.check_framing, "1.1", b"content-length:\r\n" * 4000, LIMITS),
    "many near lengths": lambda: refuse(rules.check_framing, "1.1", b"content-lengt:\r\n" * 4000, LIMITS),
    "many codings": lambda: refuse(rules.check_codings, [b"chunked," * (K64 // 8)]),
    "a long chunk size": lambda: refuse(rules.check_chunk_line, b"f" * 4096),
    "a clean line": lambda: refuse(rules.check_line, b"a" * K64, K64, "too long", 431),
}


@pytest.mark.parametrize("check", HARD.values(), ids=HARD)
def test_no_line_within_the_limits_is_hard_to_judge(check: Callable[[], object]) -> None:
    check()
    started = time.process_time()
    check()
    assert time.process_time() - started < 0.05, "it takes a millisecond or two"


@each_engine
def test_a_codec_holds_no_more_than_what_has_come(engine: Http1Engine) -> None:
    """Nor, once the request is whole, anything of it."""

    def held(data: bytes) -> int:
        tracemalloc.start()
        codec = engine(LIMITS)
        for at in range(0, len(data), 1000):
            codec.receive(bytes(bytearray(data[at : at + 1000])))
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size

    idle = held(b"")
    fields = b"X: " + b"v" * 60_000
    assert held(GET + b"\r\nHost: a\r\n" + fields) < idle + 80_000, "a head that is not whole"
    assert held(head(GET, A, fields)) < idle + 16_000, "a head that is"
    assert held(CHUNKED + b"1;" + b"e" * 4000) < idle + 16_000, "a chunk's line"
    assert held(CHUNKED + b"1\r\nx\r\n" * 2000) < idle + 16_000, "chunks"
    assert held(CHUNKED + b"7530\r\n" + b"x" * 30_000) < idle + 16_000, "a long chunk"
    assert held(b"\r\n" * 20_000) < idle + 4_000, "empty lines"
    assert held(GOOD + b"x" * 30_000) < idle + 50_000, "what is pipelined"


@each_engine
def test_long_hosts_are_not_remembered(engine: Http1Engine) -> None:
    rules.is_known_host.cache_clear()
    for host in (b"h" * 60_000, b"h" * 300):
        (event,) = engine(LIMITS).receive(head(GET, b"Host: " + host))
        assert isinstance(event, Request)
    assert rules.is_known_host.cache_info().currsize == 0
