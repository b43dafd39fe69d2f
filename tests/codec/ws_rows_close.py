"""Close frames (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

from collections.abc import Iterator

from asgiri.codec.events import Close, Ping
from tests.codec.ws_rows import Row, broken, pong, row, text
from tests.codec.ws_wire import CLOSE, CONT, FIN, PING, TEXT, Sent, frame

RECEIVABLE = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3001, 3999, 4000, 4999)
NOT_RECEIVABLE = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 32768, 65535)


def closes() -> Iterator[Row]:
    yield row("without a code", frame(CLOSE), Close(1005, ""), sent=(Sent(FIN | CLOSE, b""),))
    for code in RECEIVABLE:
        digits = code.to_bytes(2, "big")
        echo = (Sent(FIN | CLOSE, digits),)
        yield row(f"code {code}", frame(CLOSE, digits), Close(code, ""), sent=echo)
        yield row(f"code {code} with a reason", frame(CLOSE, digits + "bé".encode()), Close(code, "bé"), sent=echo)
    for code in NOT_RECEIVABLE:
        yield broken(f"code {code}", 1002, frame(CLOSE, code.to_bytes(2, "big")))
        yield broken(f"code {code} with a reason", 1002, frame(CLOSE, code.to_bytes(2, "big") + b"why"))
    normal = (1000).to_bytes(2, "big")
    echo = (Sent(FIN | CLOSE, normal),)
    yield row("the longest reason", frame(CLOSE, normal + b"r" * 123), Close(1000, "r" * 123), sent=echo)
    yield broken("half of a code", 1002, frame(CLOSE, b"\x03"))
    yield broken("a reason that is no UTF-8", 1007, frame(CLOSE, normal + b"\xff"))
    yield broken("a reason with a surrogate", 1007, frame(CLOSE, normal + b"a\xed\xa0\x80"))
    yield broken("a reason cut within a character", 1007, frame(CLOSE, normal + b"\xe2\x82"))
    yield broken("a wrong code and a wrong reason", 1002, frame(CLOSE, b"\0\0\xff"))
    yield row("behind a message", frame(TEXT, b"a") + frame(CLOSE, normal), text("a"), Close(1000, ""), sent=echo)
    within = frame(TEXT, b"a", 0) + frame(CLOSE, normal)
    yield row("within a message", within, Close(1000, ""), sent=echo, why="the message will never be whole")
    data = frame(PING, b"a") + frame(CLOSE, normal) + frame(PING, b"b") + frame(TEXT, b"c")
    yield row("frames behind it are not read", data, Ping(b"a"), Close(1000, ""), sent=(pong(b"a"), *echo))
    yield row("a second one", frame(CLOSE, normal) * 2, Close(1000, ""), sent=echo)
    yield row("and nonsense", frame(CLOSE, normal) + b"\xff" * 20, Close(1000, ""), sent=echo)
    rest = frame(TEXT, b"a", 0) + frame(CLOSE, normal) + frame(CONT, b"b")
    yield row("the rest of a message behind it", rest, Close(1000, ""), sent=echo)


ROWS = [*closes()]
