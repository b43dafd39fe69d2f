"""HTTP/1.1 on httptools: llhttp takes the approved pieces of a request apart, and the answers are written here."""

from __future__ import annotations

from enum import Enum
from typing import Final

import httptools

from asgiri.codec import rules
from asgiri.codec.contract import Http1Codec
from asgiri.codec.events import Body, Event
from asgiri.codec.framing import CLOSED, CRLF, HEAD, WHOLE, EngineError
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.statuses import REASONS
from asgiri.types import Headers, KnownHeaders

# llhttp knows fewer methods, versions and targets than the RFCs, and reads no body behind an Upgrade. The head is read
# already, so it may see another one with a body of the same length.
STAND_IN: Final = b"POST / HTTP/1.1\r\n"
NO_HEADERS: Final[Headers] = []
NO_ANSWER: Final = "there is no answer in progress"
CLOSE_LINE: Final = b"connection: close\r\n"
CHUNKED_LINE: Final = b"transfer-encoding: chunked\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"")) for status in range(100, 600)}
# Fields of an answer that its framing depends on.
FRAMED_BY: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})

# Fields of answers that were checked -> their lines. Apps send the same few again and again; those that differ each
# time fill it up, and then it begins anew. No field that frames is in it, nor a long one.
LINES: Final[dict[tuple[bytes, bytes], bytes]] = {}
MOST_LINES: Final = 1024
LONG_LINE: Final = 256


def plain_line(field: tuple[bytes, bytes]) -> bytes:
    """The line of a field that does not frame. Raises LocalProtocolError for one that must not go out."""
    rules.check_answer_fields([field])
    line = b"%b: %b\r\n" % field
    if len(line) <= LONG_LINE:
        if len(LINES) >= MOST_LINES:
            LINES.clear()
        LINES[field] = line
    return line


class Answer(Enum):
    NONE = "none"
    BODY = "body"  # its head is sent
    DONE = "done"


NONE: Final = Answer.NONE
BODY: Final = Answer.BODY
DONE: Final = Answer.DONE


class HttptoolsCodec(Http1Codec):
    """The server side of one HTTP/1.1 connection (RFC 9112). ``stream_id`` counts the requests from 1."""

    __slots__ = ("_answer", "_chunked", "_close", "_headers", "_out", "_parser", "_silent")

    REMEMBERS = True

    def __init__(self, limits: HttpLimits) -> None:
        super().__init__(limits)
        self._headers = NO_HEADERS  # of the head that llhttp is reading
        self._parser = httptools.HttpRequestParser(self)
        self._out: list[bytes] = []
        self._answer = NONE
        self._chunked = False  # the answer in progress is
        self._silent = False  # the answer in progress may have no content
        self._close = False  # the connection ends with the answer in progress

    # What llhttp reads

    def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
        del method, version
        headers = self._headers = []
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            self._stand_in(headers)
        except httptools.HttpParserError:
            headers = rules.split_fields(fields)
            self._stand_in(headers)
        self._headers = NO_HEADERS
        # llhttp leaves the blanks behind a value where they are.
        if fields.find(b" \r\n") >= 0 or fields.find(b"\t\r\n") >= 0:
            headers[:] = [(name, value.rstrip(b" \t")) for name, value in headers]
        return headers

    def _stand_in(self, headers: Headers) -> None:
        """Another parser, which knows no more of the request than how long its body is."""
        framing = [b"%b: %b\r\n" % (name, value.strip(b" \t")) for name, value in headers if name in rules.FRAMING]
        self._headers = []  # its fields are of no use
        self._parser = httptools.HttpRequestParser(self)
        self.take_body(b"".join([STAND_IN, *framing, CRLF]))

    def take_body(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise EngineError from error

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp."""
        self._headers.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        """Called by llhttp."""
        self._events.append(Body(self._stream_id, data))

    # Sends

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> bytes:
        out = self._out
        if type(headers) is not KnownHeaders or out or self._phase is not WHOLE or self._answer is not NONE:
            self.send_head(stream_id, status, headers)
        elif headers.http1:  # the connection goes on, for the request is whole and did not say close
            self._chunked = self._close = False
            self._silent = self._method == "HEAD" or status == 204 or status == 304
            out.append(headers.http1)
            self.sent = 0
        else:
            self.send_head(stream_id, status, headers)
            if not self._chunked and not self._close:
                headers.http1 = b"".join(out)
        if data and not self._silent:
            self.sent = len(data)
            out += (b"%x\r\n" % len(data), data, CRLF) if self._chunked else (data,)
        if self._chunked and not self._silent:
            out.append(LAST_CHUNK)
        self._answer = DONE
        data = b"".join(out)
        out.clear()
        return data

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        del stream_id
        rules.check_informational(status, self._upgrade)
        if self._answer is not NONE:
            raise LocalProtocolError("an interim answer comes before the final one")
        rules.check_answer_fields(headers)
        fields = rules.answer_fields(status, headers)
        if self._version != "1.0":  # which has no such answers (RFC 9110 section 15.2)
            self._out += [STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in fields], CRLF]

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        del stream_id
        if self._answer is not NONE:
            raise LocalProtocolError("the answer has a head already")
        if not 200 <= status <= 599:
            rules.check_final(status)
        close = self._last or self._phase is CLOSED
        has_length = False
        lines = [STATUS_LINES[status]]
        for field in headers:
            line = LINES.get(field)
            if line is None:
                name, value = field
                if name not in FRAMED_BY:
                    line = plain_line(field)
                elif (
                    name == b"content-length"
                    and value.isdigit()
                    and len(value) <= rules.CONTENT_LENGTH_DIGITS
                    and not has_length
                    and status != 204
                ):
                    has_length = True
                    line = b"content-length: %b\r\n" % value
                else:
                    lines, has_length, close = self._framed(status, headers, close)
                    break
            lines.append(line)
        has_body = status != 204 and status != 304
        self._chunked = not has_length and has_body and self._version != "1.0"
        if self._chunked:
            lines.append(CHUNKED_LINE)
        if close:
            lines.append(CLOSE_LINE)
        lines.append(CRLF)
        self._out += lines
        self._close = close
        self._silent = not has_body or self._method == "HEAD"
        self._answer = BODY
        self.sent = 0

    def _framed(self, status: int, headers: Headers, close: bool) -> tuple[list[bytes], bool, bool]:
        """The lines of a head whose fields frame it in no plain way; whether one is its length, and if it closes."""
        rules.check_answer_fields(headers)
        headers, has_length, close = rules.framed(status, headers, close)
        return [STATUS_LINES[status], *[b"%b: %b\r\n" % field for field in headers]], has_length, close

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        del stream_id
        if self._answer is not BODY:
            raise LocalProtocolError(NO_ANSWER)
        if data and not self._silent:
            self.sent += len(data)
            if self._chunked:
                self._out += (b"%x\r\n" % len(data), data, CRLF)
            else:
                self._out.append(data)
        if end_stream:
            self._end(LAST_CHUNK)

    def begin_raw(self, stream_id: int, size: int) -> bool:
        del stream_id
        if self._answer is not BODY:
            raise LocalProtocolError(NO_ANSWER)
        if self._silent or not size:
            return False
        self.sent += size
        if self._chunked:
            self._out.append(b"%x\r\n" % size)
        return True

    def end_raw(self, stream_id: int, end_stream: bool) -> None:
        del stream_id
        if self._chunked and not self._silent:
            self._out.append(CRLF)
        if end_stream:
            self._end(LAST_CHUNK)

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        del stream_id
        if self._answer is not BODY:
            raise LocalProtocolError(NO_ANSWER)
        rules.check_answer_trailers(trailers)
        lines = [b"%b: %b\r\n" % (name, value.strip(b" \t")) for name, value in trailers]
        self._end(b"".join([b"0\r\n", *lines, CRLF]))

    def _end(self, last_chunk: bytes) -> None:
        if self._chunked and not self._silent:
            self._out.append(last_chunk)
        self._answer = DONE

    # Bytes out

    def take(self) -> bytes:
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        return data

    # From one exchange to the next

    def next_request(self) -> list[Event]:
        self._answer = NONE
        return super().next_request()

    def renew(self) -> bool:
        if self._answer is not DONE or self._phase is not WHOLE or self._close or self.rest or self._ended:
            return False
        self._answer = NONE
        self._phase = HEAD
        self._method = ""
        self._upgrade = False
        return True

    @property
    def reusable(self) -> bool:
        return self._answer is DONE and self._phase is WHOLE and not self._close

    @property
    def closing(self) -> bool:
        return self._answer is DONE and self._close
