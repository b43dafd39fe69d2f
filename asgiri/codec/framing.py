"""Where a request begins and ends: the strict reader of RFC 9112 framing that stands in front of every engine.

Engines disagree about what is a line, a chunk or the end of a message, and a request that two parties end at different
bytes is how requests are smuggled. So the cutting is done here, once. An engine only ever sees approved pieces of one
request, and takes them apart.

    HEAD     before or within a head                LENGTH    within a body of known length
    SIZE     at a chunk's size line                 CHUNK     within a chunk's content
    END_OF_CHUNK  behind a chunk's content          TRAILERS  behind the last chunk
    WHOLE    the request is complete: what comes waits for the next exchange
    CLOSED   nothing is parsed any more: an error, the peer's end, or a request that said "close" is complete

    HEAD  --no body--> WHOLE    --length--> LENGTH --all of it--> WHOLE    --chunked--> SIZE
    SIZE  --a size--> CHUNK --all of it--> END_OF_CHUNK --CRLF--> SIZE     --zero--> TRAILERS --empty line--> WHOLE
    WHOLE --next_request--> HEAD
    An error and the end of file lead to CLOSED from anywhere but WHOLE, and what leads to WHOLE leads to CLOSED where
    the request said so.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final

from asgiri.codec import rules
from asgiri.codec.events import End, Event, Failure, Request, Reset
from asgiri.codec.rules import HttpLimits
from asgiri.errors import RemoteProtocolError
from asgiri.types import Headers

CRLF: Final = b"\r\n"
# A head for which there are no limits must end somewhere, in bytes and in fields.
ENDLESS: Final = 1 << 20


class Phase(Enum):
    HEAD = "head"
    LENGTH = "length"
    SIZE = "size"
    CHUNK = "chunk"
    END_OF_CHUNK = "end of chunk"
    TRAILERS = "trailers"
    WHOLE = "whole"
    CLOSED = "closed"


# For the hot path: a member of an Enum by its class is a slow look-up on Python 3.11.
HEAD: Final = Phase.HEAD
LENGTH: Final = Phase.LENGTH
SIZE: Final = Phase.SIZE
CHUNK: Final = Phase.CHUNK
END_OF_CHUNK: Final = Phase.END_OF_CHUNK
TRAILERS: Final = Phase.TRAILERS
WHOLE: Final = Phase.WHOLE
CLOSED: Final = Phase.CLOSED

# The fields that frame a request or manage its connection.
WATCHED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})
NO_EVENTS: Final[list[Event]] = []
# A request without any of them but Host: no body, nothing is expected.
PLAIN: Final = (0, False)
# Longer field sections are not remembered, in bytes: each connection has one.
MOST_KNOWN: Final = 2 << 10
# Nor are longer request lines, of which all connections together have some.
LONG_LINE: Final = 256


class EngineError(Exception):
    """The engine does not understand a piece that was approved."""


@lru_cache(maxsize=1024)
def plain_line(line: bytes) -> tuple[str, bytes, bytes, bytes] | None:
    """Method, target, path and query of a request line of HTTP/1.1 in origin form; None for any other."""
    match = rules.REQUEST_LINE.fullmatch(line)
    if match is None or match[3] != b"1.1" or not match[2].startswith(b"/") or match[1] == b"CONNECT":
        return None
    path, query, _ = rules.split_target(match[1], match[2])
    return match[1].decode("ascii"), match[2], path, query


class RequestReader:
    """The receiving side of a codec, which an engine completes with :meth:`take_head` and :meth:`take_body`."""

    __slots__ = (
        "_approved",
        "_at",
        "_body_size",
        "_ended",
        "_events",
        "_extensions",
        "_fields",
        "_from",
        "_known",
        "_known_fields",
        "_last",
        "_least_limit",
        "_left",
        "_limits",
        "_line",
        "_method",
        "_most_fields",
        "_most_line",
        "_most_size",
        "_phase",
        "_searched",
        "_stream_id",
        "_trailers",
        "_upgrade",
        "_version",
        "rest",
    )

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._most_line = limits.request_line or ENDLESS
        self._most_size = limits.header_size or ENDLESS
        self._most_fields = limits.header_count or ENDLESS
        self._least_limit = min(self._most_line, self._most_size)
        self._phase = HEAD
        self.rest = b""  # what has come and was not approved yet; behind a whole request, what is of the next ones
        self._at = 0  # how much of the buffer is approved
        self._from = 0  # where what the engine gets of that begins
        self._approved: list[bytes] = []  # and what it gets before that
        self._line = 0  # where the first line that was not judged begins in the buffer
        self._searched = 0  # bytes of that line that hold nothing wrong, when all of it was not here yet
        self._fields = 0  # field lines of the section that were judged
        self._left = 0  # bytes that the body, or the chunk, still has
        self._body_size = 0
        self._extensions = 0  # bytes of the body's chunk extensions
        self._events = NO_EVENTS
        self._trailers: Headers = []
        self._ended = False  # the peer sends nothing more
        # The lines of the last head's fields, when they were plain, and the fields. Clients mostly send them again.
        self._known = b""
        self._known_fields: Headers = []
        self._stream_id = 0  # counts the requests from 1
        self._method = ""
        self._version = "1.1"
        self._last = False  # the connection ends with this request
        self._upgrade = False  # the request asks for another protocol

    # What an engine adds

    REMEMBERS = False  # the engine need not see a head without a body whose fields it has seen before

    def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
        """The header fields, names in lower case, of an approved ``head``; ``fields`` are its field lines.

        Raises EngineError when the engine cannot read it.
        """
        raise NotImplementedError

    def take_body(self, data: bytes) -> None:
        """Take approved bytes of the body, chunks and all, and put their content into ``_events``.

        Chunk extensions and trailer fields are left out, for engines disagree about what these may hold. Raises
        EngineError when the engine cannot read it.
        """
        raise NotImplementedError

    # Bytes in

    def receive(self, data: bytes) -> list[Event]:
        """Events that ``data`` completes; ``b""`` is the peer's end of file. Never raises for a peer's bytes."""
        phase = self._phase
        if phase is HEAD and self._known and not self.rest and data.endswith(self._known):
            request = self._known_request(data)
            if request is not None:
                return [request]
        if phase is CLOSED:
            return []
        if not data:
            return self._end_of_file()
        self.rest = self.rest + data if self.rest else data
        return [] if phase is WHOLE else self._read()

    def next_request(self) -> list[Event]:
        """Leave the exchange that is over; events of the next one, as far as its bytes are here."""
        self._phase = HEAD
        self._method = ""
        self._upgrade = False
        if not self.rest and not self._ended:
            return []
        events = self._read() if self.rest else []
        if self._ended:
            events += self._end_of_file()
        return events

    @property
    def pending(self) -> bool:
        """Bytes of another request have come and wait for :meth:`next_request`."""
        return bool(self.rest) and self._phase is WHOLE and bool(self.rest.lstrip(CRLF))

    def _end_of_file(self) -> list[Event]:
        self._ended = True
        phase = self._phase
        if phase is WHOLE or phase is CLOSED:
            return []
        self._phase = CLOSED
        if phase is not HEAD:
            return [Reset(self._stream_id, "the peer went away before the end of the request body")]
        return [Failure(400, "the request ends in its head")] if self.rest else []

    def _read(self) -> list[Event]:
        """Go through the buffer as far as the request goes, and as its bytes are here."""
        events = self._events = []
        try:
            if self._phase is not HEAD or self._read_head():
                while self.rest and self._read_body():
                    pass
        except RemoteProtocolError as error:
            self._fail(error.status, error.reason)
        except EngineError:
            self._fail(400, "the request is malformed")
        self._events = NO_EVENTS  # lest an idle connection holds its last request
        return events

    def _fail(self, status: int, reason: str) -> None:
        self._phase = CLOSED
        self.rest = b""
        self._events.append(Failure(status, reason))

    # The head

    def _read_head(self) -> bool:
        """Read the head, when all of it is here; whether a body follows."""
        buffer = self.rest
        begun = self._searched or self._line  # then it came in pieces, and not all of it is searched again
        match = None if begun else rules.HEAD.match(buffer)
        if match is None or (len(buffer) > self._least_limit and self._is_over_limits(match)):
            if not begun:
                buffer = self.rest = buffer.lstrip(CRLF)  # RFC 9112 section 2.2
            if not self._judge_lines():
                return False
            match = rules.HEAD.match(buffer)
            if match is None:
                raise RemoteProtocolError("the request is malformed")
        method, target, version, fields = match.groups()
        end = match.end()
        if end == len(buffer):
            head, self.rest = buffer, b""
        else:
            head, self.rest = buffer[:end], buffer[end:]
        self._line = self._fields = 0
        self._method = method.decode("ascii")
        try:
            headers = self.take_head(method, version, head, fields)
        except EngineError:  # mostly for framing that it must refuse, and the verdict on that is the rules'
            self._judge_head(method, target, version, fields, rules.split_fields(fields))
            self._events.clear()
            raise
        return self._judge_head(method, target, version, fields, headers)

    def _known_request(self, head: bytes) -> Request | None:
        """The request of a head whose fields are those of the last one; None when it is not as plain as that."""
        end = len(head) - len(self._known)
        line = plain_line(head[:end]) if end <= LONG_LINE else None
        if line is None or end > self._most_line:
            return None
        self._method, target, path, query = line
        self._stream_id += 1
        self._phase = WHOLE
        return Request(
            self._stream_id, self._method, target, path, query, self._known_fields.copy(), self._version, True
        )

    def _is_over_limits(self, head: re.Match[bytes]) -> bool:
        return head.end(3) > self._most_line or head.end(4) - head.start(4) > self._most_size

    def _judge_lines(self) -> bool:
        """Judge the lines of the head, or of the trailers, that are here; whether the last one is among them."""
        buffer = self.rest
        is_head = self._phase is HEAD
        begin = buffer.find(b"\n") + 1 if is_head else 0  # of the first field line
        while True:
            searched = self._searched
            newline = buffer.find(b"\n", self._line + searched)
            line = buffer[self._line : newline if newline >= 0 else len(buffer)]
            ends_with_cr = line.endswith(b"\r")
            if ends_with_cr:
                line = line[:-1]
            if is_head and self._line == 0:
                rules.check_line(line, self._most_line, "the request line is too long", 414, searched)
            elif line:
                room = max(0, self._most_size - (self._line - begin) - len(CRLF))
                rules.check_line(line, room, "the header fields are too large", 431, searched)
            if newline < 0:
                self._searched = len(line)
                return False
            self._searched = 0
            if not ends_with_cr:
                raise RemoteProtocolError("a line of the request ends without CR")
            if is_head and self._line == 0:
                rules.check_request_line(line)
            elif not line:
                self._line = newline + 1
                return True
            else:
                self._count_field()
                rules.check_field_line(line)
            self._line = newline + 1

    def _count_field(self) -> None:
        self._fields += 1
        if self._fields > self._most_fields:
            raise RemoteProtocolError("too many header fields", 431)

    def _judge_head(self, method: bytes, target: bytes, version: bytes, fields: bytes, headers: Headers) -> bool:
        """Refuse what the rules refuse, or make the request; whether a body follows."""
        managed = version != b"1.1"  # more than the plain case
        spoken = rules.check_version(version) if managed else "1.1"
        if len(headers) > self._most_fields:
            raise RemoteProtocolError("too many header fields", 431)
        hosts = []
        for name, value in headers:
            if name in WATCHED:
                if name == b"host":
                    hosts.append(value)
                elif name != b"connection" or value != b"keep-alive":
                    managed = True
        path, query, authority = rules.split_target(method, target)
        if len(hosts) != 1 or len(hosts[0]) > rules.LONG_HOST or not rules.is_known_host(hosts[0]):
            rules.check_host(spoken, hosts)
        self._version = spoken
        size, expects = self._judge_framing(spoken, fields, headers) if managed else PLAIN
        if authority is not None:
            headers = rules.with_authority(headers, authority)
        self._stream_id += 1
        protocol = rules.asked_protocol(headers) if self._upgrade else b""
        self._events.append(
            Request(self._stream_id, self._method, target, path, query, headers, spoken, size == 0, expects, protocol)
        )
        if size == 0:
            self._phase = CLOSED if self._last else WHOLE
            if self.REMEMBERS and not managed and authority is None and len(fields) < MOST_KNOWN:
                self._known = CRLF + fields + CRLF
                self._known_fields = headers.copy()
            return False
        self._body_size = self._extensions = 0
        self._trailers = []
        self._left = size or 0
        self._phase = SIZE if size is None else LENGTH
        return True

    def _judge_framing(self, version: str, fields: bytes, headers: Headers) -> tuple[int | None, bool]:
        """The size of the body, None for a chunked one, and whether the peer waits for a 100 before it sends it."""
        size = rules.check_framing(version, fields, self._limits)
        options = [value for name, value in headers if name == b"connection"]
        self._last = version == "1.0" or rules.says_close(options)
        self._upgrade = (
            not self._last and rules.says_upgrade(options) and any(name == b"upgrade" for name, _ in headers)
        )
        if size == 0 or version == "1.0":
            return size, False
        if size is None:  # the coding's name in one case, for engines differ
            place = next(i for i, (name, _) in enumerate(headers) if name == b"transfer-encoding")
            headers[place] = (b"transfer-encoding", b"chunked")
        return size, rules.says_continue([value for name, value in headers if name == b"expect"])

    # The body

    def _read_body(self) -> bool:
        """Approve what is here of the body and let the engine take it; whether there may be more to do."""
        self._at = self._from = 0
        phase = self._phase
        try:
            while self._at < len(self.rest) and STEPS[self._phase](self):
                pass
        finally:
            taken, self.rest = self.rest[self._from : self._at], self.rest[self._at :]
            if self._approved:
                taken = b"".join([*self._approved, taken])
                self._approved.clear()
            if taken:
                self.take_body(taken)
        if self._phase is WHOLE:
            self._events.append(End(self._stream_id, self._trailers))
            if self._last:
                self._phase = CLOSED
            return False
        return self._phase is not phase

    def _step_content(self) -> bool:
        taken = min(self._left, len(self.rest) - self._at)
        self._at += taken
        self._left -= taken
        if self._left:
            return False
        if self._phase is LENGTH:
            self._phase = WHOLE
            return False
        self._phase = END_OF_CHUNK
        return True

    def _step_size(self) -> bool:
        buffer = self.rest
        plain = rules.CHUNK_SIZE.match(buffer, self._at)
        if plain is not None:
            size, begin = int(plain[1], 16), plain.end()
        else:
            newline = buffer.find(b"\n", self._at)
            line = buffer[self._at : newline if newline >= 0 else len(buffer)]
            ends_with_cr = line.endswith(b"\r")
            if ends_with_cr:
                line = line[:-1]
            rules.check_line(line, rules.CHUNK_LINE_SIZE, "the extensions of a chunk are too large", 400)
            if newline < 0:
                return False
            if not ends_with_cr:
                raise RemoteProtocolError("a line of the request ends without CR")
            size, extensions = rules.check_chunk_line(line)
            self._extensions += extensions
            self._approved.append(buffer[self._from : newline - 1 - extensions])
            self._from = self._at = newline - 1  # approved that far, whatever is said of the size
            begin = newline + 1
        self._body_size += size
        rules.check_body(self._body_size, self._limits)
        if self._extensions > rules.EXTENSIONS_SIZE + self._body_size:
            raise RemoteProtocolError("the extensions of the chunks are too large")
        if size and buffer.startswith(CRLF, begin + size):  # all of the chunk is here
            self._at = begin + size + len(CRLF)
            return True
        self._at = begin
        self._left = size
        self._phase = CHUNK if size else TRAILERS
        return bool(size)

    def _step_crlf(self) -> bool:
        found = self.rest[self._at : self._at + len(CRLF)]
        if not CRLF.startswith(found):
            raise RemoteProtocolError("a chunk is longer than its size")
        if len(found) < len(CRLF):
            return False
        self._at += len(CRLF)
        self._phase = SIZE
        return True

    def _step_trailers(self) -> bool:
        if self._judge_lines():
            self._at = self._line
            self._from = self._at - len(CRLF)
            if self._from:
                self._trailers = rules.known_trailers(rules.split_fields(self.rest[: self._from]))
            self._line = self._fields = 0
            self._phase = WHOLE
        return False


STEPS: Final = {
    LENGTH: RequestReader._step_content,
    CHUNK: RequestReader._step_content,
    SIZE: RequestReader._step_size,
    END_OF_CHUNK: RequestReader._step_crlf,
    TRAILERS: RequestReader._step_trailers,
}
