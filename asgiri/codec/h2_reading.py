"""The receiving side of the native HTTP/2 engine (RFC 9113), which h2_native.py completes with the sending one.

Where the client's bytes are:

    PREFACE   the 24 octets of section 3.4          SETTINGS  the frame that must follow them
    FRAMES    between frames                        BLOCK     within a header block: only CONTINUATION may come
    CLOSED    nothing is parsed any more: a connection error, or the peer's end

    PREFACE --all of it--> SETTINGS --SETTINGS--> FRAMES --HEADERS without END_HEADERS--> BLOCK --END_HEADERS--> FRAMES
    A connection error and the end of file lead to CLOSED from anywhere.

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

What makes it quick: a header block that was decoded to a request is known, as long as the dynamic table does not
change; so is one that differs from the last in its :path alone.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from enum import Enum

from asgiri.codec import h2_rules
from asgiri.codec.events import Body, End, Event, Failure, GoAway, PingAck, Refused, Request, Reset
from asgiri.codec.h2_budget import MOST_UNREAD, Budget, Kind, check_block
from asgiri.codec.h2_rules import FIELD_COST
from asgiri.codec.h2_sending import Outgoing, Sender
from asgiri.codec.h2_wire import (
    ACK,
    DEFAULT_TABLE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENDLESS,
    HEAD_SIZE,
    LEAST_FRAME,
    MOST_FRAME,
    MOST_STREAM_ID,
    MOST_WINDOW,
    PADDED,
    PREFACE,
    PRIORITY,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Http2Options,
    Setting,
    StreamFault,
    frame,
    goaway,
    rst_stream,
    settings_frame,
    window_update,
)
from asgiri.codec.hpack_decode import HpackDecoder, huffman_decoded
from asgiri.errors import RemoteProtocolError
from asgiri.types import Headers

unpack_head = struct.Struct(">IBI").unpack_from
unpack_u32 = struct.Struct(">I").unpack_from
iter_settings = struct.Struct(">HI").iter_unpack

# For the hot path: plain numbers, for a member of an Enum by its class is a slow look-up on Python 3.11.
DATA, HEADERS, CONTINUATION = int(FrameType.DATA), int(FrameType.HEADERS), int(FrameType.CONTINUATION)
RESERVED = 0x7FFFFFFF  # without the reserved bit (RFC 9113 section 4.1)

# How many of the streams that we have reset are known, and how many gaps between stream identifiers.
MOST_RESET = 1024
MOST_GAPS = 16
# How many priorities of streams that are still to come are kept (RFC 9218 section 7).
MOST_PRIORITIES = 64
# How many header blocks are known, and how long they are, in bytes: each connection has some.
MOST_BLOCKS = 64
LONG_BLOCK = 512


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


AT_PREFACE, AT_SETTINGS, AT_FRAMES, AT_BLOCK, CLOSED = Phase
OPEN, DEAF, WHOLE = Input
NONE, BODY, DONE = Output


class Stream(Outgoing):
    """One exchange. What most requests never touch is of the class until it is set."""

    input = WHOLE
    output = NONE
    told = True  # a Request event was
    silent = False  # the answer has no content
    tunnel = False  # an extended CONNECT
    room = 0  # bytes of DATA that the peer may still send
    unread = 0  # bytes of the body that nobody has taken yet
    credit = 0  # bytes that were taken, and for which there was no WINDOW_UPDATE yet
    size = 0  # bytes of body so far
    left: int | None = None  # bytes that the request's Content-Length still promises


# A request that a header block makes: method, target, path, query, headers, priority.
Known = tuple[str, bytes, bytes, bytes, Headers, tuple[int, bool] | None]


# String literals of :path in origin-form -> target, path, query; with MOST_TARGETS of them it begins anew.
TARGETS: dict[bytes, tuple[bytes, bytes, bytes]] = {}
MOST_TARGETS = 4096
LONG_TARGET = 96
NO_TARGET = (b"", b"", b"")


def target_of(literal: bytes) -> tuple[bytes, bytes, bytes]:
    """Target, path and query of a string literal of less than 127 bytes; NO_TARGET when it is not that plain."""
    if not literal or len(literal) > 0x7F or literal[0] & 0x7F != len(literal) - 1:
        return NO_TARGET
    target = literal[1:]
    if literal[0] & 0x80:
        target = huffman_decoded(target)
    if not target.startswith(b"/") or h2_rules.PATH.fullmatch(target) is None:
        return NO_TARGET
    path, _, query = target.partition(b"?")
    if len(literal) <= LONG_TARGET:
        if len(TARGETS) >= MOST_TARGETS:
            TARGETS.clear()
        TARGETS[literal] = target, path, query
    return target, path, query


class FrameReader:
    """What the client has sent, and the state of its streams. See contract.Http2Codec."""

    __slots__ = (
        "_blocks",
        "_body_limit",
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
        "_last",
        "_last_over",
        "_least_bomb",
        "_limits",
        "_most_streams",
        "_most_word",
        "_open_blocks",
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
        "_template",
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
        self._rest = b""  # of a frame, or of the preface, that is not all here
        self._events: list[Event] = []
        # The header block in progress: its stream, the flags of its HEADERS frame, and its pieces.
        self._stream_id = 0
        self._flags = 0
        self._fields: bytearray = bytearray()
        self._continuations = 0
        self._decoder = HpackDecoder()
        self._least_bomb = options.most_decoded // (DEFAULT_TABLE + FIELD_COST)  # bytes; no shorter block is one
        self._blocks: dict[bytes, Known] = {}  # of requests without a body
        self._open_blocks: dict[bytes, tuple[Request, int | None, tuple[int, bool]]] = {}  # of others, and their length
        self._template: tuple[bytes, bytes, int, Known] | None = None  # such a block, before and behind its :path
        self._changes = 0  # of the dynamic table, for which these two hold
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

    # Bytes in

    def receive(self, data: bytes) -> list[Event]:
        if self._phase is CLOSED:
            return []
        if not data:
            return self._end_of_file()
        if self._rest:
            data = self._rest + data
        events: list[Event] = []
        self._events = events
        try:
            if self._unread > MOST_UNREAD:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the peer does not read what it calls for")
            at = self._read_preface(data) if self._phase is AT_PREFACE else 0
            if at >= 0:
                at = self._read_frames(data, at)
                self._rest = data[at:]
            else:
                self._rest = data
        except ConnectionFault as fault:
            self._fail(fault)
        return events

    def _end_of_file(self) -> list[Event]:
        """Requests that are whole are still answered."""
        self._close()
        events: list[Event] = []
        for stream in [stream for stream in self._streams.values() if stream.input is not WHOLE]:
            if stream.input is OPEN:
                reason = "the peer went away before the end of the request body"
                events.append(Reset(stream.stream_id, reason, ErrorCode.CANCEL))
            self._forget(stream)
        return events

    def _fail(self, fault: ConnectionFault) -> None:
        self._close()
        self._out.append(goaway(self.last_stream_id, fault.code))
        self._events.append(Failure(0, fault.reason, fault.code))
        for stream in list(self._streams.values()):
            self._forget(stream)

    def _close(self) -> None:
        self._phase = CLOSED
        self._rest = b""
        self._fields = bytearray()
        self._forget_blocks()

    def _read_preface(self, data: bytes) -> int:
        """Where the first frame begins; -1 when the preface is not all here (RFC 9113 section 3.4)."""
        if not data.startswith(PREFACE):
            if not PREFACE.startswith(data):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the client's preface is malformed")
            return -1
        self._phase = AT_SETTINGS
        return len(PREFACE)

    def _read_frames(self, data: bytes, at: int) -> int:
        """Go through the frames that are here; where the first that is not whole begins."""
        last = len(data) - HEAD_SIZE
        most_word = self._most_word
        known = self._blocks
        events = self._events
        while at <= last:
            word, flags, stream_id = unpack_head(data, at)
            if word > most_word:  # RFC 9113 section 4.2
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than its setting")
            begin = at + HEAD_SIZE
            end = begin + (word >> 8)
            if end > last + HEAD_SIZE:
                break
            kind = word & 0xFF
            stream_id &= RESERVED
            if self._phase is not AT_FRAMES:
                self._check_phase(kind, flags, stream_id)
            if kind == HEADERS:
                if flags == END_HEADERS | END_STREAM:  # all of a request without a body, most often
                    block = data[begin:end]
                    parts = known.get(block) or (self._from_template(block) if self._template else None)
                    if parts is not None and self._begin_known(stream_id):
                        method, target, path, query, headers, priority = parts
                        stream = self._streams[stream_id] = Stream(stream_id, self._sender.initial_window)
                        if method == "HEAD":
                            stream.silent = True
                        if priority is not None:
                            stream.urgency, stream.incremental = priority
                        events.append(Request(stream_id, method, target, path, query, headers.copy(), "2", True))
                    else:
                        self._check_begin(stream_id)
                        self._take_block(stream_id, True, block)
                elif flags != END_HEADERS or not self._take_open(stream_id, data[begin:end]):
                    self._headers(flags, stream_id, data, begin, end)
            elif kind == DATA:
                self._data(flags, stream_id, data, begin, end)
            else:
                handler = HANDLERS.get(kind)
                if handler is None:  # RFC 9113 section 5.5
                    self._budget.draw(Kind.STRAY)
                else:
                    handler(self, flags, stream_id, data[begin:end])
            at = end
        return at

    def _check_phase(self, kind: int, flags: int, stream_id: int) -> None:
        """Whether the frame may come here (RFC 9113 sections 3.4 and 6.10)."""
        if self._phase is AT_BLOCK:
            if kind != CONTINUATION or stream_id != self._stream_id:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is not continued")
        else:
            if kind != FrameType.SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the client's preface has no SETTINGS frame")
            self._phase = AT_FRAMES

    # Header blocks

    def _headers(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        """HEADERS (RFC 9113 section 6.2), whatever its flags. The priority in it is ignored (section 5.3.2)."""
        self._check_begin(stream_id)
        padding = 0
        if flags & PADDED:
            if begin == end:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
            padding = data[begin]
            begin += 1
        if flags & PRIORITY:
            begin += 5
            if begin > end:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
        end -= padding
        if begin > end:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        if flags & END_HEADERS:
            self._take_block(stream_id, bool(flags & END_STREAM), data[begin:end])
            return
        self._phase = AT_BLOCK
        self._stream_id = stream_id
        self._flags = flags
        self._continuations = 0
        self._fields = bytearray(data[begin:end])

    def _continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9113 section 6.10."""
        if self._phase is not AT_BLOCK:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame continues nothing")
        self._fields += payload
        self._continuations += 1
        check_block(len(self._fields), self._continuations, self._options.most_block)
        if flags & END_HEADERS:
            block = bytes(self._fields)
            self._fields = bytearray()
            self._phase = AT_FRAMES
            self._take_block(stream_id, bool(self._flags & END_STREAM), block)

    def _check_begin(self, stream_id: int) -> None:
        """Whether a header block may begin on the stream at all (RFC 9113 sections 5.1 and 5.1.1)."""
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a request is on a stream that cannot be the client's")
        if stream_id <= self._last and stream_id not in self._streams and stream_id not in self._reset:
            if any(stream_id in gap for gap in self._gaps):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a request is on a stream below an earlier one")
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "a header block is on a stream that is over")

    def _begin(self, stream_id: int) -> bool:
        """Count a new stream; whether there is a place for it. It is not idle any more in either case."""
        if stream_id != self._last + 2 and stream_id > 1:
            gap = range(self._last + 2 if self._last else 1, stream_id, 2)
            self._gaps = [*self._gaps[-MOST_GAPS:], gap]
        self._last = stream_id
        if stream_id > self._refuse_above or len(self._streams) + self._ended >= self._most_streams:
            # RFC 9113 sections 5.1.2 and 6.8. It may be tried again, so it is no reason to end the connection.
            self._reset_stream(stream_id, ErrorCode.REFUSED_STREAM)
            return False
        return True

    def _begin_known(self, stream_id: int) -> bool:
        """The plain case of :meth:`_begin`: whether it was that one."""
        if (
            stream_id != self._last + 2
            or self._priorities
            or stream_id > self._refuse_above
            or len(self._streams) + self._ended >= self._most_streams
        ):
            return False
        self._last = stream_id
        return True

    def _take_block(self, stream_id: int, end_stream: bool, block: bytes) -> None:
        """A header block that is whole. It is decoded in any case, for the sake of those that follow."""
        check_block(len(block), 0, self._options.most_block)
        decoder = self._decoder
        fields = decoder.decode(block)
        steady = decoder.changes == self._changes
        if not steady:
            self._changes = decoder.changes
            self._forget_blocks()
        if len(block) > self._least_bomb and h2_rules.list_size(fields) > self._options.most_decoded:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header list is far too large")
        try:
            if stream_id > self._last:
                if self._begin(stream_id):
                    self._take_request(stream_id, end_stream, fields, block if steady else None)
            else:
                stream = self._streams.get(stream_id)
                if stream is None:  # we have reset it
                    self._budget.draw(Kind.STRAY)
                else:
                    self._take_trailers(stream, end_stream, fields)
        except StreamFault as fault:
            self._break(stream_id, fault)

    def _take_request(self, stream_id: int, end_stream: bool, fields: Headers, block: bytes | None) -> None:
        """``block`` is what the fields were decoded from, when it means the same next time."""
        stream = Stream(stream_id, self._sender.initial_window)
        try:
            request = h2_rules.request_of(stream_id, fields, end_stream, self._options)
        except RemoteProtocolError as error:
            if (b":method", b"HEAD") in fields:
                stream.silent = True
            self._open(stream, end_stream)
            self._refuse(stream, error)
            return
        priority = self._priorities.pop(stream_id, None) or h2_rules.priority_in(request.headers)
        stream.urgency, stream.incremental = priority
        stream.silent = request.method == "HEAD"
        stream.tunnel = bool(request.protocol)
        if not stream.tunnel:
            if not end_stream:
                stream.left = h2_rules.body_length(request)
            if block is not None and len(block) <= LONG_BLOCK:
                if end_stream:
                    self._remember(block, request, priority, h2_rules.list_size(fields))
                else:
                    self._remember_open(block, request, priority, stream.left)
        self._open(stream, end_stream)
        self._events.append(request)

    def _open(self, stream: Stream, end_stream: bool) -> None:
        if not end_stream:
            stream.input = OPEN
            stream.room = self._first_window
        self._streams[stream.stream_id] = stream

    def _refuse(self, stream: Stream, error: RemoteProtocolError) -> None:
        """Answer it, and be deaf to what still comes of its body."""
        if stream.input is OPEN:
            stream.input = DEAF
        self._events.append(Refused(stream.stream_id, error.status, error.reason))

    def _take_trailers(self, stream: Stream, end_stream: bool, fields: Headers) -> None:
        """RFC 9113 section 8.1."""
        if stream.input is WHOLE:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "a header block is behind the end of its request")
        if not end_stream or stream.tunnel:  # section 8.5: nothing but DATA is in a tunnel
            raise h2_rules.malformed("the trailers do not end the request")
        if stream.input is DEAF:
            stream.input = WHOLE
            return
        try:
            trailers = h2_rules.trailers_of(fields, self._options)
        except RemoteProtocolError as error:
            self._refuse(stream, error)
            stream.input = WHOLE
            return
        self._end_input(stream, trailers)

    def _end_input(self, stream: Stream, trailers: Headers) -> None:
        if stream.left:
            raise h2_rules.malformed("the request body is shorter than its Content-Length")
        stream.input = WHOLE
        self._events.append(End(stream.stream_id, trailers))
        if stream.output is DONE and not stream.held:  # the other half of a tunnel
            self._forget(stream)

    # What is known of header blocks

    def _remember(self, block: bytes, request: Request, priority: tuple[int, bool], size: int) -> None:
        """The block means this request, as long as the dynamic table does not change. ``size`` is its list's."""
        known = (
            request.method,
            request.target,
            request.path,
            request.query,
            request.headers.copy(),
            None if priority == h2_rules.NO_PRIORITY else priority,
        )
        begin = self._decoder.path_at
        if begin and block[begin] & 0x7F < 0x7F:
            # Only a target for which no limit must be looked at is taken for another.
            limits = self._limits
            most = min(
                (limits.request_line or ENDLESS) - len(request.method),
                min(limits.header_size or ENDLESS, self._options.header_list) - size + len(request.target),
            )
            behind = begin + 1 + (block[begin] & 0x7F)
            self._template = block[:begin], block[behind:], most, known
        else:
            if len(self._blocks) >= MOST_BLOCKS:
                self._blocks.clear()
            self._blocks[block] = known

    def _remember_open(self, block: bytes, request: Request, priority: tuple[int, bool], length: int | None) -> None:
        """The same for a request with a body."""
        known = replace(request, headers=request.headers.copy())  # the application may change its own
        if len(self._open_blocks) >= MOST_BLOCKS:
            self._open_blocks.clear()
        self._open_blocks[block] = known, length, priority

    def _forget_blocks(self) -> None:
        self._blocks.clear()
        self._open_blocks.clear()
        self._template = None

    def _take_open(self, stream_id: int, block: bytes) -> bool:
        """Begin a request with a body; whether its block was known."""
        known = self._open_blocks.get(block)
        if known is None or not self._begin_known(stream_id):
            return False
        request, length, priority = known
        stream = self._streams[stream_id] = Stream(stream_id, self._sender.initial_window)
        stream.urgency, stream.incremental = priority
        stream.silent = request.method == "HEAD"
        stream.input = OPEN
        stream.room = self._first_window
        stream.left = length
        self._events.append(
            Request(
                stream_id,
                request.method,
                request.target,
                request.path,
                request.query,
                request.headers.copy(),
                "2",
                False,
                request.expect_continue,
            )
        )
        return True

    def _from_template(self, block: bytes) -> Known | None:
        """The request of a block that differs from the last in its :path alone; None when it is not that plain."""
        assert self._template is not None
        before, behind, most, (method, _, _, _, headers, priority) = self._template
        if not block.startswith(before) or not block.endswith(behind):
            return None
        literal = block[len(before) : len(block) - len(behind)]
        target, path, query = TARGETS.get(literal) or target_of(literal)
        if not target or len(target) > most:
            return None
        return method, target, path, query, headers, priority

    # DATA

    def _data(self, flags: int, stream_id: int, data: bytes, begin: int, end: int) -> None:
        """RFC 9113 section 6.1. Padding counts against the windows, and is credited at once (section 6.9.1)."""
        size = end - begin
        if flags & PADDED:
            if not size:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a DATA frame is too short")
            end -= data[begin]
            begin += 1
            if begin > end:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than its frame")
        stream = self._streams.get(stream_id)
        if stream is None and stream_id not in self._reset:
            if self._is_idle(stream_id):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA is on a stream that was not begun")
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA is on a stream that is over")
        self._room -= size
        if self._room < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA is beyond the connection's window")
        if flags & END_STREAM == 0:
            self._budget.data(end - begin, False)
        try:
            if stream is None:  # we have reset it
                self._add_credit(size)
            elif stream.input is OPEN:
                self._take_body(stream, size, data[begin:end], flags & END_STREAM)
            else:
                self._add_credit(size)
                if stream.input is WHOLE:
                    raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA is behind the end of its request")
                self._ignore_body(stream, size, flags & END_STREAM)
        except StreamFault as fault:
            self._break(stream_id, fault)

    def _take_body(self, stream: Stream, size: int, content: bytes, end_stream: int) -> None:
        """``size`` is that of the whole frame."""
        stream.room -= size
        length = len(content)
        stream.unread += length
        if size != length:
            self._add_credit(size - length)
        if stream.room < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA is beyond the stream's window")
        if size != length:
            self._add_stream_credit(stream, size - length)
        if length:
            if stream.left is not None:
                stream.left -= length
                if stream.left < 0:
                    raise h2_rules.malformed("the request body is longer than its Content-Length")
            stream.size += length
            if 0 < self._limits.body_size < stream.size and not stream.tunnel:
                self._add_credit(stream.unread)
                stream.unread = 0
                self._refuse(stream, RemoteProtocolError("the request body is too large", 413))
                if end_stream:
                    stream.input = WHOLE
                return
            self._events.append(Body(stream.stream_id, content))
        if end_stream:
            self._end_input(stream, [])

    def _ignore_body(self, stream: Stream, size: int, end_stream: int) -> None:
        """DATA of a stream that was refused: its window stays as it is, so that it ends some time."""
        stream.room -= size
        if stream.room < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "DATA is beyond the stream's window")
        if end_stream:
            stream.input = WHOLE

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
        if stream.told:
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
            if stream.told:
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


HANDLERS = {
    int(FrameType.PRIORITY): FrameReader._priority,
    int(FrameType.RST_STREAM): FrameReader._rst_stream,
    int(FrameType.SETTINGS): FrameReader._settings,
    int(FrameType.PUSH_PROMISE): FrameReader._push_promise,
    int(FrameType.PING): FrameReader._ping,
    int(FrameType.GOAWAY): FrameReader._goaway,
    int(FrameType.WINDOW_UPDATE): FrameReader._window_update,
    int(FrameType.CONTINUATION): FrameReader._continuation,
    int(FrameType.PRIORITY_UPDATE): FrameReader._priority_update,
}
