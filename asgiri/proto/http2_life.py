"""The lives of an HTTP/2 connection and of the exchanges on it, as tables (RFC 9113 sections 5.1 and 6.8).

A connection
    OPEN         streams come and go
    HELD         there is none, and under reload it is not read: what comes is for newer code
    WARNED       a first GOAWAY has said that the end is near, nothing is refused yet
    FINISHING    the last GOAWAY is out: the streams that are open finish
    HALF_CLOSED  the peer sends nothing more, though it may still read: what it asked for is answered
    LINGERING    our side is over; what still comes is thrown away, so that the peer gets to read what went out
    CLOSED       the transport is closed or closing

An exchange: one request and its answer. The states of section 5.1 are the codec's
    RECEIVING    the head is here, the body is arriving, the answer is not complete
    ANSWERING    the request is whole, the answer is not
    DONE         the answer is complete, though some of it may wait for the peer; the rest of the body is of no use
    GONE         the stream was reset, by whichever side, or the connection is lost

The tables are the whole lives; a pair that is not in them is a defect of ours and raises KeyError.
"""

from __future__ import annotations

from enum import Enum
from http import HTTPStatus
from typing import Final, Protocol


class State(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python

    OPEN = "open"
    HELD = "held"
    WARNED = "warned"
    FINISHING = "finishing"
    HALF_CLOSED = "half closed"
    LINGERING = "lingering"
    CLOSED = "closed"


class Signal(Enum):
    __hash__ = object.__hash__

    HOLD = "newer code is on its way"
    RELEASE = "it did not come up"
    WARNING = "a GOAWAY that refuses nothing"
    LAST = "a GOAWAY with the last stream that is served"
    PEER_ENDED = "the peer's end of file"
    ENDED = "the end of our side"
    CLOSED = "the transport closes"


OPEN: Final = State.OPEN
HELD: Final = State.HELD
WARNED: Final = State.WARNED
FINISHING: Final = State.FINISHING
HALF_CLOSED: Final = State.HALF_CLOSED
LINGERING: Final = State.LINGERING
CLOSED: Final = State.CLOSED
G = Signal
LIFE: Final[dict[tuple[State, Signal], State]] = {
    (OPEN, G.HOLD): HELD,
    (HELD, G.RELEASE): OPEN,
    (OPEN, G.WARNING): WARNED,
    (OPEN, G.LAST): FINISHING,
    # A TLS transport that is told not to read may still give what it has decrypted.
    (HELD, G.WARNING): WARNED,
    (HELD, G.LAST): FINISHING,
    (HELD, G.PEER_ENDED): HALF_CLOSED,
    (HELD, G.ENDED): LINGERING,
    (WARNED, G.LAST): FINISHING,
    (OPEN, G.PEER_ENDED): HALF_CLOSED,
    (WARNED, G.PEER_ENDED): HALF_CLOSED,
    (FINISHING, G.PEER_ENDED): HALF_CLOSED,
    (OPEN, G.ENDED): LINGERING,
    (WARNED, G.ENDED): LINGERING,
    (FINISHING, G.ENDED): LINGERING,
    **{(state, G.CLOSED): CLOSED for state in State},
}


class Phase(Enum):
    __hash__ = object.__hash__

    RECEIVING = "receiving"
    ANSWERING = "answering"
    DONE = "done"
    GONE = "gone"


class News(Enum):
    __hash__ = object.__hash__

    END = "the body's end"
    ANSWERED = "the answer's end"
    LOST = "the stream's untimely end"


RECEIVING: Final = Phase.RECEIVING
ANSWERING: Final = Phase.ANSWERING
DONE: Final = Phase.DONE
GONE: Final = Phase.GONE
END: Final = News.END
ANSWERED: Final = News.ANSWERED
LOST: Final = News.LOST
EXCHANGE: Final[dict[tuple[Phase, News], Phase]] = {
    (RECEIVING, END): ANSWERING,
    (RECEIVING, ANSWERED): DONE,
    (ANSWERING, ANSWERED): DONE,
    **{(phase, LOST): GONE for phase in Phase},
}


class Stream(Protocol):
    """What is at the upper end of a stream, as the connection sees it."""

    number: int

    def body(self, data: bytes) -> None:
        """A piece of the request's content has come."""

    def end(self) -> None:
        """The request is whole."""

    def peer_ended(self) -> None:
        """The peer sends nothing more at all, though it may still read."""

    def lost(self) -> None:
        """The stream is over before its time, whoever ended it."""

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """What the peer does is not to be served: answer so, or reset the stream."""

    def drained(self) -> bool:
        """Bytes of the stream's have left. Whether it needs not be told so again."""

    def check(self, now: float, crowded: bool) -> None:
        """Act on what is overdue at ``now``. ``crowded``: unread bodies fill the connection's window."""

    def begin_drain(self) -> None:
        """The server drains from now on: what has no end of its own is to come to one."""

    @property
    def unread(self) -> int:
        """Bytes that have come and that nobody has taken."""
