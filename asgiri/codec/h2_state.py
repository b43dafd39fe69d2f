"""The state of a connection for the native HTTP/2 engine: its windows, its streams, and the frames that change them.

Where a stream is (section 5.1) are two machines, of its request and of its answer:

    Input   OPEN     the body is to come             DEAF   it comes, and nobody is told of it (the stream is refused)
            WHOLE    the request is complete
    Output  NONE     nothing is sent                 BODY   the head is
            DONE     the application has given all of it; some may be held

            DATA or trailers with END_STREAM    a refusal        send_head   end_stream    the last byte is out
    Input   OPEN, DEAF -> WHOLE                 OPEN -> DEAF     -           -             -
    Output  -                                   -                -> BODY     -> DONE       see below

    A stream whose answer is out is over when its request is WHOLE. When it is not, RST_STREAM(NO_ERROR) tells the peer
    that the rest need not be sent (section 8.1), and the stream is over too; but a tunnel (extended CONNECT) stays,
    half-closed. A stream that is over is forgotten. Only of those that we have reset a number is known, to ignore what
    was on its way (section 5.1).
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Final

from asgiri.codec import h2_rules
from asgiri.codec.events import Event, GoAway, PingAck, Reset
from asgiri.codec.h2_budget import Budget, Kind
from asgiri.codec.h2_known import KnownBlocks
from asgiri.codec.h2_rules import FIELD_COST
from asgiri.codec.h2_sending import Outgoing, Sender
from asgiri.codec.h2_wire import (
    ACK,
    DEFAULT_TABLE,
    DEFAULT_WINDOW,
    LEAST_FRAME,
    MOST_FRAME,
    MOST_STREAM_ID,
    MOST_WINDOW,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Http2Options,
    Setting,
    StreamFault,
    frame,
    rst_stream,
    settings_frame,
    window_update,
)
from asgiri.codec.hpack_decode import HpackDecoder

unpack_head = struct.Struct(">IBI").unpack_from
unpack_u32 = struct.Struct(">I").unpack_from
iter_settings = struct.Struct(">HI").iter_unpack


RESERVED: Final = 0x7FFFFFFF  # without the reserved bit (RFC 9113 section 4.1)
NO_EVENTS: Final[list[Event]] = []

# How many of the streams that we have reset are known.
MOST_RESET: Final = 1024
# How many priorities of streams that are still to come are kept (RFC 9218 section 7).
MOST_PRIORITIES: Final = 64


class Phase(Enum):
    PREFACE = "preface"
    SETTINGS = "settings"
    FRAMES = "frames"
    BLOCK = "block"
    CLOSED = "closed"


class Input(Enum):
    OPEN = "open"
    DEAF = "deaf"
    WHOLE = "whole"


class Output(Enum):
    NONE = "none"
    BODY = "body"
    DONE = "done"


AT_PREFACE: Final = Phase.PREFACE
AT_SETTINGS: Final = Phase.SETTINGS
AT_FRAMES: Final = Phase.FRAMES
AT_BLOCK: Final = Phase.BLOCK
CLOSED: Final = Phase.CLOSED
OPEN: Final = Input.OPEN
DEAF: Final = Input.DEAF
WHOLE: Final = Input.WHOLE
NONE: Final = Output.NONE
BODY: Final = Output.BODY
DONE: Final = Output.DONE


class Stream(Outgoing):
    """One exchange. What most requests never touch is of the class until it is set."""

    input = WHOLE
    output = NONE
    silent = False  # the answer has no content
    tunnel = False  # an extended CONNECT
    room = 0  # bytes of DATA that the peer may still send
    unread = 0  # bytes of the body that nobody has taken yet
    credit = 0  # bytes that were taken, and for which there was no WINDOW_UPDATE yet
    size = 0  # bytes of body so far
    left: int | None = None  # bytes that the request's Content-Length still promises


class ConnectionState:
    """What both sides of the engine share, and what frames other than HEADERS and DATA do to it."""

    __slots__ = (
        "_budget",
        "_changes",
        "_continuations",
        "_credit",
        "_decoder",
        "_ended",
        "_events",
        "_fields",
        "_first_window",
        "_flags",
        "_gaps",
        "_known",
        "_last",
        "_last_over",
        "_least_bomb",
        "_limits",
        "_missing",
        "_more",
        "_most_streams",
        "_most_word",
        "_options",
        "_out",
        "_phase",
        "_pings",
        "_priorities",
        "_refuse_above",
        "_reset",
        "_rest",
        "_room",
        "_sender",
        "_stream_id",
        "_streams",
        "_table",
        "_unread",
        "_update_table",
        "_worth_credit",
        "_worth_stream_credit",
    )

    def __init__(self, options: Http2Options) -> None:
        self._options = options
        self._limits = options.limits
        self._most_streams = options.max_concurrent_streams
        self._most_word = options.max_frame_size << 8 | 0xFF
        self._phase = AT_PREFACE
        self._rest = b""  # the beginning of a frame, or of the preface, that is not all here
        self._more = bytearray()  # what has come behind it
        self._missing = 1  # bytes that are to come before it is worth a look
        self._events = NO_EVENTS  # of the bytes that are being read
        # The header block in progress: its stream, the flags of its HEADERS frame, and its pieces.
        self._stream_id = 0
        self._flags = 0
        self._fields: bytearray = bytearray()
        self._continuations = 0
        self._decoder = HpackDecoder()
        self._least_bomb = options.most_decoded // (DEFAULT_TABLE + FIELD_COST)  # bytes; no shorter block is one
        self._known = KnownBlocks(options)
        self._changes = 0  # of the dynamic table, for which they are known
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the highest stream that the peer has begun
        self._gaps: list[range] = []  # streams below it that it never began
        self._reset: dict[int, None] = {}  # streams that we have reset, the oldest first
        self._refuse_above = MOST_STREAM_ID
        self._ended = 0  # answers that are complete and not taken: the peer cannot know yet that their streams are over
        self._last_over: Stream | None = None
        self._priorities: dict[int, tuple[int, bool]] = {}
        self._pings = 0  # of ours that were not answered yet
        self._budget = Budget()
        self._sender = Sender(self._budget)
        self._table = DEFAULT_TABLE  # of the peer, the last that it said
        self._update_table = False  # the next block must begin with the new size of a table that we do not use
        # Until the peer has acknowledged our SETTINGS it may know the default alone (RFC 9113 section 6.9.2).
        self._first_window = max(options.initial_window, DEFAULT_WINDOW)
        self._room = options.connection_window  # bytes of DATA that the peer may still send
        self._credit = 0  # bytes that were taken, and for which there was no WINDOW_UPDATE yet
        # One WINDOW_UPDATE for half a window is early enough for a peer to go on, and seldom enough.
        self._worth_credit = self._room >> 1
        self._worth_stream_credit = max(1, options.initial_window >> 1)
        self._unread = 0  # bytes of frames but DATA and HEADERS that were not taken
        self._out: list[bytes | memoryview] = [settings_frame(options.settings())]
        if self._room > DEFAULT_WINDOW:
            self._out.append(window_update(0, self._room - DEFAULT_WINDOW))

    @property
    def last_stream_id(self) -> int:
        return min(self._last, self._refuse_above)

    def _close(self) -> None:
        self._phase = CLOSED
        self._rest = b""
        self._more.clear()
        self._fields = bytearray()
        self._known.forget()

    # Credit for what has come

    def _add_credit(self, size: int) -> None:
        """The connection may bring ``size`` bytes more."""
        self._credit += size
        if self._credit >= self._worth_credit and self._phase is not CLOSED:
            self._control(window_update(0, self._credit))
            self._room += self._credit
            self._credit = 0

    def _add_stream_credit(self, stream: Stream, size: int) -> None:
        stream.credit += size
        if stream.credit >= self._worth_stream_credit and self._phase is not CLOSED:
            self._control(window_update(stream.stream_id, stream.credit))
            stream.room += stream.credit
            stream.credit = 0

    # The other frames

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self._last or not stream_id & 1

    def _priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.3: it has no effect any more, and may come on any stream."""
        del flags
        self._budget.draw(Kind.STRAY)
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a PRIORITY frame is on no stream")
        if len(payload) != 5:
            reason = "a PRIORITY frame has not its size"
            if stream_id not in self._streams:  # then it cannot be reset (section 5.1)
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, reason)
            self._break(stream_id, StreamFault(ErrorCode.FRAME_SIZE_ERROR, reason))

    def _rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.4."""
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an RST_STREAM frame has not its size")
        if self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "an RST_STREAM frame is on a stream that was not begun")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._budget.draw(Kind.STRAY)
            return
        self._forget(stream)
        self._events.append(Reset(stream_id, "the peer has reset the stream", unpack_u32(payload)[0]))
        self._budget.draw(Kind.RESET)

    def _settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.5."""
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a SETTINGS frame is on a stream")
        self._budget.draw(Kind.SETTINGS)
        if not flags & ACK:
            self._apply_settings(payload)
            self._control(frame(FrameType.SETTINGS, ACK, 0))
            return
        if payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement has a payload")
        excess = self._first_window - self._options.initial_window
        if excess:
            self._first_window -= excess
            for stream in self._streams.values():
                stream.room -= excess

    def _apply_settings(self, payload: bytes) -> None:
        """RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1. Raises ConnectionFault."""
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS frame has not its size")
        for name, value in iter_settings(payload):
            match name:
                case Setting.HEADER_TABLE_SIZE:
                    # RFC 9113 section 4.3.1: a reduction is answered, even of a table that we do not use.
                    self._update_table = self._update_table or value < self._table
                    self._table = value
                case Setting.INITIAL_WINDOW_SIZE:
                    if value > MOST_WINDOW:
                        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the initial window is too large")
                    self._sender.resize(value, self._streams.values())
                case Setting.MAX_FRAME_SIZE:
                    if not LEAST_FRAME <= value <= MOST_FRAME:
                        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the maximum frame size is none")
                    self._sender.max_frame = value
                case Setting.ENABLE_PUSH | Setting.ENABLE_CONNECT_PROTOCOL | Setting.NO_RFC7540_PRIORITIES:
                    if value > 1:
                        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a setting is neither 0 nor 1")

    def _push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 8.4: a client cannot push."""
        del flags, stream_id, payload
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client has pushed")

    def _ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.7."""
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a PING frame is on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a PING frame has not its size")
        if flags & ACK and self._pings:
            self._pings -= 1
            self._events.append(PingAck(payload))
            return
        self._budget.draw(Kind.PING)
        if not flags & ACK:
            self._control(frame(FrameType.PING, ACK, 0, payload))

    def _goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.8."""
        del flags
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a GOAWAY frame is on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a GOAWAY frame is too short")
        self._budget.draw(Kind.STRAY)
        last, code = unpack_u32(payload)[0] & RESERVED, unpack_u32(payload, 4)[0]
        self._events.append(GoAway(code, last))

    def _window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.9."""
        del flags
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a WINDOW_UPDATE frame has not its size")
        self._budget.draw(Kind.WINDOW_UPDATE)
        size = unpack_u32(payload)[0] & RESERVED
        if not stream_id:
            if not size:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE frame grants nothing")
            self._sender.grant_all(size)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window is of a stream that was not begun")
            return
        try:
            if not size:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE frame grants nothing")
            self._sender.grant(stream, size)
        except StreamFault as fault:
            self._break(stream_id, fault)

    def _priority_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9218 section 7.1."""
        del flags
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a PRIORITY_UPDATE frame is on a stream")
        if len(payload) < 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a PRIORITY_UPDATE frame is too short")
        self._budget.draw(Kind.STRAY)
        prioritised = unpack_u32(payload)[0] & RESERVED
        if not prioritised:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a PRIORITY_UPDATE frame is of no stream")
        priority = h2_rules.priority_of(payload[4:])
        stream = self._streams.get(prioritised)
        if stream is not None:
            self._sender.prioritise(stream, *priority)
        elif prioritised > self._last and prioritised & 1:
            if len(self._priorities) >= MOST_PRIORITIES:
                del self._priorities[next(iter(self._priorities))]
            self._priorities[prioritised] = priority

    def _control(self, data: bytes) -> None:
        """Send a frame that the peer has called for; :meth:`receive` stops when it does not read what it calls for."""
        self._out.append(data)
        self._unread += len(data)

    # The end of a stream

    def _break(self, stream_id: int, fault: StreamFault) -> None:
        """The peer has broken a stream: it hears so, and so does who was told of the request."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._forget(stream)
            self._events.append(Reset(stream_id, fault.reason, fault.code))
        self._reset_stream(stream_id, fault.code)
        self._budget.draw(Kind.RESET)

    def _reset_stream(self, stream_id: int, code: int) -> None:
        """RST_STREAM, and ignore what is on its way (RFC 9113 section 5.1)."""
        known = self._reset
        known[stream_id] = None
        if len(known) > MOST_RESET:
            del known[next(iter(known))]
        self._control(rst_stream(stream_id, code))

    def _forget(self, stream: Stream) -> None:
        """The stream is over. Nobody reads what is left of its body."""
        del self._streams[stream.stream_id]
        if stream.pieces:
            self._sender.drop(stream)
        if stream.unread:
            self._add_credit(stream.unread)
            stream.unread = 0

    def _end_output(self, stream: Stream) -> None:
        """The answer's last byte is out."""
        self._budget.answers += 1
        self._last_over = stream
        if stream.input is WHOLE:
            self._ended += 1
            self._forget(stream)
        elif not stream.tunnel:
            self._ended += 1
            self._forget(stream)
            self._reset_stream(stream.stream_id, ErrorCode.NO_ERROR)
