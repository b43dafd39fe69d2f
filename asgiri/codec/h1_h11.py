"""HTTP/1.1 on h11: the reference engine. h11 owns the grammar and the state; rules.py owns the verdicts."""

from __future__ import annotations

import h11

from asgiri.codec import rules
from asgiri.codec.events import Body, End, Event, Failure, Request, Reset
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError, RemoteProtocolError
from asgiri.types import Headers

# What h11 may hold of a head that is not whole, when the limits are off: some bound must stand.
_UNLIMITED_HEAD = 1 << 20
# The client's state when its request asks for an upgrade. Documented, and missing in h11's __all__.
_MIGHT_SWITCH = h11.MIGHT_SWITCH_PROTOCOL  # type: ignore[attr-defined]
_EMPTY_LINE = (b"\r", b"\n")


class H11Codec:
    """The server side of one HTTP/1.1 connection (RFC 9112). ``stream_id`` counts the requests from 1."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        head = limits.request_line + limits.header_size
        bounded = limits.request_line and limits.header_size
        # Two bytes for each of the lines' ends, and one more, so that rules.py sees the first byte too many.
        self._room = head + 2 * limits.header_count + 64 if bounded else _UNLIMITED_HEAD
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._room)
        self._out: list[bytes] = []
        self._stream_id = 0
        self._body_size = 0
        self._method = ""
        self._silent = False  # the answer in progress may have no content
        self._failed = False

    # Bytes in

    def receive(self, data: bytes) -> list[Event]:
        if self._failed or self._h11.their_state is h11.MUST_CLOSE:
            return []  # bytes after an error, or after a request that said "close", are never parsed
        if data.startswith(_EMPTY_LINE) and self._expects_head():
            data = data.lstrip(b"\r\n")
            if not data:
                return []
        try:
            self._h11.receive_data(data)
        except RuntimeError:  # h11's word for bytes after end of file; a transport gives none
            return []
        return self._events()

    def _expects_head(self) -> bool:
        """No byte of the next request has come: empty lines before it are dropped (RFC 9112 section 2.2)."""
        return self._h11.their_state in (h11.IDLE, h11.DONE, _MIGHT_SWITCH) and not self._waiting()

    def _waiting(self) -> bytes:
        """What h11 holds and has not parsed, from the first byte that is of a line."""
        return self._h11.trailing_data[0].lstrip(b"\r\n")

    def next_request(self) -> list[Event]:
        self._h11.start_next_cycle()
        self._method = ""
        data, ended = self._h11.trailing_data
        if data.startswith(_EMPTY_LINE):  # h11 refuses them, and nothing can be taken out of its buffer
            self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=self._room)
            if rest := data.lstrip(b"\r\n"):
                self._h11.receive_data(rest)
            if ended:
                self._h11.receive_data(b"")
        return self._events()

    def _events(self) -> list[Event]:
        events: list[Event] = []
        try:
            self._gather(events)
        except h11.RemoteProtocolError as error:
            self._failed = True
            events.append(self._failure(error))
        except RemoteProtocolError as error:
            self._failed = True
            events.append(Failure(error.status, error.reason))
        return events

    def _gather(self, events: list[Event]) -> None:
        while self._h11.their_state is not h11.MUST_CLOSE:  # what follows is no request (RFC 9112 section 9.6)
            event = self._h11.next_event()
            match event:
                case h11.Data():
                    events.append(self._body(event))
                case h11.Request():
                    events.append(self._request(event))
                case h11.EndOfMessage():
                    self._end(event, events)
                case _:  # NEED_DATA, PAUSED, ConnectionClosed
                    return

    def _request(self, event: h11.Request) -> Request:
        headers: Headers = list(event.headers)
        self._method = event.method.decode("ascii")  # h11 knows it now, so a refusal is framed by it too
        line = len(event.method) + len(event.target) + len(b"  HTTP/1.1")
        version = rules.check_version(event.http_version)
        rules.check_head(self._limits, line, headers)
        rules.check_host(version, headers)
        path, query, authority = rules.split_target(event.method, event.target)
        has_body = rules.check_framing(version, headers, self._limits)
        if authority is not None:
            headers = rules.with_authority(headers, authority)
        self._stream_id += 1
        self._body_size = 0
        return Request(
            stream_id=self._stream_id,
            method=self._method,
            target=event.target,
            path=path,
            query=query,
            headers=headers,
            http_version=version,
            end_stream=not has_body,
            expect_continue=has_body and self._h11.they_are_waiting_for_100_continue,
        )

    def _body(self, event: h11.Data) -> Body:
        data = bytes(event.data)
        self._body_size += len(data)
        if self._limits.body_size and self._body_size > self._limits.body_size:
            raise RemoteProtocolError("the request body is too large", 413)
        return Body(self._stream_id, data)

    def _end(self, event: h11.EndOfMessage, events: list[Event]) -> None:
        last = events[-1] if events else None
        if isinstance(last, Request) and last.end_stream:
            return
        trailers: Headers = list(event.headers)
        rules.check_head(self._limits, 0, trailers)
        events.append(End(self._stream_id, trailers))

    def _failure(self, error: h11.RemoteProtocolError) -> Failure | Reset:
        """Translate h11's verdict; its text may quote the peer and stays here."""
        data, ended = self._h11.trailing_data
        in_head = self._h11.our_state is h11.IDLE
        if ended and not in_head:
            return Reset(self._stream_id, "the peer went away before the end of the request body")
        if error.error_status_hint == 431:
            if not in_head:
                return Failure(431, "the trailer fields or the extensions of a chunk are too large")
            line, newline, _ = data.partition(b"\n")
            if not newline or 0 < self._limits.request_line < len(line.rstrip(b"\r")):
                return Failure(414, "the request line is too long")
            return Failure(431, "the header fields are too large")
        if error.error_status_hint == 501:
            return Failure(501, "this transfer coding is not implemented")
        return Failure(400, "the request is malformed")

    # Sends

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        del stream_id
        rules.check_answer(status, headers)
        if status >= 200:
            raise LocalProtocolError(f"status {status} cannot be an interim answer")
        if status == 101 and self._h11.their_state is not _MIGHT_SWITCH:
            raise LocalProtocolError("status 101 answers a request that asked for an upgrade")
        if self._h11.their_http_version == b"1.0":  # which has no such answers (RFC 9110 section 15.2)
            return
        fields = rules.answer_fields(status, headers)
        self._send(h11.InformationalResponse(status_code=status, headers=fields, reason=rules.REASONS.get(status, b"")))

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        del stream_id
        rules.check_answer(status, headers)
        if status < 200:
            raise LocalProtocolError(f"status {status} cannot be a final answer")
        fields = rules.answer_fields(status, headers)
        try:
            response = h11.Response(status_code=status, headers=fields, reason=rules.REASONS.get(status, b""))
        except h11.LocalProtocolError as error:  # a Content-Length that is none, a coding h11 does not know
            raise LocalProtocolError(str(error)) from error
        self._silent = not rules.answer_has_body(self._method, status)
        self._send(response)

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        del stream_id
        if data and not self._silent:
            self._send(h11.Data(data=data))
        if end_stream:
            self._send(h11.EndOfMessage())

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        del stream_id
        rules.check_answer(200, trailers)
        fields = [] if self._silent else rules.answer_fields(200, trailers)
        self._send(h11.EndOfMessage(headers=fields))

    def _send(self, event: h11.Event) -> None:
        try:
            pieces = self._h11.send_with_data_passthrough(event)
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(str(error)) from error
        if pieces:
            self._out += pieces

    # Bytes out

    def take(self) -> bytes:
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # Questions

    @property
    def reusable(self) -> bool:
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    @property
    def closing(self) -> bool:
        return self._h11.our_state in (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)

    @property
    def pending(self) -> bool:
        return self._h11.their_state in (h11.DONE, _MIGHT_SWITCH) and bool(self._waiting())

    @property
    def held(self) -> int:
        after = self._h11.their_state in (h11.DONE, _MIGHT_SWITCH)
        return len(self._h11.trailing_data[0]) if after else 0
