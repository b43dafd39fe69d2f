"""The reader of HTTP/2 frames in front of the h2 library: what RFC 9113 says of each, and what h2 may see."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from hpack import HPACKError, OversizedHeaderListError

from asgiri.codec import h2_rules, rules
from asgiri.codec.events import Body, End, Event, Failure, GoAway, PingAck, Refused, Reset
from asgiri.codec.h2_budget import MOST_UNREAD, Kind, check_block
from asgiri.codec.h2_library import Block, Input, Library, Output, Phase, Stream
from asgiri.codec.h2_wire import (
    ACK,
    DEFAULT_TABLE,
    END_HEADERS,
    END_STREAM,
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
    Setting,
    StreamFault,
    frame,
    goaway,
    pack_setting,
    window_update,
)
from asgiri.errors import RemoteProtocolError
from asgiri.types import Headers

read_head = struct.Struct(">HBBBI").unpack_from
read_settings = struct.Struct(">HI").iter_unpack
# The header block that h2 sees: it must know that a request begins, or ends in trailers, and nothing of it.
START: Final = b""
# How many gaps between the numbers of streams are known, and how many priorities of streams that are to come (RFC 9218
# section 7).
MOST_GAPS: Final = 16
MOST_PRIORITIES: Final = 64


class Gate(Library):
    """The receiving side of the codec."""

    def receive(self, data: bytes) -> list[Event]:
        if self._phase is Phase.CLOSED:
            return []
        if not data:
            return self._end_of_file()
        events = self._events = []
        self._rest += data
        try:
            if self._phase is not Phase.PREFACE or self._read_preface():
                self._read_frames()
        except ConnectionFault as fault:
            self._fail(fault)
        self._events = []
        return events

    def _end_of_file(self) -> list[Event]:
        """Requests that are whole are still answered."""
        self._phase = Phase.CLOSED
        events: list[Event] = []
        for stream in [stream for stream in self._streams.values() if stream.input is not Input.WHOLE]:
            if stream.input is Input.OPEN:
                reason = "the peer went away before the end of the request body"
                events.append(Reset(stream.stream_id, reason, ErrorCode.CANCEL))
            self._forget(stream)
        return events

    def _fail(self, fault: ConnectionFault) -> None:
        self._phase = Phase.CLOSED
        self._rest.clear()
        self._block = None
        self._gather()
        self._out.append(goaway(self.last_stream_id, fault.code))
        self._events.append(Failure(0, fault.reason, fault.code))
        for stream in list(self._streams.values()):
            self._forget(stream)

    def _read_preface(self) -> bool:
        """Whether the preface is all here (RFC 9113 section 3.4)."""
        begin = self._rest[: len(PREFACE)]
        if not PREFACE.startswith(begin):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the connection does not begin as HTTP/2")
        if len(begin) < len(PREFACE):
            return False
        del self._rest[: len(PREFACE)]
        self._phase = Phase.SETTINGS
        return True

    def _read_frames(self) -> None:
        """Take the frames that are here out of the buffer, one by one."""
        buffer = self._rest
        at = 0
        try:
            while len(buffer) - at >= HEAD_SIZE:
                high, low, kind, flags, stream_id = read_head(buffer, at)
                size = high << 8 | low
                if size > self._options.max_frame_size:  # section 4.2
                    raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too large")
                begin = at + HEAD_SIZE
                if len(buffer) - begin < size:
                    return
                at = begin + size
                self._take_frame(kind, flags, stream_id & MOST_STREAM_ID, bytes(buffer[begin:at]))
                if self._unread > MOST_UNREAD:
                    raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the peer does not read what it calls for")
        finally:
            del buffer[:at]

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._phase is Phase.BLOCK:  # section 6.10
            if kind != FrameType.CONTINUATION or self._block is None or stream_id != self._block.stream_id:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        elif self._phase is Phase.SETTINGS:  # section 3.4
            if kind != FrameType.SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._phase = Phase.FRAMES
        take = TAKES.get(kind)
        if take is None:  # section 5.5
            self._budget.draw(Kind.STRAY)
            return
        if stream_id and kind in OF_CONNECTION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame of the connection is on a stream")
        try:
            take(self, flags, stream_id, payload)
        except StreamFault as fault:
            self._break(stream_id, fault)

    def _break(self, stream_id: int, fault: StreamFault) -> None:
        """Section 5.4.2; every way to have us send RST_STREAM draws from the same bucket (CVE-2025-8671)."""
        stream = self._streams.get(stream_id)
        if stream is None:
            self._refuse(stream_id, fault.code)
        else:
            self._events.append(Reset(stream_id, fault.reason, fault.code))
            self._reset_stream(stream, fault.code)
        self._budget.draw(Kind.RESET)

    # DATA, section 6.1

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        content = unpadded(flags, payload)
        size = len(payload)
        end_stream = bool(flags & END_STREAM)
        stream = self._streams.get(stream_id)
        if stream is None and stream_id not in self._reset:
            self._check_begun(stream_id)
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "DATA is on a stream that is over")
        if size > self._h2.inbound_flow_control_window - self._unseen:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window of the connection is exceeded")
        self._budget.data(len(content), end_stream)
        if stream is None:  # section 5.1: it was on its way
            self._drop_data(size)
            return
        if stream.input is Input.WHOLE:
            self._drop_data(size)
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA behind the end of the request")
        if size > self._h2.remote_flow_control_window(stream_id):
            self._drop_data(size)
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "the window of the stream is exceeded")
        self._feed(frame(FrameType.DATA, flags & (END_STREAM | PADDED), stream_id, payload))
        if stream.input is Input.OPEN:
            if size > len(content):
                self._credit(stream, size - len(content), end_stream)
            if content:
                self._take_content(stream, content)
        else:
            self._give_back(size)
        if end_stream:
            self._end_input(stream, [])

    def _take_content(self, stream: Stream, content: bytes) -> None:
        size = len(content)
        stream.debt += size
        stream.size += size
        if stream.left is not None:
            stream.left -= size
            if stream.left < 0:
                raise h2_rules.malformed("the request body is longer than its Content-Length")
        if not stream.tunnel:
            try:
                rules.check_body(stream.size, self._options.limits)
            except RemoteProtocolError as error:
                self._turn_away(stream, error)
                return
        self._events.append(Body(stream.stream_id, content))

    def _turn_away(self, stream: Stream, error: RemoteProtocolError) -> None:
        """The request is answered with the error's status, and nobody reads its body."""
        if stream.input is Input.OPEN:
            stream.input = Input.DEAF
        self._give_back(stream.debt)
        stream.debt = 0
        self._events.append(Refused(stream.stream_id, error.status, error.reason))

    def _end_input(self, stream: Stream, trailers: Headers) -> None:
        if stream.input is Input.OPEN:
            if stream.left:
                raise h2_rules.malformed("the request body is shorter than its Content-Length")
            self._events.append(End(stream.stream_id, trailers))
        stream.input = Input.WHOLE
        if stream.output is Output.DONE and not stream.held:  # the other half of a tunnel
            self._forget(stream)

    # HEADERS and CONTINUATION, sections 6.2 and 6.10

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a request is on a stream that cannot be the client's")
        if stream_id <= self._last and stream_id not in self._streams and stream_id not in self._reset:
            if any(stream_id in gap for gap in self._gaps):  # section 5.1.1
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a request is on a stream below an earlier one")
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, "a header block is on a stream that is over")
        fragment = unpadded(flags, payload, 5 if flags & PRIORITY else 0)
        self._block = Block(stream_id, bool(flags & END_STREAM))
        self._phase = Phase.BLOCK
        self._add_fragment(self._block, flags, fragment)

    def _take_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        del stream_id  # it is the block's
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._add_fragment(self._block, flags, payload)

    def _add_fragment(self, block: Block, flags: int, fragment: bytes) -> None:
        block.continuations += 1
        block.size += len(fragment)
        block.pieces.append(fragment)
        check_block(block.size, block.continuations, self._options.most_block)
        if not flags & END_HEADERS:
            return
        self._block = None
        self._phase = Phase.FRAMES
        fields = self._decoded(b"".join(block.pieces))
        stream = self._streams.get(block.stream_id)
        if stream is not None:
            self._take_trailers(stream, fields, block.end_stream)
        elif block.stream_id > self._last:
            self._take_request(block.stream_id, fields, block.end_stream)
        else:  # one that we have reset
            self._budget.draw(Kind.STRAY)

    def _decoded(self, block: bytes) -> Headers:
        try:
            return [(name, value) for name, value in self._h2.decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header list is far too large") from error
        except (HPACKError, IndexError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block cannot be decoded") from error

    def _take_request(self, stream_id: int, fields: Headers, end_stream: bool) -> None:
        gap = range(self._last + 2 if self._last else 1, stream_id, 2)
        if gap:
            self._gaps = [*self._gaps[-MOST_GAPS:], gap]
        self._last = stream_id
        busy = len(self._streams) + self._ended >= self._options.max_concurrent_streams
        if busy or stream_id > self._refuse_above:  # sections 5.1.2 and 6.8
            self._refuse(stream_id, ErrorCode.REFUSED_STREAM)
            return
        early = self._priorities.pop(stream_id, None)
        try:
            request = h2_rules.request_of(stream_id, fields, end_stream, self._options)
        except RemoteProtocolError as error:
            stream = self._open(stream_id, end_stream)
            if (b":method", b"HEAD") in fields:
                stream.method = "HEAD"
            self._turn_away(stream, error)
            return
        stream = self._open(stream_id, end_stream)
        stream.method = request.method
        stream.tunnel = bool(request.protocol)
        if not end_stream and not stream.tunnel:
            stream.left = h2_rules.body_length(request)
        # RFC 9218 section 7: a PRIORITY_UPDATE overrides the field, even when it came before it.
        stream.urgency, stream.incremental = early or h2_rules.priority_in(request.headers)
        self._events.append(request)

    def _open(self, stream_id: int, end_stream: bool) -> Stream:
        flags = END_HEADERS | (END_STREAM if end_stream else 0)
        self._feed(frame(FrameType.HEADERS, flags, stream_id, START))
        stream = self._streams[stream_id] = Stream(stream_id, self._sender.initial_window, end_stream)
        return stream

    def _take_trailers(self, stream: Stream, fields: Headers, end_stream: bool) -> None:
        """Section 8.1."""
        if stream.input is Input.WHOLE:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS behind the end of the request")
        if stream.tunnel:  # section 8.5
            raise h2_rules.malformed("a tunnel has no trailers")
        if not end_stream:
            raise h2_rules.malformed("the trailers do not end the request")
        trailers: Headers = []
        if stream.input is Input.OPEN:
            try:
                trailers = h2_rules.trailers_of(fields, self._options)
            except RemoteProtocolError as error:
                self._turn_away(stream, error)
        self._feed(frame(FrameType.HEADERS, END_HEADERS | END_STREAM, stream.stream_id, START))
        self._end_input(stream, trailers)

    # What is small

    def _take_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 5.3.2: deprecated, and ignored."""
        del flags
        self._budget.draw(Kind.STRAY)
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            if stream_id not in self._streams:  # then it cannot be reset (section 5.1)
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has a wrong size")
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has a wrong size")

    def _take_priority_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9218 section 7.1."""
        del flags, stream_id
        if len(payload) < 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY_UPDATE has a wrong size")
        self._budget.draw(Kind.STRAY)
        prioritised = int.from_bytes(payload[:4]) & MOST_STREAM_ID
        if not prioritised:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE of no stream")
        priority = h2_rules.priority_of(payload[4:])
        stream = self._streams.get(prioritised)
        if stream is not None:
            self._sender.prioritise(stream, *priority)
        elif prioritised > self._last and prioritised & 1:
            if len(self._priorities) >= MOST_PRIORITIES:
                del self._priorities[next(iter(self._priorities))]
            self._priorities[prioritised] = priority

    def _take_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.4."""
        del flags
        check_size(payload, 4, "RST_STREAM")
        self._check_begun(stream_id)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._budget.draw(Kind.STRAY)
            return
        self._feed(frame(FrameType.RST_STREAM, 0, stream_id, payload))
        self._events.append(Reset(stream_id, "the peer has reset the stream", int.from_bytes(payload)))
        self._forget(stream)
        self._budget.draw(Kind.RESET)

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.5."""
        del stream_id
        self._budget.draw(Kind.SETTINGS)
        if flags & ACK and payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement has a payload")
        self._sweep()
        self._feed(frame(FrameType.SETTINGS, flags & ACK, 0, self._applied(payload)))
        self._called_for()

    def _sweep(self) -> None:
        """Have h2 forget the streams that are over, whose windows a setting must not touch any more."""
        _ = self._h2.open_inbound_streams  # it sweeps when it is asked

    def _applied(self, payload: bytes) -> bytes:
        """Take the peer's settings; the payload for h2, with a table of no more than what is worth its memory."""
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has a wrong size")
        approved = b""
        for setting, value in read_settings(payload):
            least, most, code = SETTINGS.get(setting, ANYTHING)
            if not least <= value <= most:
                raise ConnectionFault(code, "a setting has a value that it cannot have")
            if setting == Setting.INITIAL_WINDOW_SIZE:
                self._sender.resize(value, self._streams.values())
            elif setting == Setting.MAX_FRAME_SIZE:
                self._sender.max_frame = value
            elif setting == Setting.HEADER_TABLE_SIZE:
                value = min(value, DEFAULT_TABLE)
            approved += pack_setting(setting, value)
        return approved

    def _take_push_promise(self, *_: object) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client pushes nothing")  # section 8.4

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.7."""
        del stream_id
        check_size(payload, 8, "PING")
        if flags & ACK and self._pings:
            self._pings -= 1
            self._events.append(PingAck(payload))
            return
        self._budget.draw(Kind.PING)
        if not flags & ACK:
            self._feed(frame(FrameType.PING, 0, 0, payload))
            self._called_for()

    def _take_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.8."""
        del flags, stream_id
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has a wrong size")
        self._budget.draw(Kind.STRAY)
        last_stream_id = int.from_bytes(payload[:4]) & MOST_STREAM_ID
        self._events.append(GoAway(int.from_bytes(payload[4:8]), last_stream_id))

    def _take_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.9."""
        del flags
        check_size(payload, 4, "WINDOW_UPDATE")
        self._budget.draw(Kind.WINDOW_UPDATE)
        size = int.from_bytes(payload) & MOST_WINDOW
        if not stream_id:
            if not size:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self._sender.grant_all(size)
        else:
            self._check_begun(stream_id)
            stream = self._streams.get(stream_id)
            if stream is None:
                return
            if not size:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self._sender.grant(stream, size)
        self._feed(window_update(stream_id, size))


OF_CONNECTION: Final = {FrameType.SETTINGS, FrameType.PING, FrameType.GOAWAY, FrameType.PRIORITY_UPDATE}

TAKES: Final[dict[int, Callable[[Gate, int, int, bytes], None]]] = {
    FrameType.DATA: Gate._take_data,
    FrameType.HEADERS: Gate._take_headers,
    FrameType.PRIORITY: Gate._take_priority,
    FrameType.RST_STREAM: Gate._take_rst_stream,
    FrameType.SETTINGS: Gate._take_settings,
    FrameType.PUSH_PROMISE: Gate._take_push_promise,
    FrameType.PING: Gate._take_ping,
    FrameType.GOAWAY: Gate._take_goaway,
    FrameType.WINDOW_UPDATE: Gate._take_window_update,
    FrameType.CONTINUATION: Gate._take_continuation,
    FrameType.PRIORITY_UPDATE: Gate._take_priority_update,
}

# What a setting may be, and what it is otherwise: RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1.
SETTINGS: Final[dict[int, tuple[int, int, ErrorCode]]] = {
    Setting.ENABLE_PUSH: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.INITIAL_WINDOW_SIZE: (0, MOST_WINDOW, ErrorCode.FLOW_CONTROL_ERROR),
    Setting.MAX_FRAME_SIZE: (LEAST_FRAME, MOST_FRAME, ErrorCode.PROTOCOL_ERROR),
    Setting.ENABLE_CONNECT_PROTOCOL: (0, 1, ErrorCode.PROTOCOL_ERROR),
    Setting.NO_RFC7540_PRIORITIES: (0, 1, ErrorCode.PROTOCOL_ERROR),
}
ANYTHING: Final = (0, (1 << 32) - 1, ErrorCode.NO_ERROR)


def check_size(payload: bytes, size: int, kind: str) -> None:
    if len(payload) != size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{kind} has a wrong size")


def unpadded(flags: int, payload: bytes, begin: int = 0) -> bytes:
    """The payload without its padding (section 6.1), and without the ``begin`` bytes of a priority (section 6.2)."""
    size = len(payload)
    padding = 0
    if flags & PADDED:
        begin += 1
        padding = payload[0] if payload else 0
    if size < begin:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is too short for its own fields")
    if padding > size - begin:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame has more padding than it is long")
    return payload[begin : size - padding]
