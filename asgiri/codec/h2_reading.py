"""The receiving side of the native HTTP/2 engine (RFC 9113), which h2_native.py completes with the sending one.

Where the client's bytes are:

    PREFACE   the 24 octets of section 3.4          SETTINGS  the frame that must follow them
    FRAMES    between frames                        BLOCK     within a header block: only CONTINUATION may come
    CLOSED    nothing is parsed any more: a connection error, or the peer's end

    PREFACE --all of it--> SETTINGS --SETTINGS--> FRAMES --HEADERS without END_HEADERS--> BLOCK --END_HEADERS--> FRAMES
    A connection error and the end of file lead to CLOSED from anywhere.

Header blocks are decoded in any case, for the sake of those that follow; those of many requests are known: h2_known.py.
"""

from __future__ import annotations

import struct
from typing import Final

from asgiri.codec import h2_rules
from asgiri.codec.events import Body, End, Event, Failure, Refused, Request, Reset
from asgiri.codec.h2_budget import MOST_UNREAD, Kind, check_block
from asgiri.codec.h2_state import (
    AT_BLOCK,
    AT_FRAMES,
    AT_PREFACE,
    AT_SETTINGS,
    CLOSED,
    DEAF,
    DONE,
    NO_EVENTS,
    OPEN,
    RESERVED,
    WHOLE,
    ConnectionState,
    Stream,
)
from asgiri.codec.h2_wire import (
    ACK,
    END_HEADERS,
    END_STREAM,
    HEAD_SIZE,
    PADDED,
    PREFACE,
    PRIORITY,
    ConnectionFault,
    ErrorCode,
    FrameType,
    StreamFault,
    goaway,
)
from asgiri.errors import RemoteProtocolError
from asgiri.types import Headers

unpack_head = struct.Struct(">IBI").unpack_from
unpack_u32 = struct.Struct(">I").unpack_from
iter_settings = struct.Struct(">HI").iter_unpack


# For the hot path: plain numbers, for a member of an Enum by its class is a slow look-up on Python 3.11.
DATA, HEADERS, CONTINUATION = int(FrameType.DATA), int(FrameType.HEADERS), int(FrameType.CONTINUATION)

# How many gaps between the numbers of streams are known.
MOST_GAPS: Final = 16


class FrameReader(ConnectionState):
    """What the client has sent. See contract.Http2Codec."""

    __slots__ = ()

    # Bytes in

    def receive(self, data: bytes) -> list[Event]:
        if self._phase is CLOSED:
            return []
        if not data:
            return self._end_of_file()
        if self._rest:
            if len(data) < self._missing:  # a frame is not copied again for each piece of it
                self._more += data
                self._missing -= len(data)
                return []
            data = b"".join([self._rest, self._more, data])
            self._more.clear()
            self._missing = 1
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
        self._events = NO_EVENTS  # lest an idle connection holds its last request
        return events

    def _end_of_file(self) -> list[Event]:
        """Requests that are whole, or refused, are still answered."""
        self._close()
        events: list[Event] = []
        reason = "the peer went away before the end of the request body"
        for stream in list(self._streams.values()):
            if stream.input is OPEN:
                events.append(Reset(stream.stream_id, reason, ErrorCode.CANCEL))
                self._forget(stream)
            stream.input = WHOLE
        return events

    def _fail(self, fault: ConnectionFault) -> None:
        self._close()
        self._out.append(goaway(self.last_stream_id, fault.code))
        self._events.append(Failure(0, fault.reason, fault.code))
        for stream in list(self._streams.values()):
            self._forget(stream)

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
        known = self._known
        bodiless = known.bodiless
        events = self._events
        while at <= last:
            word, flags, stream_id = unpack_head(data, at)
            if word > most_word:  # RFC 9113 section 4.2
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than its setting")
            begin = at + HEAD_SIZE
            end = begin + (word >> 8)
            if end > last + HEAD_SIZE:
                self._missing = end - last - HEAD_SIZE
                break
            kind = word & 0xFF
            stream_id &= RESERVED
            if self._phase is not AT_FRAMES:
                self._check_phase(kind, flags, stream_id)
            if kind == HEADERS:
                if flags == END_HEADERS | END_STREAM:  # all of a request without a body, most often
                    block = data[begin:end]
                    parts = bodiless.get(block) or known.from_template(block)
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
        if self._priorities:
            self._priorities = {number: told for number, told in self._priorities.items() if number >= stream_id}
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
            self._known.forget()
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
        priority = h2_rules.priority_in(request.headers)
        stream.urgency, stream.incremental = self._priorities.pop(stream_id, priority)
        stream.silent = request.method == "HEAD"
        stream.tunnel = bool(request.protocol)
        if not stream.tunnel:
            if not end_stream:
                stream.left = h2_rules.body_length(request)
            if block is None:
                pass
            elif end_stream:
                self._known.remember(block, self._decoder.path_at, request, priority, h2_rules.list_size(fields))
            else:
                self._known.remember_open(block, request, priority, stream.left)
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

    def _take_open(self, stream_id: int, block: bytes) -> bool:
        """Begin a request with a body; whether its block was known."""
        known = self._known.open.get(block)
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


HANDLERS: Final = {
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
