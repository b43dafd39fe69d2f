"""Frames, messages and limits (RFC 6455 section 5)."""

from __future__ import annotations

from collections.abc import Iterator

from asgiri.codec.events import Ping, Pong
from tests.codec.ws_rows import Row, binary, broken, pong, row, text
from tests.codec.ws_wire import BINARY, CLOSE, CONT, FIN, KEY, PING, PONG, RSV1, RSV2, RSV3, TEXT, begun, frame, length

KNOWN = {"continuation": CONT, "text": TEXT, "binary": BINARY, "close": CLOSE, "ping": PING, "pong": PONG}
CONTROL = {name: opcode for name, opcode in KNOWN.items() if opcode & 0x8}
SIZES = (0, 1, 2, 3, 4, 5, 6, 16, 64, 124, 125, 126, 127, 128, 4095, 4096, 65535, 65536, 65537, 200_000)
ALPHABET = bytes(range(32, 127))


def some(size: int) -> bytes:
    return (ALPHABET * (size // len(ALPHABET) + 1))[:size]


def messages() -> Iterator[Row]:
    for size in SIZES:
        data = some(size)
        yield row(f"text of {size}", frame(TEXT, data), text(data.decode()))
        yield row(f"binary of {size}", frame(BINARY, data), binary(data))
    yield row("all bytes", frame(BINARY, bytes(range(256))), binary(bytes(range(256))))
    yield row("a mask of zeros", frame(BINARY, b"abcdefg", key=b"\0\0\0\0"), binary(b"abcdefg"))
    yield row("a mask of ones", frame(TEXT, b"abcdefg", key=b"\xff" * 4), text("abcdefg"))
    yield row("the example of section 5.7", bytes.fromhex("818537fa213d7f9f4d5158"), text("Hello"))
    data = b"".join(frame(BINARY, b"%d" % number) for number in range(20))
    yield row("20 messages", data, *(binary(b"%d" % number) for number in range(20)))
    mixed = frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT) + frame(BINARY) + frame(BINARY, b"x" * 130)
    yield row("small and large ones", mixed, text("a"), binary(b"b"), text(""), binary(b""), binary(b"x" * 130))


def fragments() -> Iterator[Row]:
    yield row("two fragments", frame(TEXT, b"Hel", 0) + frame(CONT, b"lo"), text("Hello"))
    yield row("binary fragments", frame(BINARY, b"\xff", 0) + frame(CONT, b"\xfe"), binary(b"\xff\xfe"))
    yield row("empty fragments", frame(TEXT, b"", 0) + frame(CONT, b"", 0) + frame(CONT), text(""))
    yield row("an empty last one", frame(TEXT, b"ab", 0) + frame(CONT), text("ab"))
    yield row("an empty first one", frame(BINARY, b"", 0) + frame(CONT, b"ab"), binary(b"ab"))
    yield row("an empty middle one", frame(TEXT, b"a", 0) + frame(CONT, b"", 0) + frame(CONT, b"b"), text("ab"))
    single = frame(TEXT, b"a", 0) + frame(CONT, b"b", 0) * 8 + frame(CONT, b"c")
    yield row("one byte each", single, text("abbbbbbbbc"))
    large = frame(BINARY, some(70_000), 0) + frame(CONT, some(5000), 0) + frame(CONT, some(3))
    yield row("large fragments", large, binary(some(70_000) + some(5000) + some(3)))
    yield row(
        "ping and pong between them",
        frame(TEXT, b"a", 0) + frame(PING, b"1") + frame(CONT, b"b", 0) + frame(PONG, b"2") + frame(CONT, b"c"),
        Ping(b"1"),
        Pong(b"2"),
        text("abc"),
        sent=(pong(b"1"),),
    )
    behind = frame(TEXT, b"a", 0) + frame(CONT, b"b") + frame(TEXT, b"c") + frame(BINARY, b"d", 0) + frame(CONT, b"e")
    yield row("a message behind another", behind, text("ab"), text("c"), binary(b"de"))
    yield row("no end of it", frame(TEXT, b"a", 0) + frame(CONT, b"b", 0))
    for fin in (0, FIN):
        yield broken(f"a continuation of nothing, {fin}", 1002, bytes((fin | CONT,)))
        for opcode in (TEXT, BINARY):
            data = frame(TEXT, b"a", 0)
            yield broken(f"{opcode} within a message, {fin}", 1002, data + bytes((fin | opcode,)))
    whole = frame(TEXT, b"a", 0) + frame(CONT, b"b")
    yield broken("a continuation behind the end", 1002, whole + b"\x80", text("ab"))
    yield broken("a continuation behind a whole message", 1002, frame(BINARY, b"a") + b"\x80", binary(b"a"))


def heads() -> Iterator[Row]:
    for name, opcode in KNOWN.items():
        start = b"" if opcode != CONT else frame(TEXT, b"a", 0)
        for bits in range(RSV3, FIN, RSV3):
            yield broken(f"{name} with RSV {bits >> 4:03b}", 1002, start + bytes((FIN | bits | opcode,)))
        yield broken(f"{name} not masked", 1002, start + bytes((FIN | opcode, 1)))
        yield broken(f"empty {name} not masked", 1002, start + bytes((FIN | opcode, 0)))
    yield broken("a message's begin with RSV2", 1002, bytes((RSV2 | TEXT,)))
    yield broken("all RSV bits", 1002, bytes((FIN | RSV1 | RSV2 | RSV3 | BINARY,)))
    yield broken("a long one not masked", 1002, bytes((FIN | TEXT, 126)))
    yield broken("a very long one not masked", 1002, bytes((FIN | TEXT, 127)))
    for opcode in (*range(3, 8), *range(11, 16)):
        yield broken(f"opcode {opcode}", 1002, bytes((FIN | opcode,)))
        yield broken(f"opcode {opcode} without FIN", 1002, bytes((opcode,)))
        yield broken(f"opcode {opcode} within a message", 1002, frame(TEXT, b"a", 0) + bytes((FIN | opcode,)))


def control() -> Iterator[Row]:
    for size in (0, 1, 4, 124, 125):
        data = some(size)
        yield row(f"ping of {size}", frame(PING, data), Ping(data), sent=(pong(data),))
        yield row(f"pong of {size}", frame(PONG, data), Pong(data))
    data = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    yield row("a ping of bytes that are no text", frame(PING, data), Ping(data), sent=(pong(data),))
    tens = b"".join(frame(PING, b"%d" % number) for number in range(10))
    yield row(
        "ten pings",
        tens,
        *(Ping(b"%d" % number) for number in range(10)),
        sent=tuple(pong(b"%d" % number) for number in range(10)),
    )
    for name, opcode in CONTROL.items():
        yield broken(f"{name} without FIN", 1002, bytes((opcode,)))
        yield broken(f"{name} of 126", 1002, bytes((FIN | opcode, 0x80 | 126)))
        yield broken(f"{name} of 64 bits of length", 1002, bytes((FIN | opcode, 0x80 | 127)))
    yield broken("a ping within a message without FIN", 1002, frame(TEXT, b"a", 0) + bytes((PING,)))


def lengths() -> Iterator[Row]:
    for size in (0, 1, 124, 125):
        yield broken(f"{size} in 16 bits", 1002, bytes((FIN | TEXT,)) + length(size, 126))
    for size in (0, 125, 126, 65535):
        yield broken(f"{size} in 64 bits", 1002, bytes((FIN | BINARY,)) + length(size, 127))
    for size in (1 << 63, (1 << 64) - 1):
        yield broken(f"{size} bytes", 1002, bytes((FIN | BINARY,)) + length(size, 127))
    yield row("a whole lot to come", begun(BINARY, b"abc", 1 << 40))


def limits() -> Iterator[Row]:
    yield row("as large as it may be", frame(TEXT, some(10)), text(some(10).decode()), most=10)
    yield broken("one byte over", 1009, bytes((FIN | TEXT,)) + length(11), most=10)
    yield broken("over in 16 bits", 1009, bytes((FIN | BINARY,)) + length(201), most=200)
    yield broken("over in 64 bits", 1009, bytes((FIN | BINARY,)) + length(1 << 20), most=200)
    yield broken("the most that 63 bits say", 1009, bytes((FIN | TEXT,)) + length((1 << 63) - 1), most=200)
    yield broken("and without a limit", 1009, bytes((FIN | TEXT,)) + length((1 << 63) - 1))
    first = frame(TEXT, some(6), 0)
    yield row("fragments within it", first + frame(CONT, some(4)), text((some(6) + some(4)).decode()), most=10)
    yield broken("fragments over it", 1009, first + bytes((FIN | CONT,)) + length(5), most=10)
    yield broken(
        "fragments over it, and a ping between",
        1009,
        first + frame(PING, some(100)) + bytes((CONT,)) + length(5),
        Ping(some(100)),
        sent=(pong(some(100)),),
        most=10,
        why="only data counts",
    )
    each = frame(BINARY, some(10)) * 3
    yield row("each message has its own", each, *[binary(some(10))] * 3, most=10)
    parts = (frame(BINARY, some(5), 0) + frame(CONT, some(5))) * 2
    yield row("each fragmented message too", parts, *[binary(some(5) * 2)] * 2, most=10)
    yield row("a ping may be larger", frame(PING, some(20)), Ping(some(20)), sent=(pong(some(20)),), most=10)


def halves() -> Iterator[Row]:
    data = frame(BINARY, some(300))
    for size in (1, 2, 3, 4, 5, 7, 8, 9, 100, len(data) - 1):
        yield row(f"the first {size} bytes of a frame", data[:size])
    yield row("half of a ping", frame(PING, b"abcd")[:-1])
    yield row("a head without its payload", bytes((FIN | TEXT, 0x85)) + KEY)


ROWS = [*messages(), *fragments(), *heads(), *control(), *lengths(), *limits(), *halves()]
