"""Compressed messages (RFC 7692 sections 6 and 7.2)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from asgiri.codec.contract import Deflate
from asgiri.codec.events import Ping
from tests.codec.ws_rows import Row, binary, broken, pong, row, text
from tests.codec.ws_rows_text import BAD, CUT, GOOD
from tests.codec.ws_wire import BINARY, CLOSE, CONT, FIN, PING, PONG, RSV1, RSV2, TEXT, begun, frame

ALL = Deflate()
ALONE = Deflate(client_no_context_takeover=True)
HELLO = bytes.fromhex("f248cdc9c90700")  # section 7.2.3.1
HELLO_AGAIN = bytes.fromhex("f200110000")  # section 7.2.3.2, it refers to the one before
STORED = bytes.fromhex("000500faff48656c6c6f00")  # section 7.2.3.3
FINAL = bytes.fromhex("f348cdc9c9070000")  # section 7.2.3.4
TWO_BLOCKS = bytes.fromhex("f24805000000ffffcac9c90700")  # section 7.2.3.5
TRAILER = b"\x00\x00\xff\xff"
PACKED = FIN | RSV1


def stored(data: bytes) -> bytes:
    """An uncompressed block, in which the data can be seen: its first byte is the head, then come four of length."""
    size = len(data)
    return b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + data


def packed(data: bytes, **options: Any) -> bytes:
    compressor = zlib.compressobj(wbits=-options.pop("bits", 15), **options)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TRAILER)


def good() -> Iterator[Row]:
    hello = text("Hello")
    for name, data in {"fixed": HELLO, "stored": STORED, "final": FINAL, "two blocks": TWO_BLOCKS}.items():
        one = frame(TEXT, data, PACKED)
        yield row(name, one, hello, deflate=ALL)
        yield row(f"{name}, twice", one * 2, hello, hello, deflate=ALL)
        yield row(f"{name}, twice, alone", one * 2, hello, hello, deflate=ALONE)
    one = frame(TEXT, HELLO, PACKED)
    yield row("takeover", one + frame(TEXT, HELLO_AGAIN, PACKED), hello, hello, deflate=ALL)
    plain = one + frame(TEXT, b"plain") + frame(BINARY, b"\xff") + frame(TEXT, HELLO_AGAIN, PACKED)
    yield row("messages not compressed between", plain, hello, text("plain"), binary(b"\xff"), hello, deflate=ALL)
    again = frame(TEXT, HELLO, PACKED) + frame(TEXT, HELLO_AGAIN, PACKED)
    yield broken("no takeover, and a reference", 1007, again, hello, deflate=ALONE, late=True)
    parts = frame(TEXT, HELLO[:3], RSV1) + frame(CONT, HELLO[3:])
    yield row("two fragments", parts, hello, deflate=ALL)
    parts = frame(TEXT, b"", RSV1) + frame(CONT, HELLO[:1], 0) + frame(PING, b"p") + frame(CONT, HELLO[1:], 0)
    yield row("many", parts + frame(CONT), Ping(b"p"), hello, sent=(pong(b"p"),), deflate=ALL)
    yield row("a ping is never compressed", frame(PING, HELLO), Ping(HELLO), sent=(pong(HELLO),), deflate=ALL)
    yield row("an empty one", frame(TEXT, b"\x00", PACKED), text(""), deflate=ALL)
    flushed = one + frame(TEXT, b"", PACKED) + frame(BINARY, b"", PACKED) + frame(TEXT, HELLO_AGAIN, PACKED)
    yield row("flushed twice", flushed, hello, text(""), binary(b""), hello, deflate=ALL, why="zlib gives nothing then")
    two = frame(TEXT, HELLO + TRAILER, RSV1) + frame(CONT, HELLO_AGAIN)
    yield row("flushed between fragments", two, text("HelloHello"), deflate=ALL)
    yield row("empty blocks", frame(TEXT, (b"\x00" + TRAILER) * 3 + HELLO, PACKED), hello, deflate=ALL)
    ended = frame(TEXT, FINAL[:-1], PACKED)
    yield row("a final block and no more", ended * 2, hello, hello, deflate=ALL, why="as good as with the empty block")
    finals = frame(TEXT, FINAL[:-1] * 30 + HELLO, PACKED)
    yield row("many final blocks", finals, text("Hello" * 31), deflate=ALL)
    cut = frame(TEXT, FINAL[:-1], RSV1) + frame(CONT, HELLO)
    yield row("a final block, and then a fragment", cut, text("HelloHello"), deflate=ALL)
    for name, value in GOOD.items():
        yield row(name, frame(TEXT, packed(value.encode()), PACKED), text(value), deflate=ALL)
    data = bytes(number * number >> 3 & 0xFF for number in range(70_000))
    yield row("a large one", frame(BINARY, packed(data), PACKED), binary(data), deflate=ALL)
    for bits in range(9, 16):
        deflate = Deflate(client_max_window_bits=bits)
        yield row(f"window {bits}", frame(BINARY, packed(data, bits=bits), PACKED), binary(data), deflate=deflate)
    letters = bytes(range(256)) + b"and then forty-four bytes, which makes it 300"
    compressor = zlib.compressobj(wbits=-10)
    far = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in (letters, letters[:20])]
    yield row(
        "window 8",
        b"".join(frame(BINARY, part.removesuffix(TRAILER), PACKED) for part in far),
        binary(letters),
        binary(letters[:20]),
        deflate=Deflate(client_max_window_bits=8),
        why="it is inflated with 9, for who deflates may have made 9 of it",
    )


def bad() -> Iterator[Row]:
    yield broken("RSV1 and RSV2", 1002, bytes((PACKED | RSV2 | TEXT,)), deflate=ALL)
    yield broken("RSV2", 1002, bytes((FIN | RSV2 | TEXT,)), deflate=ALL)
    for opcode in (CLOSE, PING, PONG):
        yield broken(f"RSV1 on control frame {opcode}", 1002, bytes((PACKED | opcode,)), deflate=ALL)
    for opcode in (3, 7, 11, 15):
        yield broken(f"RSV1 on reserved opcode {opcode}", 1002, bytes((PACKED | opcode,)), deflate=ALL)
    first = frame(TEXT, HELLO[:3], RSV1)
    yield broken("RSV1 on a continuation", 1002, first + bytes((PACKED | CONT,)), deflate=ALL)
    yield broken("RSV1 on a continuation alone", 1002, frame(TEXT, b"a", 0) + bytes((RSV1 | CONT,)), deflate=ALL)
    yield broken("compressed, and nothing agreed on", 1002, bytes((PACKED | TEXT,)))
    yield broken("a reserved block", 1007, begun(BINARY, b"\x06", 100, PACKED), deflate=ALL)
    yield broken(
        "a length that is not mirrored", 1007, begun(BINARY, b"\x00\x05\x00\xfa\xfe", 100, PACKED), deflate=ALL
    )
    ends = {
        "in a fixed block": HELLO[:3],
        "in a literal": b"\xf2",
        "in a stored block": STORED[:7],
        "in a stored block's length": STORED[:3],
        "in a final block": b"\x03",
        "behind a flush": HELLO + TRAILER,
        "in a dynamic block's head": packed(bytes(range(200)) * 20)[:20],
    }
    for name, data in ends.items():
        yield broken(f"the end {name}", 1007, frame(BINARY, data, PACKED), deflate=ALL)
        yield broken(f"and without takeover, {name}", 1007, frame(BINARY, data, PACKED), deflate=ALONE)
    for name, value in BAD.items():
        data = stored(b"ab" + value + b"c" * 50)[: 7 + len(value)]
        yield broken(f"text: {name}", 1007, begun(TEXT, data, 1000, PACKED), deflate=ALL)
    for name, value in CUT.items():
        data = frame(TEXT, packed(b"ab" + value), PACKED)
        yield broken(f"text ends within a character {name}", 1007, data, deflate=ALL, late=True)
    behind = frame(TEXT, HELLO, PACKED) + frame(TEXT, HELLO_AGAIN, PACKED) + b"\xc3"
    yield broken("behind good ones", 1002, behind, text("Hello"), text("Hello"), deflate=ALL)


def limits() -> Iterator[Row]:
    data = b"a" * 1000
    fits = frame(BINARY, packed(data), PACKED)
    yield row("as large as it may be", fits * 2, binary(data), binary(data), most=1000, deflate=ALL)
    over = frame(BINARY, packed(data + b"a"), PACKED)
    yield broken("one byte over", 1009, over, most=1000, deflate=ALL, late=True)
    yield broken(
        "a thousand times over", 1009, frame(BINARY, packed(data * 1000), PACKED), most=999, deflate=ALL, late=True
    )
    seen = begun(BINARY, stored(b"abcdefghijk"), 100, PACKED)
    yield broken("at the first byte over", 1009, seen, most=10, deflate=ALL)
    wide = begun(TEXT, stored("abcdefgh€".encode()), 100, PACKED)[:-1]
    yield broken("which is of no whole character", 1009, wide, most=9, deflate=ALL)
    whole = frame(TEXT, packed("abcdefgh€ and so on".encode()), PACKED)
    yield broken("nor in a whole frame", 1009, whole, most=9, deflate=ALL, late=True)
    parts = frame(BINARY, stored(b"abcdef"), RSV1) + begun(CONT, stored(b"ghijk"), 100, 0)
    yield broken("over in the second fragment", 1009, parts, most=10, deflate=ALL)
    larger = frame(BINARY, STORED, PACKED)
    yield row("larger than its content", larger, binary(b"Hello"), most=5, deflate=ALL, why="what counts is inflated")
    plain = bytes((FIN | BINARY, 0x80 | 11))
    yield broken("one not compressed", 1009, plain, most=10, deflate=ALL)
    yield broken(
        "bad text is found before", 1007, frame(TEXT, packed(b"\xff" + data), PACKED), most=10, deflate=ALL, late=True
    )


ROWS = [*good(), *bad(), *limits()]
