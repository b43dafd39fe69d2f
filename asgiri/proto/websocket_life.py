"""The life of a WebSocket (RFC 6455 section 7.1), as a table.

    HANDSHAKE  the request is here, and not answered
    DENYING    an answer that makes no WebSocket is on its way, in pieces
    OPEN       accepted: messages go both ways
    CLOSING    our Close frame is out, the peer's is not here yet
    LEAVING    nothing passes any more; the last bytes go out at the peer's pace, and the carrier ends
    OVERDUE    the same, but what is not out by the next sweep stays behind
    GONE       the carrier is lost, or has answered with something else

The table is the whole life; a pair that is not in it is a defect of ours and raises KeyError.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python

    HANDSHAKE = "handshake"
    DENYING = "denying"
    OPEN = "open"
    CLOSING = "closing"
    LEAVING = "leaving"
    OVERDUE = "overdue"
    GONE = "gone"


class Signal(Enum):
    __hash__ = object.__hash__

    ACCEPTED = "the answer that opens it"
    DENY_HEAD = "the head of another answer"
    DENIED = "the end of another answer"
    CLOSE_SENT = "a Close frame of ours that answers none"
    CLOSED = "the peer's Close frame, ours being out"
    FAILED = "the peer broke the protocol, and was told by a Close frame"
    SILENT = "no pong came, and the peer was told by a Close frame"
    LOST = "the carrier's end"


HANDSHAKE: Final = State.HANDSHAKE
DENYING: Final = State.DENYING
OPEN: Final = State.OPEN
CLOSING: Final = State.CLOSING
LEAVING: Final = State.LEAVING
OVERDUE: Final = State.OVERDUE
GONE: Final = State.GONE
G = Signal
LIFE: Final[dict[tuple[State, Signal], State]] = {
    (HANDSHAKE, G.ACCEPTED): OPEN,
    (HANDSHAKE, G.DENY_HEAD): DENYING,
    (HANDSHAKE, G.DENIED): GONE,
    (DENYING, G.DENIED): GONE,
    (OPEN, G.CLOSE_SENT): CLOSING,
    (OPEN, G.CLOSED): LEAVING,
    (CLOSING, G.CLOSED): LEAVING,
    (OPEN, G.FAILED): LEAVING,
    (CLOSING, G.FAILED): LEAVING,
    (OPEN, G.SILENT): OVERDUE,
    **{(state, G.LOST): GONE for state in State},
}
