"""RFC 6455 verdicts that every engine shares: what a frame's head, a Close frame and an application may say.

A verdict against a peer is a FrameError whose reason holds none of the peer's bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from asgiri.errors import LocalProtocolError

# RFC 6455 section 5.2: the first byte is FIN, RSV1 to RSV3 and the opcode; the second is MASK and a length.
FIN: Final = 0x80
RSV1: Final = 0x40
RSV: Final = 0x70
OPCODE: Final = 0x0F
MASK: Final = 0x80
LENGTH: Final = 0x7F

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CONTROL: Final = 0x8  # the bit that all control frames have
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

# Section 5.5: the most bytes of payload of a control frame; two of a Close frame's are the code.
MOST_CONTROL: Final = 125
MOST_REASON: Final = MOST_CONTROL - 2
# Section 5.2: these lengths say that the length follows, in 16 and 64 bits.
LENGTH_16: Final = 126
LENGTH_64: Final = 127

# Section 7.4.1.
PROTOCOL_ERROR: Final = 1002
NO_CODE: Final = 1005  # stands for a Close frame without one
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
# Sections 7.4.1 and 7.4.2, and IANA's registry for 1012 to 1014; 1004 is reserved, 1005, 1006 and 1015 are never sent.
CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})

# Section 5.2: the most bytes of a head, without the key, and those of the key.
MOST_HEAD: Final = 10
KEY_SIZE: Final = 4

# A message for which there is no limit must end somewhere, in bytes; zlib can count as far.
ENDLESS: Final = 1 << 62

NOT_SHORTEST: Final = "the length of a frame is not in its shortest form"


class Life(Enum):
    """Of a codec (RFC 6455 section 7.1).

    OPEN     both sides send               CLOSING  a Close frame of ours was made, the peer's is still to come
    CLOSED   nothing is read any more, for the peer's Close has come, or it broke the protocol; ours was made

    OPEN --our Close--> CLOSING            OPEN, CLOSING --its Close, or what breaks the protocol--> CLOSED
    """

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


# For the hot path: a member of an Enum by its class is a slow look-up on Python 3.11.
OPEN: Final = Life.OPEN
CLOSING: Final = Life.CLOSING
CLOSED: Final = Life.CLOSED


class FrameError(Exception):
    """The peer broke RFC 6455. ``code`` is what a Close frame tells it, ``reason`` one sentence."""

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


# The head


def check_first(first: int, within: bool, deflates: bool) -> None:
    """Judge the first byte of a frame. ``within`` a fragmented message; ``deflates``: messages may be compressed."""
    opcode = first & OPCODE
    if opcode > PONG or BINARY < opcode < CLOSE:
        raise FrameError("a frame has a reserved opcode")
    if first & RSV and (first & RSV != RSV1 or not deflates or not TEXT <= opcode <= BINARY):
        # RFC 7692 section 6.1: RSV1 is on the first frame of a message.
        raise FrameError("a frame has a reserved bit set")
    if opcode & CONTROL:
        if not first & FIN:  # section 5.5
            raise FrameError("a control frame is fragmented")
    elif within:
        if opcode != CONTINUATION:  # section 5.4
            raise FrameError("a message begins within another one")
    elif opcode == CONTINUATION:
        raise FrameError("a frame continues no message")


def check_second(first: int, second: int) -> None:
    """Judge the second byte of a frame, whose first byte was let through."""
    if not second & MASK:  # section 5.1
        raise FrameError("a frame of the client is not masked")
    if first & CONTROL and second & LENGTH > MOST_CONTROL:
        raise FrameError("a control frame is too large")


def read_head(data: bytes, at: int, within: bool, deflates: bool) -> tuple[int, int] | None:
    """The size of the payload of the frame that begins at ``at``, and where its masking key does.

    None while that much of the head is not there; what is there has been judged. Raises FrameError.
    """
    here = len(data) - at
    if here < 1:
        return None
    check_first(data[at], within, deflates)
    if here < 2:
        return None
    check_second(data[at], data[at + 1])
    size = data[at + 1] & LENGTH
    if size < LENGTH_16:
        return size, at + 2
    if size == LENGTH_16:
        if here < 4:
            return None
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if size < LENGTH_16:
            raise FrameError(NOT_SHORTEST)
        return size, at + 4
    if here < 10:
        return None
    size = int.from_bytes(data[at + 2 : at + 10], "big")
    if size < 1 << 16:
        raise FrameError(NOT_SHORTEST)
    if size >> 63:  # section 5.2: the most significant bit must be 0
        raise FrameError("the length of a frame has more than 63 bits")
    return size, at + 10


def frame_size(data: bytes, at: int, within: bool, deflates: bool) -> int:
    """The bytes of the frame that begins at ``at``, with its head; 0 where that is not whole, or not as it must be."""
    try:
        head = read_head(data, at, within, deflates)
    except FrameError:
        return 0
    return 0 if head is None else head[1] + KEY_SIZE - at + head[0]


def check_size(size: int, gathered: int, most: int) -> None:
    """Judge the size of a data frame before it comes; of its message there are ``gathered`` bytes."""
    if gathered + size > most:
        raise too_big()


def too_big() -> FrameError:
    return FrameError("the message is too large", TOO_BIG)


def bad_text() -> FrameError:
    """RFC 6455 section 8.1."""
    return FrameError("the text is not valid UTF-8", INVALID_DATA)


def check_tail(tail: bytes) -> None:
    """Judge the beginning of a character, which Python's decoder would wait with for more.

    It knows at once what cannot become one, but for surrogates: those it lets its error handlers see whole.
    """
    if len(tail) == 2 and tail[0] == 0xED and tail[1] >= 0xA0:
        raise bad_text()


# Close frames


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may have the code, whoever sends it (RFC 6455 section 7.4)."""
    return code in CODES or 3000 <= code <= 4999


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a Close frame (section 5.5.1); 1005 for none. Raises FrameError."""
    if not payload:
        return NO_CODE, ""
    if len(payload) == 1:
        raise FrameError("a Close frame has half of a code")
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        raise FrameError("a Close frame has a code that may not be sent")
    try:
        return code, payload[2:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise FrameError("the reason of a Close frame is not valid UTF-8", INVALID_DATA) from error


def close_payload(code: int, reason: str) -> bytes:
    """What a Close frame of ours holds. Raises LocalProtocolError for what none may."""
    if code == NO_CODE:
        if reason:
            raise LocalProtocolError("a Close frame without a code (1005) has no reason either")
        return b""
    if not may_be_sent(code):
        raise LocalProtocolError(
            f"close code {code} may not be sent: expected 1000 to 1003, 1007 to 1014, 3000 to 4999"
        )
    try:
        encoded = reason.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LocalProtocolError("the reason holds surrogates, which UTF-8 has none of") from error
    if len(encoded) > MOST_REASON:
        raise LocalProtocolError(f"the reason of a Close frame has {len(encoded)} bytes; {MOST_REASON} at most")
    return code.to_bytes(2, "big") + encoded


def check_ping(data: bytes) -> None:
    if len(data) > MOST_CONTROL:
        raise LocalProtocolError(f"a ping has {len(data)} bytes; {MOST_CONTROL} at most")


def encoded(text: str) -> bytes:
    """The text in UTF-8. Raises LocalProtocolError where that has no bytes for it."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LocalProtocolError("the text holds surrogates, which UTF-8 has none of") from error
