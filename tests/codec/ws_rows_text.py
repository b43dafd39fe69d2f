"""Text: UTF-8 across fragments and frames, and wrong at the first byte that makes it so (RFC 6455 section 8.1)."""

from __future__ import annotations

from collections.abc import Iterator

from asgiri.codec.events import Ping
from tests.codec.ws_rows import Row, broken, pong, row, text
from tests.codec.ws_wire import CONT, FIN, PING, TEXT, begun, frame

GOOD = {
    "greek": "κόσμε",
    "first of two bytes": "\x80",
    "last of two bytes": "\u07ff",
    "first of three": "\u0800",
    "last of three": "\uffff",
    "below the surrogates": "\ud7ff",
    "above the surrogates": "\ue000",
    "first of four": "\U00010000",
    "the last character": "\U0010ffff",
    "no characters, by Unicode": "\ufffe\U0001fffe\U0005ffff\ufdd0",
    "NUL": "\x00a\x00",
    "a byte order mark": "\ufeffa\ufeff",
    "combining": "e\u0301\u0327 n\u0303",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "line ends": "a\r\nb\nc\rd\u2028e\x85",
    "replacement": "\ufffd",
}
# Each is wrong at its last byte, and not before.
BAD = {
    "a continuation byte": b"\x80",
    "the last continuation byte": b"\xbf",
    "C0": b"\xc0",
    "C1": b"\xc1",
    "F5": b"\xf5",
    "F8, of five bytes": b"\xf8",
    "FC, of six bytes": b"\xfc",
    "FE": b"\xfe",
    "FF": b"\xff",
    "two bytes cut by a letter": b"\xc3\x28",
    "two leads": b"\xc3\xc3",
    "three bytes cut by a letter": b"\xe2\x82\x28",
    "three bytes cut at once": b"\xe2\x28",
    "four bytes cut by a letter": b"\xf0\x9f\x98\x28",
    "overlong slash in three": b"\xe0\x80",
    "the last overlong in three": b"\xe0\x9f",
    "overlong in four": b"\xf0\x80",
    "the last overlong in four": b"\xf0\x8f",
    "the first surrogate": b"\xed\xa0",
    "the last surrogate": b"\xed\xbf",
    "above the last character": b"\xf4\x90",
    "greek and then": "κόσμε".encode() + b"\xed\xa0",
}
# A whole message may not end like this.
CUT = {"of two": b"\xc3", "of three": b"\xe2\x82", "of four": b"\xf0\x9f\x98", "one of four": b"\xf4"}


def good() -> Iterator[Row]:
    for name, value in GOOD.items():
        data = value.encode()
        yield row(name, frame(TEXT, data), text(value))
        single = [frame(TEXT, data[:1], 0), *(frame(CONT, data[at : at + 1], 0) for at in range(1, len(data)))]
        yield row(f"{name}, a fragment a byte", b"".join(single) + frame(CONT), text(value))
    euro = "€".encode()
    data = frame(TEXT, b"a" + euro[:1], 0) + frame(PING, b"\xff") + frame(CONT, euro[1:])
    yield row("a ping within a character", data, Ping(b"\xff"), text("a€"), sent=(pong(b"\xff"),))
    long = "x€\U0001f600" * 2000
    yield row("a long one", frame(TEXT, long.encode()), text(long))
    half = len(long.encode()) // 2 + 1
    data = frame(TEXT, long.encode()[:half], 0) + frame(CONT, long.encode()[half:])
    yield row("a long one, halved", data, text(long))


def bad() -> Iterator[Row]:
    for name, value in BAD.items():
        yield broken(f"whole: {name}", 1007, frame(TEXT, value))
        yield broken(f"within a frame: {name}", 1007, begun(TEXT, b"abc" + value, 1000))
        yield broken(f"within a small frame: {name}", 1007, begun(TEXT, b"abc" + value, 100))
        yield broken(f"within a first fragment: {name}", 1007, begun(TEXT, value, 100, 0))
        last = len(value) - 1
        data = frame(TEXT, b"abc" + value[:last], 0)
        yield broken(f"in the next fragment: {name}", 1007, data + begun(CONT, value[last:], 100, 0))
        yield broken(f"in a last fragment: {name}", 1007, data + begun(CONT, value[last:], 2, FIN))
    for name, value in CUT.items():
        yield broken(f"the message ends within a character {name}", 1007, frame(TEXT, b"a" + value))
        yield broken(f"so does its last fragment, {name}", 1007, frame(TEXT, b"a", 0) + frame(CONT, value))
        yield broken(f"an empty fragment ends it {name}", 1007, frame(TEXT, b"a" + value, 0) + frame(CONT))
        yield row(f"it may be cut between fragments {name}", frame(TEXT, b"a" + value, 0))
    yield broken("far into a large frame", 1007, begun(TEXT, b"a" * 70_000 + b"\xff", 100_000))
    yield broken("a message before it", 1007, frame(TEXT, b"a") + begun(TEXT, b"\xff", 9), text("a"))


ROWS = [*good(), *bad()]
