"""What a peer may make us do for nothing, before it is told to calm down (RFC 9113 section 10.5).

Each kind of frame that costs the peer little and gives it nothing has a bucket. It fills up with the time that
:meth:`Budget.tick` tells, and with honest work, so that no honest connection ever empties it, however long it lives:
who has an answer may cancel another request, who gets DATA must send WINDOW_UPDATEs. An empty bucket ends the
connection with ENHANCE_YOUR_CALM. Buckets fill when they are next drawn from, so that work costs no more than a count.

Streams over SETTINGS_MAX_CONCURRENT_STREAMS draw nothing: they are refused, and never end the connection. What answers
a peer that does not read is bounded by MOST_UNREAD instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from asgiri.codec.h2_wire import ConnectionFault, ErrorCode

# Bytes of frames other than DATA that wait for a peer which makes us answer and does not read.
MOST_UNREAD: Final = 1 << 20

# CONTINUATION frames of one header block (CVE-2024-27316): so many, and one more for each so many bytes of it.
CONTINUATIONS: Final = 32
CONTINUATION_SIZE: Final = 256

# A DATA frame of so many bytes of content pays for itself; a smaller one draws the rest, a larger one gives back.
# Small messages of gRPC are larger than that but for the smallest.
SANE_DATA: Final = 32


class Kind(IntEnum):
    """What is counted."""

    RESET = 0  # by the peer (CVE-2023-44487), or by us because it broke the stream (CVE-2025-8671)
    PING = 1
    SETTINGS = 2
    WINDOW_UPDATE = 3
    STRAY = 4  # PRIORITY, PRIORITY_UPDATE, unknown frames, and frames of streams that are over
    EMPTY_DATA = 5  # without END_STREAM
    SMALL_DATA = 6  # in bytes: see SANE_DATA


@dataclass(frozen=True, slots=True)
class Terms:
    """How a bucket fills: at most ``most``; so much ``a_second``, by an answer that ended, by a DATA frame sent.

    An answer that goes out at once counts as one, whatever its frames.
    """

    most: int
    a_second: float
    by_answer: int = 0
    by_frame: int = 0
    what: str = ""


# Most: a browser leaves a page with all its streams (128 by our default) open, and does so again at once. Time: what
# several people at one browser, or a proxy's health checks, may do for ever.
TERMS: Final = {
    Kind.RESET: Terms(400, 20, by_answer=1, what="too many streams were reset"),
    Kind.PING: Terms(100, 10, by_answer=2, by_frame=1, what="too many PING frames have come"),
    Kind.SETTINGS: Terms(50, 1, what="too many SETTINGS frames have come"),
    Kind.WINDOW_UPDATE: Terms(1000, 100, by_answer=12, by_frame=8, what="too many WINDOW_UPDATE frames have come"),
    Kind.STRAY: Terms(1000, 100, by_answer=4, what="too many frames without a use have come"),
    Kind.EMPTY_DATA: Terms(100, 10, by_answer=1, what="too many empty DATA frames have come"),
    Kind.SMALL_DATA: Terms(
        256 << 10, 64 << 10, by_answer=2 * SANE_DATA, by_frame=SANE_DATA, what="too many small DATA frames have come"
    ),
}


class Bucket:
    __slots__ = ("answers", "frames", "left", "seconds", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.left = float(terms.most)
        self.seconds = 0.0  # these three: what it was filled up for already
        self.answers = 0
        self.frames = 0


class Budget:
    """All buckets of one connection. The counts only ever grow; what they are worth is in TERMS."""

    __slots__ = ("_buckets", "_seconds", "answers", "frames")

    def __init__(self) -> None:
        self._buckets: dict[Kind, Bucket] = {}  # made at first use: most connections never draw most of them
        self._seconds = 0.0
        self.answers = 0  # that were sent to their end
        self.frames = 0  # DATA frames of other answers that were worth one: the Sender counts them

    def tick(self, seconds: float) -> None:
        self._seconds += seconds

    def draw(self, kind: Kind, size: int = 1) -> None:
        """Take ``size`` out of a bucket, or put it back when it is negative.

        Raises ConnectionFault(ENHANCE_YOUR_CALM) when that is more than there is.
        """
        bucket = self._buckets.get(kind)
        if bucket is None:
            bucket = self._buckets[kind] = Bucket(TERMS[kind])
        terms = bucket.terms
        left = (
            bucket.left
            + (self._seconds - bucket.seconds) * terms.a_second
            + (self.answers - bucket.answers) * terms.by_answer
            + (self.frames - bucket.frames) * terms.by_frame
        )
        bucket.seconds = self._seconds
        bucket.answers = self.answers
        bucket.frames = self.frames
        left = min(left, terms.most) - size
        if left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, terms.what)
        bucket.left = min(left, terms.most)

    def data(self, size: int, end_stream: bool) -> None:
        """A DATA frame with ``size`` bytes of content has come (padding is none: CVE-2019-9518)."""
        if not end_stream:
            if not size:
                self.draw(Kind.EMPTY_DATA)
            elif size < SANE_DATA or Kind.SMALL_DATA in self._buckets:
                self.draw(Kind.SMALL_DATA, SANE_DATA - size)


def check_block(size: int, frames: int, most: int) -> None:
    """Refuse a header block that goes on: ``size`` bytes and ``frames`` CONTINUATION frames so far.

    Raises ConnectionFault(ENHANCE_YOUR_CALM), for a block that is given up cannot be decoded (RFC 9113 section 4.3).
    """
    if size > most:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too large")
    if frames > CONTINUATIONS + size // CONTINUATION_SIZE:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is in too many pieces")
