"""HTTP/2 in plain Python (RFC 9113), made for many small requests: the answers, on top of h2_reading.py.

A whole answer that its windows allow goes out at once, when no other waits; else it stands in the queue (h2_sending.py)
until :meth:`NativeCodec.take`. Heads are HPACK without a dynamic table (hpack_encode.py), so that their order is free.
"""

from __future__ import annotations

from typing import Final

from asgiri.codec import h2_rules, rules
from asgiri.codec.events import Event, Request
from asgiri.codec.h2_reading import DATA, HEADERS, FrameReader
from asgiri.codec.h2_state import AT_FRAMES, BODY, CLOSED, DONE, NONE, OPEN, WHOLE, Stream
from asgiri.codec.h2_wire import (
    END_HEADERS,
    END_STREAM,
    ConnectionFault,
    FrameType,
    frame,
    goaway,
    header_frames,
    pack_head,
)
from asgiri.codec.hpack_encode import NO_TABLE, fields_block, head_block
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers

HAS_HEAD: Final = "the answer has a head already"
NO_ANSWER: Final = "there is no answer in progress"
LAST_HEAD: Final = END_HEADERS | END_STREAM


class NativeCodec(FrameReader):
    """The server side of one HTTP/2 connection; see contract.Http2Codec."""

    __slots__ = ()

    # The beginning of a connection that was HTTP/1.1

    def upgrade(self, settings: bytes, request: Request) -> list[Event]:
        try:
            self._apply_settings(settings)
        except ConnectionFault as fault:
            self._events = []
            self._fail(fault)
            return self._events
        stream = Stream(1, self._sender.initial_window)
        stream.silent = request.method == "HEAD"
        self._last = 1
        self._streams[1] = stream
        return [request]

    def upgraded_body(self, end_stream: bool) -> None:
        """Nothing is to be done: for HTTP/2 the request was half-closed from the beginning."""

    # Sends

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        h2_rules.check_informational(status)
        if stream.output is not NONE:
            raise LocalProtocolError("an interim answer comes before the final one")
        self._send_block(stream_id, head_block(status, headers), False)

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.output is not NONE:
            raise LocalProtocolError(HAS_HEAD)
        if not 200 <= status <= 599:
            rules.check_final(status)
        self._send_block(stream_id, head_block(status, headers), False)
        stream.output = BODY
        if status == 204 or status == 304:
            stream.silent = True

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.output is not BODY:
            raise LocalProtocolError(NO_ANSWER)
        if data and not stream.silent:
            self._sender.put(stream, data)
        if end_stream:
            self._finish(stream, None)

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.output is not BODY:
            raise LocalProtocolError(NO_ANSWER)
        self._finish(stream, h2_rules.answer_trailers(trailers) or None)

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.output is not NONE:
            raise LocalProtocolError(HAS_HEAD)
        if not 200 <= status <= 599:
            rules.check_final(status)
        block = head_block(status, headers)
        sender = self._sender
        size = len(data)
        if self._update_table or len(block) > sender.max_frame:
            self._answer_at_length(stream, status, block, data)
            return
        if not size or stream.silent or status == 204 or status == 304:
            self._out += (pack_head(len(block) << 8 | HEADERS, LAST_HEAD, stream_id), block)
        elif sender.held or size > sender.max_frame or size > sender.window or size > stream.window:
            self._answer_at_length(stream, status, block, data)
            return
        else:
            self._out += (
                pack_head(len(block) << 8 | HEADERS, END_HEADERS, stream_id),
                block,
                pack_head(size << 8, END_STREAM, stream_id),
                data,
            )
            sender.window -= size
            stream.sent = size
        if stream.input is WHOLE and not stream.unread:  # as _end_output does, for less
            self._budget.answers += 1
            self._ended += 1
            self._last_over = stream
            del self._streams[stream_id]
        else:
            stream.output = DONE
            self._end_output(stream)

    def _answer_at_length(self, stream: Stream, status: int, block: bytes, data: bytes) -> None:
        """A whole answer that does not go out as one piece."""
        silent = not data or stream.silent or status == 204 or status == 304
        self._send_block(stream.stream_id, block, silent)
        if silent:
            stream.output = DONE
            self._end_output(stream)
        else:
            self._sender.put(stream, data)
            self._finish(stream, None)

    def _send_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        if self._update_table:
            self._update_table = False
            block = NO_TABLE + block
        self._out.append(header_frames(stream_id, block, end_stream, self._sender.max_frame))

    def _finish(self, stream: Stream, trailers: Headers | None) -> None:
        """All of the answer is here. An end without content waits for no window (RFC 9113 section 6.9.1)."""
        stream.output = DONE
        if self._sender.finish(stream, trailers):
            if trailers:
                self._send_block(stream.stream_id, fields_block(trailers), True)
            else:
                self._out.append(frame(DATA, END_STREAM, stream.stream_id))
            self._end_output(stream)

    def reset(self, stream_id: int, code: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._forget(stream)
            self._reset_stream(stream_id, code)

    def consumed(self, stream_id: int, size: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:  # it was credited when the stream was over
            return
        size = min(size, stream.unread)
        stream.unread -= size
        self._add_credit(size)
        if stream.input is OPEN:
            self._add_stream_credit(stream, size)

    def go_away(self, last_stream_id: int | None, code: int = 0) -> None:
        if self._phase is CLOSED:
            return
        if last_stream_id is None:
            last_stream_id = self.last_stream_id
        self._refuse_above = min(self._refuse_above, last_stream_id)
        self._control(goaway(self._refuse_above, code))

    def ping(self, data: bytes) -> None:
        if self._phase is not CLOSED:
            self._pings += 1
            self._control(frame(FrameType.PING, 0, 0, data))

    def tick(self, seconds: float) -> None:
        self._budget.tick(seconds)
        self._sender.tick()

    # Bytes out

    def take(self, most: int = 1 << 18) -> bytes:
        out = self._out
        if self._sender.held:
            self._take_pieces(most)
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        self._ended = 0
        self._unread = 0
        return data

    def _take_pieces(self, most: int) -> None:
        out = self._out
        for stream, content, is_end in self._sender.pieces(most):
            assert isinstance(stream, Stream)
            out += (pack_head(len(content) << 8, END_STREAM if is_end else 0, stream.stream_id), content)
            if stream.finished and not stream.held:
                if stream.trailers:
                    self._send_block(stream.stream_id, fields_block(stream.trailers), True)
                self._end_output(stream)

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
        stream = self._streams.get(stream_id, self._last_over)
        return stream.sent if stream is not None and stream.stream_id == stream_id else 0

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def in_head(self) -> bool:
        if self._phase is not AT_FRAMES:
            return self._phase is not CLOSED
        rest = self._rest
        return bool(rest) and (len(rest) < 4 or rest[3] == HEADERS)

    @property
    def closed(self) -> bool:
        return self._phase is CLOSED
