"""The life of an HTTP/1.1 connection (RFC 9112 section 9), as a table.

    IDLE        nothing of a request is here; the connection waits
    HELD        the same, and under reload it is not read: what comes is for newer code
    HEAD        bytes of a request's head are here
    RECEIVING   the head is here, the body is arriving, the answer is not complete
    ANSWERING   the request is whole, the answer is not
    DISCARDING  the answer is complete, the body is still arriving and of no use any more
    DONE        both are complete, the next exchange has not begun
    LINGERING   refused: the answer is out, what still comes is thrown away (section 9.6)
    CLOSED      the transport is closed or closing

The table is the whole life; a pair that is not in it is a defect of ours and raises KeyError.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    __hash__ = object.__hash__  # Enum's own is written in Python, and LIFE is asked several times a request

    IDLE = "idle"
    HELD = "held"
    HEAD = "head"
    RECEIVING = "receiving"
    ANSWERING = "answering"
    DISCARDING = "discarding"
    DONE = "done"
    LINGERING = "lingering"
    CLOSED = "closed"


class Signal(Enum):
    __hash__ = object.__hash__

    BYTES = "bytes of a head"
    REQUEST = "a head with a body to come"
    WHOLE_REQUEST = "a head without a body"
    END = "the body's end"
    ANSWERED = "the answer's end"
    NEXT = "the next exchange"
    HOLD = "newer code is on its way"
    RELEASE = "it did not come up"
    REFUSED = "an error answer was sent"
    CLOSED = "the transport closes"


# For the hot path: a member of an Enum by its class is a slow look-up on Python 3.11.
IDLE: Final = State.IDLE
HELD: Final = State.HELD
HEAD: Final = State.HEAD
RECEIVING: Final = State.RECEIVING
ANSWERING: Final = State.ANSWERING
DISCARDING: Final = State.DISCARDING
DONE: Final = State.DONE
LINGERING: Final = State.LINGERING
CLOSED: Final = State.CLOSED
G = Signal
LIFE: Final[dict[tuple[State, Signal], State]] = {
    (IDLE, G.BYTES): HEAD,
    (IDLE, G.REQUEST): RECEIVING,
    (IDLE, G.WHOLE_REQUEST): ANSWERING,
    (IDLE, G.HOLD): HELD,
    (HELD, G.RELEASE): IDLE,
    # A TLS transport that is told not to read may still give what it has decrypted.
    (HELD, G.BYTES): HEAD,
    (HELD, G.REQUEST): RECEIVING,
    (HELD, G.WHOLE_REQUEST): ANSWERING,
    (HELD, G.REFUSED): LINGERING,
    (HEAD, G.REQUEST): RECEIVING,
    (HEAD, G.WHOLE_REQUEST): ANSWERING,
    (RECEIVING, G.END): ANSWERING,
    (RECEIVING, G.ANSWERED): DISCARDING,
    (ANSWERING, G.ANSWERED): DONE,
    (DISCARDING, G.END): DONE,
    (DONE, G.NEXT): IDLE,
    (IDLE, G.REFUSED): LINGERING,
    (HEAD, G.REFUSED): LINGERING,
    (DONE, G.REFUSED): LINGERING,
    (DISCARDING, G.REFUSED): LINGERING,
    **{(state, G.CLOSED): CLOSED for state in State},
}


def on(signal: Signal) -> dict[State, State]:
    """What the table says of one signal: for the hot path, which spares the pair."""
    return {state: after for (state, one), after in LIFE.items() if one is signal}


ON_WHOLE_REQUEST, ON_REQUEST, ON_ANSWERED, ON_NEXT = map(on, (G.WHOLE_REQUEST, G.REQUEST, G.ANSWERED, G.NEXT))
