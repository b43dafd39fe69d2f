"""Answers that wait: whose DATA goes next, and how much of it (RFC 9113 section 5.2, RFC 9218).

An engine puts content here and asks for frames' worth of it. A stream stands in the queue of its urgency while it has
something to send and its window lets it:

    IDLE     nothing is held                        READY    it stands in a queue
    BLOCKED  held back until its window is worth a frame

             put or finish            all is out   window is spent   grant, resize, tick
    IDLE     READY, or BLOCKED        -            -                 IDLE
    READY    READY                    IDLE         BLOCKED           READY
    BLOCKED  BLOCKED                  -            -                 READY, once it is worth it
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final

from asgiri.codec.h2_budget import Budget
from asgiri.codec.h2_rules import NO_PRIORITY
from asgiri.codec.h2_wire import DEFAULT_WINDOW, LEAST_FRAME, MOST_WINDOW, ConnectionFault, ErrorCode, StreamFault
from asgiri.types import Headers

# A spent window is used again once it is worth a piece of so many bytes, lest a peer that opens it byte by byte makes
# a frame of each (CVE-2019-9511). But half of the peer's own first window is worth it, and after a second all is.
SANE_PIECE: Final = 1 << 10
# DATA frames of fewer bytes give no budget back (see h2_budget) unless the application has given no more.
WORTH_PIECE: Final = 512
URGENCIES: Final = 8

Piece = tuple["Outgoing", "bytes | memoryview", bool]


class Waits(Enum):
    IDLE = "idle"
    READY = "ready"
    BLOCKED = "blocked"


IDLE: Final = Waits.IDLE
READY: Final = Waits.READY
BLOCKED: Final = Waits.BLOCKED


class Outgoing:
    """The answer of one stream. Engines add to it what else they know of the stream."""

    # What most answers never touch is of the class until it is set.
    held = 0  # bytes of content that wait
    sent = 0  # bytes of content so far, held ones included
    pieces: deque[bytes] | None = None  # what is held, as the application gave it
    offset = 0  # bytes of the first piece that are out
    finished = False  # all of the answer's content is here
    trailers: Headers | None = None  # they end the answer, behind its content
    waits = IDLE
    urgency = NO_PRIORITY[0]
    incremental = NO_PRIORITY[1]

    def __init__(self, stream_id: int, window: int) -> None:
        self.stream_id = stream_id
        self.window = window  # bytes that the peer still takes; may be negative (RFC 9113 section 6.9.2)


class Sender:
    """The send windows of one connection, and the answers that wait for them."""

    __slots__ = (
        "_blocked",
        "_budget",
        "_levels",
        "_stalled",
        "held",
        "initial_window",
        "max_frame",
        "window",
    )

    def __init__(self, budget: Budget) -> None:
        self._budget = budget  # DATA frames that go out give back some of it
        self.window = DEFAULT_WINDOW  # of the connection
        self.initial_window = DEFAULT_WINDOW  # of a new stream
        self.max_frame = LEAST_FRAME  # of the peer
        self.held = 0  # bytes of content of all streams
        self._stalled = False  # the connection's window is spent, and not worth it yet
        # Of each urgency that was used: streams that take turns, and those that go one after the other.
        self._levels: list[Level | None] = [None] * URGENCIES
        self._blocked: dict[Outgoing, None] = {}

    # What the application sends

    def put(self, stream: Outgoing, data: bytes) -> None:
        """Hold content; it must not be empty, nor come behind :meth:`finish`."""
        if stream.pieces is None:
            stream.pieces = deque()
        stream.pieces.append(data)
        size = len(data)
        stream.sent += size
        stream.held += size
        self.held += size
        if stream.waits is IDLE:
            self._wait(stream)

    def finish(self, stream: Outgoing, trailers: Headers | None = None) -> bool:
        """No more content comes; whether the engine must end the stream itself, for nothing of it is held."""
        stream.finished = True
        stream.trailers = trailers
        return not stream.held

    def drop(self, stream: Outgoing) -> None:
        """Forget what is held: the stream is over."""
        self.held -= stream.held
        stream.held = 0
        stream.pieces = None
        self._leave(stream)

    # What the peer grants

    def grant(self, stream: Outgoing, size: int) -> None:
        """WINDOW_UPDATE for a stream. Raises StreamFault when its window overflows (RFC 9113 section 6.9.1)."""
        if stream.window + size > MOST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the window of a stream is too large")
        stream.window += size
        if stream.waits is BLOCKED:
            self._unblock(stream)

    def grant_all(self, size: int) -> None:
        """WINDOW_UPDATE for the connection. Raises ConnectionFault when its window overflows."""
        if self.window + size > MOST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window of the connection is too large")
        self.window += size
        if self._stalled and (self.window >= SANE_PIECE or self.window >= self.held):
            self._stalled = False

    def resize(self, size: int, streams: Iterable[Outgoing]) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE, which changes the windows of all ``streams`` too (RFC 9113 section 6.9.2).

        Raises ConnectionFault when one overflows.
        """
        difference = size - self.initial_window
        self.initial_window = size
        for stream in streams:
            if stream.window + difference > MOST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window of a stream is too large")
            stream.window += difference
            if stream.waits is BLOCKED:
                self._unblock(stream)

    def tick(self) -> None:
        """Some time has passed: what a window has left goes, however little; the peer may grant no more before it."""
        if self.window > 0:
            self._stalled = False
        for stream in [stream for stream in self._blocked if stream.window > 0]:
            self._move(stream, READY)

    def prioritise(self, stream: Outgoing, urgency: int, incremental: bool) -> None:
        """RFC 9218: lower urgency numbers first."""
        waits = stream.waits
        self._leave(stream)
        stream.urgency, stream.incremental = urgency, incremental
        self._move(stream, waits)

    # Questions

    def is_blocked(self, stream: Outgoing) -> bool:
        """Whether the stream holds bytes that only a WINDOW_UPDATE lets go."""
        return stream.held > 0 and (stream.waits is BLOCKED or self._stalled or self.window <= 0 or stream.window <= 0)

    def is_starved(self, stream: Outgoing) -> bool:
        """Whether the stream is blocked, and not by its own window."""
        return stream.held > 0 and stream.window > 0 and stream.waits is READY and (self._stalled or self.window <= 0)

    # What goes out

    def pieces(self, most: int) -> Iterator[Piece]:
        """Frames' worth of content, ``most`` bytes or one frame more: stream, content, and whether the stream ends.

        A stream whose trailers are to follow does not end with its content; it has ``finished``, and nothing ``held``.
        Streams may be dropped between two pieces.
        """
        if self._stalled:
            return
        for level in self._levels:
            if level is None:
                continue
            while most > 0:
                stream = level.next()
                if stream is None:
                    break
                size = min(stream.held, stream.window, self.window, self.max_frame)
                if size <= 0:
                    if self.window <= 0:
                        self._stalled = True
                        return
                    self._move(stream, BLOCKED)
                    continue
                most -= size
                yield stream, self._cut(stream, size), self._sent(stream, size)

    def _cut(self, stream: Outgoing, size: int) -> bytes | memoryview:
        """The next ``size`` bytes of what is held. A large piece is not copied."""
        held = stream.pieces
        assert held is not None
        first = held[0]
        offset = stream.offset
        left = len(first) - offset
        if left > size:
            stream.offset = offset + size
            return memoryview(first)[offset : offset + size]
        held.popleft()
        stream.offset = 0
        begun = memoryview(first)[offset:] if offset else first
        if left == size:
            return begun
        # Small pieces share a frame.
        parts = [begun]
        size -= left
        while size:
            piece = held[0]
            if len(piece) > size:
                parts.append(memoryview(piece)[:size])
                stream.offset = size
                break
            parts.append(held.popleft())
            size -= len(piece)
        return b"".join(parts)

    def _sent(self, stream: Outgoing, size: int) -> bool:
        """Count what goes out, and let the next one have its turn; whether the stream ends with it."""
        stream.window -= size
        stream.held -= size
        self.window -= size
        self.held -= size
        if not stream.held:
            self._budget.frames += 1
            self._leave(stream)
            return stream.finished and stream.trailers is None
        if size >= WORTH_PIECE:
            self._budget.frames += 1
        if stream.window <= 0:
            self._move(stream, BLOCKED)
        return False

    # Who stands where

    def _wait(self, stream: Outgoing) -> None:
        self._move(stream, READY if stream.window > 0 else BLOCKED)

    def _unblock(self, stream: Outgoing) -> None:
        enough = min(SANE_PIECE, max(1, self.initial_window // 2))
        if stream.window >= enough or stream.window >= stream.held:
            self._move(stream, READY)

    def _leave(self, stream: Outgoing) -> None:
        self._move(stream, IDLE)

    def _move(self, stream: Outgoing, waits: Waits) -> None:
        if stream.waits is waits:
            return
        if stream.waits is READY:
            level = self._levels[stream.urgency]
            assert level is not None
            level.remove(stream)
        elif stream.waits is BLOCKED:
            del self._blocked[stream]
        stream.waits = waits
        if waits is READY:
            level = self._levels[stream.urgency]
            if level is None:
                level = self._levels[stream.urgency] = Level()
            level.add(stream)
        elif waits is BLOCKED:
            self._blocked[stream] = None


class Level:
    """The streams of one urgency that can send. Who goes one after the other has, together, one turn of the round."""

    __slots__ = ("_line", "_line_is_next", "_turns")

    def __init__(self) -> None:
        self._turns: OrderedDict[Outgoing, None] = OrderedDict()
        self._line: OrderedDict[Outgoing, None] = OrderedDict()  # in the order of their requests (RFC 9218 section 10)
        self._line_is_next = True

    def add(self, stream: Outgoing) -> None:
        if stream.incremental:
            self._turns[stream] = None
            return
        line = self._line
        sort = bool(line) and next(reversed(line)).stream_id > stream.stream_id
        line[stream] = None
        if sort:
            self._line = OrderedDict.fromkeys(sorted(line, key=lambda stream: stream.stream_id))

    def remove(self, stream: Outgoing) -> None:
        del (self._turns if stream.incremental else self._line)[stream]

    def next(self) -> Outgoing | None:
        """Who sends the next frame; it goes to the end of the round."""
        turns, line = self._turns, self._line
        if line and (self._line_is_next or not turns):
            self._line_is_next = False
            return next(iter(line))
        if not turns:
            return None
        self._line_is_next = True
        stream = next(iter(turns))
        if len(turns) > 1:
            turns.move_to_end(stream)
        return stream
