"""How answers leave an HTTP/2 connection, and how it ends: a drain, deadlines, a peer that goes (RFC 9113 section 6.8).

Its life, states and signals and the tables of them, is in http2_life.py.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Final

from asgiri.codec.h2_wire import MOST_STREAM_ID, ErrorCode
from asgiri.proto.connection import LINGER_SECONDS, Connection, Shared
from asgiri.proto.http2_life import (
    CLOSED,
    FINISHING,
    HALF_CLOSED,
    HELD,
    LIFE,
    LINGERING,
    OPEN,
    WARNED,
    Signal,
    Stream,
)

if TYPE_CHECKING:
    from asgiri.proto.http2_stream import HTTP2StreamTransport
    from asgiri.proto.http2_upgrade import UpgradedBody

# What one write takes from the codec (bytes), before it is looked whether the transport still takes more.
WRITE_SIZE: Final = 256 << 10

# Once its acknowledgement is here, the peer has read the GOAWAY before it; until then what it began still comes.
# How long to wait for that, in seconds (RFC 9113 section 6.8: at least a round trip).
LAST_PING: Final = b"draining"
LAST_PING_SECONDS: Final = 1.0


class Http2Ends(Connection):
    """An HTTP/2 connection as far as what leaves it, and its end, are concerned; Http2Connection begins streams."""

    __slots__ = (
        "_due_since",
        "_head_since",
        "_since",
        "_state",
        "_ticked",
        "_upgrading",
        "codec",
        "due",
        "ended",
        "posted",
        "progress_at",
        "streams",
        "waiting",
    )

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        assert shared.http2 is not None
        self.codec = shared.http2(shared.http2_options)
        self._state = OPEN
        self._since = shared.now  # when the state came, or the last stream ended
        self._head_since: float | None = shared.now  # when the preface, or a header block, that is not whole began
        self._ticked = shared.now  # what time the codec knows of
        self._upgrading: UpgradedBody | None = None  # there until the client's preface is
        self.streams: dict[int, Stream] = {}  # those that are not over, or hold bytes of an answer
        self.ended: list[Stream] = []  # answers that are whole since the last flush, or hold bytes
        self.posted: list[HTTP2StreamTransport] = []  # tunnels that write before the next flush
        self.waiting: list[Stream] = []  # streams that want to hear that they hold less
        self.progress_at = shared.now  # when some answer that waits for a window was seen to get on
        self.due = False  # a flush will come in this turn of the loop, or at the beginning of the next one
        self._due_since = 0.0  # by perf_counter: since then, what is written waits

    def speaks(self) -> str:
        return "h2"

    def _move(self, signal: Signal) -> None:
        before, self._state = self._state, LIFE[self._state, signal]
        self._since = self.shared.now
        if before is HELD and self._state is not CLOSED and not self.transport.is_closing():
            self.transport.resume_reading()

    # Bytes out

    def flush_soon(self) -> None:
        """Write what the codec has, at the end of this turn of the loop."""
        if not self.due:
            self.due = True
            self._due_since = perf_counter()
            self.shared.loop.call_soon(self.flush)

    def answered(self) -> None:
        """An answer is whole. It leaves with others, unless their applications work for long.

        This may come in the middle of a turn, while requests that the codec has told of have not begun yet: bytes
        leave, but what else a flush does, such as to end behind the last stream, waits for the one that is due.
        """
        if not self.due:
            self.flush_soon()
        elif perf_counter() - self._due_since > self.shared.patience:
            if self._upgrading is None:
                self._write_out()
            self._due_since = perf_counter()

    def flush(self) -> None:
        """Write what the codec has, as far as the peer reads."""
        if self.posted:
            self.due = True  # what they write is a part of this one
            posted, self.posted = self.posted, []
            for tunnel in posted:
                tunnel.push()
        self.due = False
        state = self._state
        if state is LINGERING or state is CLOSED:
            return
        if self._upgrading is not None:
            if not self._upgrading.lets_out():
                return
            if self._upgrading.is_over:
                self._upgrading = None
        self._write_out()
        if self.ended:
            self._forget_ended()
        if self.waiting:
            self.waiting = [stream for stream in self.waiting if not stream.drained()]
        if not self.streams and (state is FINISHING or state is HALF_CLOSED):
            self._end()

    def _write_out(self) -> None:
        while self._writable is None:
            data = self.codec.take(WRITE_SIZE)
            if data:
                self.write(data)
            if len(data) < WRITE_SIZE:
                break

    def push(self) -> None:
        self.flush()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flush()

    def tell_when_drained(self, stream: Stream) -> None:
        """Tell the stream of each flush until it needs no more."""
        if stream not in self.waiting:
            self.waiting.append(stream)

    def _forget_ended(self) -> None:
        """Forget the streams whose answers are out."""
        ended, streams, codec = self.ended, self.streams, self.codec
        if not codec.holds:  # all of them, then
            for stream in ended:
                streams.pop(stream.number, None)
            ended.clear()
        else:
            held = []
            for stream in ended:
                if codec.held(stream.number):
                    held.append(stream)
                else:
                    streams.pop(stream.number, None)
            self.ended = held
        if not streams:
            self._since = self.shared.now
            self.shared.tell_idle(self)

    def forget(self, number: int) -> None:
        """Forget a stream that is over, and has nothing that waits."""
        self.streams.pop(number, None)
        if not self.streams and self._state is OPEN:
            self._since = self.shared.now
            self.shared.tell_idle(self)

    # Ends

    def begin_drain(self) -> None:
        """Say that the end is near, and refuse nothing yet (RFC 9113 section 6.8)."""
        if self._state is OPEN:
            self._move(Signal.WARNING)
            self.codec.go_away(MOST_STREAM_ID)
            self.codec.ping(LAST_PING)
            self.flush_soon()
        if self.shared.draining:
            for stream in list(self.streams.values()):
                stream.begin_drain()

    def _finish(self) -> None:
        """Serve no new stream from now on, and end with the last one that is open."""
        self._move(Signal.LAST)
        self.codec.go_away(None)
        self.flush_soon()

    def close_idle(self) -> None:
        if self._state is OPEN or self._state is WARNED:
            self._finish()
            if not self.streams:
                self._close()

    # Under reload

    def hold(self) -> None:
        if self._state is OPEN and not self.streams and self._upgrading is None and not self.transport.is_closing():
            self._move(Signal.HOLD)
            self.transport.pause_reading()

    def release(self) -> None:
        if self._state is HELD:
            self._move(Signal.RELEASE)
            if self._head_since is not None:
                self._head_since = self.shared.now  # the time that we did not read is not the peer's

    def retire(self) -> None:
        """What the peer has sent, and we have not read, is above the last stream of the GOAWAY: it may ask again."""
        if self._state in (OPEN, WARNED, HELD):
            self._finish()

    def turn_away(self, code: ErrorCode) -> None:
        """Hear nothing of the peer, and end; it is told why."""
        self._fail(code)

    def _fail(self, code: ErrorCode) -> None:
        """The peer cannot be heard any more: say why, and end."""
        self.codec.go_away(None, code)
        self._end()

    def _end(self) -> None:
        """End our side, and give the peer time to read what is out before what it still sends resets it."""
        self._lose_streams()
        if self._state is HALF_CLOSED or not (self.secure is not None or self.transport.can_write_eof()):
            self._close()
            return
        self._write_rest()
        self._move(Signal.ENDED)
        if self.secure is not None:  # TLS has no half to end, but the time is given
            return
        try:
            self.transport.write_eof()
        except OSError:  # ENOTCONN: the peer has reset the connection, and the loop does not know it yet
            self.abort()

    def _write_rest(self) -> None:
        """The last bytes: they are few, and whether the peer reads is for the transport to know."""
        data = self.codec.take()
        if data:
            if self._upgrading is not None:
                self._upgrading.switch()
            self.write(data)

    def _close(self) -> None:
        if self._state is not CLOSED:
            if self._state is not LINGERING:
                self._write_rest()
            self._move(Signal.CLOSED)
            self.transport.close()

    def abort(self) -> None:
        if self.streams or self.transport.get_write_buffer_size():
            self.reset_transport()
        super().abort()
        if self._state is not CLOSED:
            self._move(Signal.CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._state is not CLOSED:
            self._move(Signal.CLOSED)
        self._lose_streams()
        super().connection_lost(exc)

    def _lose_streams(self) -> None:
        for stream in list(self.streams.values()):
            stream.lost()
        self.streams.clear()
        self.ended.clear()
        self.posted.clear()
        self.waiting.clear()

    # Time

    def check(self, now: float) -> None:
        self.codec.tick(now - self._ticked)
        self._ticked = now
        if self.write_overdue(now):
            self.abort()
        elif self._state is LINGERING:
            if self.transport.get_write_buffer_size():
                self._since = now  # what went out is still on its way; ``timeouts.write`` watches over that
            elif now - self._since > LINGER_SECONDS:
                self.abort() if self.secure is None else self._close()
        elif self._state is not CLOSED:
            self._check_open(now)
            self.flush()

    def _check_open(self, now: float) -> None:
        times = self.shared.times
        if self._state is HELD and not self.streams:
            return
        if self._upgrading is not None and self._upgrading.is_served:
            self._head_since = now
        elif not self.codec.in_head:
            self._head_since = None
        elif self._head_since is not None and 0 < times.request_head < now - self._head_since:
            self._fail(ErrorCode.PROTOCOL_ERROR)
            return
        streams = list(self.streams.values())
        crowded = 2 * sum(stream.unread for stream in streams) > self.shared.http2_options.connection_window
        for stream in streams:
            stream.check(now, crowded)
        if self._state is WARNED and now - self._since > LAST_PING_SECONDS:
            self._finish()
        elif not self.streams and 0 < times.keep_alive < now - self._since and self._state is OPEN:
            self._finish()
            self._close()
