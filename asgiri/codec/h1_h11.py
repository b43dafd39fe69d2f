"""HTTP/1.1 on h11: the reference engine. It takes the approved pieces of a request apart, and makes the answers."""

from __future__ import annotations

from typing import Any, cast

import h11

from asgiri.codec import rules
from asgiri.codec.contract import Http1Codec
from asgiri.codec.events import Body, Event
from asgiri.codec.framing import CLOSED, CRLF, ENDLESS, WHOLE, EngineError
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.statuses import REASONS
from asgiri.types import Headers

# The limits are the reader's; what it lets through is whole, and fits.
ROOM = 2 * ENDLESS


class Raw:
    """Content that the connection writes itself: h11 only asks for its length."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


class H11Codec(Http1Codec):
    """The server side of one HTTP/1.1 connection (RFC 9112). ``stream_id`` counts the requests from 1."""

    __slots__ = ("_after_raw", "_chunked", "_h11", "_out", "_silent")

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=ROOM)
        self._out: list[bytes] = []
        self._after_raw: list[bytes] = []
        self._chunked = False  # the answer in progress is
        self._silent = False  # the answer in progress may have no content

    # What h11 reads

    def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
        del head
        # h11 knows no target beyond ASCII, and does not need it.
        self._h11.receive_data(b"%b / HTTP/%b\r\n" % (method, version) + fields + CRLF)
        try:
            request = self._h11.next_event()
            if not isinstance(request, h11.Request):
                raise EngineError
            self._gather()
        except h11.RemoteProtocolError as error:
            self._begin_anew(method)
            raise EngineError from error
        return list(request.headers)

    def _begin_anew(self, method: bytes) -> None:
        """Have h11 know the method of a request that it refused: what is answered depends on it."""
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=ROOM)
        self._h11.receive_data(b"%b / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n" % method)
        self._h11.next_event()

    def take_body(self, data: bytes) -> None:
        self._h11.receive_data(data)
        try:
            self._gather()
        except h11.RemoteProtocolError as error:
            raise EngineError from error

    def _gather(self) -> None:
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                content = cast("Any", event).data  # a bytearray, whatever its type says
                self._events.append(Body(self._stream_id, bytes(content)))
            elif not isinstance(event, h11.EndOfMessage):  # NEED_DATA, PAUSED
                return

    def next_request(self) -> list[Event]:
        self._h11.start_next_cycle()
        return super().next_request()

    # Sends

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> bytes:
        self.send_head(stream_id, status, headers)
        self.send_body(stream_id, data, True)
        return self.take()

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        del stream_id
        rules.check_informational(status, self._upgrade)
        self._check_state(h11.IDLE, h11.SEND_RESPONSE)
        rules.check_answer_fields(headers)
        fields = rules.answer_fields(status, headers)
        if self._version != "1.0":  # which has no such answers (RFC 9110 section 15.2)
            reason = REASONS.get(status, b"")
            self._send(h11.InformationalResponse(status_code=status, headers=fields, reason=reason))

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        del stream_id
        self._check_state(h11.IDLE, h11.SEND_RESPONSE)
        rules.check_final(status)
        rules.check_answer_fields(headers)
        fields, has_length, close = rules.framed(status, headers, self._last or self._phase is CLOSED)
        if close:
            fields.append((b"connection", b"close"))
        # What has no length is chunked, but for the old version, where the end of the connection ends it.
        self._chunked = not has_length and status not in (204, 304) and self._version != "1.0"
        response = h11.Response(status_code=status, headers=fields, reason=REASONS.get(status, b""))
        self._silent = not rules.answer_has_body(self._method, status)
        self._send(response)
        self.sent = 0

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        del stream_id
        self._check_state(h11.SEND_BODY)
        if data and not self._silent:
            self.sent += len(data)
            self._send(h11.Data(data=data))
        if end_stream:
            self._send(h11.EndOfMessage())

    def begin_raw(self, stream_id: int, size: int) -> bool:
        del stream_id
        self._check_state(h11.SEND_BODY)
        if self._silent or not size:
            return False
        raw: Any = Raw(size)
        pieces = self._pieces(h11.Data(data=raw))
        place = next(i for i, piece in enumerate(pieces) if piece is raw)
        self.sent += size
        self._out += pieces[:place]
        self._after_raw = pieces[place + 1 :]
        return True

    def end_raw(self, stream_id: int, end_stream: bool) -> None:
        self._out += self._after_raw
        self._after_raw = []
        if end_stream:
            self.send_body(stream_id, b"", True)

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        del stream_id
        self._check_state(h11.SEND_BODY)
        rules.check_answer_trailers(trailers)
        fields = [(name, value.strip(b" \t")) for name, value in trailers]
        self._send(h11.EndOfMessage(headers=fields if self._chunked and not self._silent else []))

    def _check_state(self, *states: object) -> None:
        """Refuse a verb out of turn. h11 would refuse it too, and everything after it."""
        if self._h11.our_state not in states:
            raise LocalProtocolError(f"this cannot be sent now: h11 is in {self._h11.our_state}")

    def _send(self, event: h11.Event) -> None:
        self._out += self._pieces(event)

    def _pieces(self, event: h11.Event) -> list[Any]:
        try:
            return self._h11.send_with_data_passthrough(event) or []
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from error

    # Bytes out

    def take(self) -> bytes:
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # Questions

    def renew(self) -> bool:
        if not self.reusable or self.rest or self._ended:
            return False
        self.next_request()
        return True

    @property
    def reusable(self) -> bool:
        return self._h11.our_state is h11.DONE and self._phase is WHOLE

    @property
    def closing(self) -> bool:
        return self._h11.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)
