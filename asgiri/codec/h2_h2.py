"""HTTP/2 on the h2 library: the reference engine.

The h2 library makes connection errors of what RFC 9113 calls stream errors, forgets how a stream ended once it has
swept it up, has no place for a header list that is refused, and takes no more part in a connection once a GOAWAY has
gone by, either way. So a reader of frames stands in front of it (h2_gate.py). It holds every frame to RFC 9113, and h2
gets approved ones only:

    SETTINGS, PING, WINDOW_UPDATE, RST_STREAM   as they came; h2 acknowledges them, and counts windows
    DATA                                        as it came, on streams whose request is not whole
    HEADERS                                     with a block that says nothing, for h2's own judgement is off: the real
                                                one goes through h2's decoder and h2_rules.py
    GOAWAY, PRIORITY, PRIORITY_UPDATE, unknown  never

What h2 does: the states of streams, credit for what the peer sent, acknowledgements, HPACK both ways, and all frames
but GOAWAY and SETTINGS. Which DATA goes next is h2_sending's to say, and what is too much h2_budget's, as for every
engine.
"""

from __future__ import annotations

from typing import Any

from hpack import NeverIndexedHeaderTuple

from asgiri.codec import h2_rules, rules
from asgiri.codec.events import Event, Request
from asgiri.codec.h2_gate import Gate
from asgiri.codec.h2_library import Input, Output, Phase, Stream
from asgiri.codec.h2_wire import ConnectionFault, ErrorCode, FrameType, Http2Options, frame, goaway
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers


class H2Codec(Gate):
    """The server side of one HTTP/2 connection; see contract.Http2Codec."""

    def __init__(self, options: Http2Options) -> None:
        super().__init__(options)
        self._last_over: Stream | None = None

    # HTTP/1.1 that becomes HTTP/2, RFC 7540 section 3.2

    def upgrade(self, settings: bytes, request: Request) -> list[Event]:
        events = self._events = []
        try:
            approved = self._applied(settings)
            self._gather()
            self._feed(frame(FrameType.SETTINGS, 0, 0, approved))
            self._h2.clear_outbound_data_buffer()  # the 101 has acknowledged it (section 3.2.1)
        except ConnectionFault as fault:
            self._fail(fault)
            return events
        self._last = 1
        self._open(1, True).method = request.method
        return [request]

    def upgraded_body(self, end_stream: bool) -> None:
        """Nothing is to be done: for HTTP/2 the request was half-closed from the beginning."""

    # Sends

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        h2_rules.check_informational(status)
        fields = h2_rules.answer_fields(status, headers)
        self._check(stream, Output.NONE)
        self._send_head(stream, status, fields)

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        self._answer(stream_id, status, headers, None)

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> None:
        self._answer(stream_id, status, headers, data)

    def _answer(self, stream_id: int, status: int, headers: Headers, data: bytes | None) -> None:
        """The head, and all of the content when that is known."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        rules.check_final(status)
        fields = h2_rules.answer_fields(status, headers)
        self._check(stream, Output.NONE)
        stream.silent = not rules.answer_has_body(stream.method, status)
        ends = data is not None and (stream.silent or not data)
        self._send_head(stream, status, fields, ends)
        stream.output = Output.BEGUN
        if ends:
            self._finished(stream)
        elif data:
            self.send_body(stream_id, data, True)

    def _send_head(self, stream: Stream, status: int, fields: Headers, end_stream: bool = False) -> None:
        self._h2.send_headers(stream.stream_id, kept_out([(b":status", b"%d" % status), *fields]), end_stream)

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        self._check(stream, Output.BEGUN)
        if data and not stream.silent:
            self._sender.put(stream, data)
        if end_stream:
            stream.output = Output.DONE
            if self._sender.finish(stream):
                self._h2.end_stream(stream_id)
                self._finished(stream)

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        fields = h2_rules.answer_trailers(trailers)
        if not fields:
            self.send_body(stream_id, b"", True)
            return
        self._check(stream, Output.BEGUN)
        stream.output = Output.DONE
        if self._sender.finish(stream, fields):
            self._send_trailers(stream, fields)

    def _send_trailers(self, stream: Stream, fields: Headers) -> None:
        self._h2.send_headers(stream.stream_id, kept_out(fields), True)
        self._finished(stream)

    def _check(self, stream: Stream, output: Output) -> None:
        if stream.output is not output:
            raise LocalProtocolError(f"this cannot be sent now: the answer is {stream.output.value}")

    def _finished(self, stream: Stream) -> None:
        """The answer is out. RFC 9113 section 8.1: what is still to come of its request is not wanted."""
        stream.output = Output.DONE
        self._budget.answers += 1
        self._last_over = stream
        if stream.input is Input.WHOLE:
            self._ended += 1
            self._forget(stream)
        elif not stream.tunnel:
            self._ended += 1
            self._reset_stream(stream, ErrorCode.NO_ERROR)

    def reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._reset_stream(stream, code)

    def consumed(self, stream_id: int, size: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:  # it was credited when the stream was over
            return
        size = min(size, stream.debt)
        stream.debt -= size
        self._credit(stream, size, stream.input is Input.WHOLE)

    def go_away(self, last_stream_id: int | None, code: int = 0) -> None:
        if self._phase is Phase.CLOSED:
            return
        last = self.last_stream_id if last_stream_id is None else last_stream_id
        self._refuse_above = min(self._refuse_above, last)
        self._gather()
        self._out.append(goaway(self._refuse_above, code))

    def ping(self, data: bytes) -> None:
        if self._phase is not Phase.CLOSED:
            self._pings += 1
            self._h2.ping(data)

    def tick(self, seconds: float) -> None:
        self._budget.tick(seconds)
        self._sender.tick()

    # Bytes out

    def take(self, most: int = 1 << 18) -> bytes:
        if self._sender.held:
            for stream, content, end_stream in self._sender.pieces(most):
                assert isinstance(stream, Stream)
                self._h2.send_data(stream.stream_id, content, end_stream)
                if end_stream:
                    self._finished(stream)
                elif stream.trailers and stream.finished and not stream.held:
                    self._send_trailers(stream, stream.trailers)
        self._gather()
        data = b"".join(self._out)
        self._out.clear()
        self._ended = 0
        self._unread = 0
        return data

    # Questions

    def held(self, stream_id: int) -> int:
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.held

    @property
    def holds(self) -> bool:
        return self._sender.held > 0

    def blocked(self, stream_id: int) -> bool:
        stream = self._streams.get(stream_id)
        return stream is not None and self._sender.is_blocked(stream)

    def starved(self, stream_id: int) -> bool:
        stream = self._streams.get(stream_id)
        return stream is not None and self._sender.is_starved(stream)

    def sent_on(self, stream_id: int) -> int:
        """That of the last stream that is over can be asked for still."""
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._last_over
        return stream.sent if stream is not None and stream.stream_id == stream_id else 0

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def in_head(self) -> bool:
        if self._phase is not Phase.FRAMES:
            return self._phase is not Phase.CLOSED
        rest = self._rest
        return bool(rest) and (len(rest) < 4 or rest[3] == FrameType.HEADERS)

    @property
    def closed(self) -> bool:
        return self._phase is Phase.CLOSED


def kept_out(fields: Headers) -> list[Any]:
    """The fields as hpack takes them: secrets are never indexed (RFC 7541 section 7.1.3).

    They are tuples of another class, of which the compiler would make plain ones if it were told their type.
    """
    kept: list[Any] = list(fields)
    for place, (name, value) in enumerate(fields):
        if name in h2_rules.SECRETS:
            kept[place] = NeverIndexedHeaderTuple(name, value)
    return kept
