"""RFC 9110 and 9112 verdicts and limits that every engine shares.

An engine finds the parts of a message; whether the message is acceptable is decided here, so that all engines
say the same. A verdict against a peer is a RemoteProtocolError whose reason holds none of the peer's bytes.

Where the RFCs leave a choice, the choice is the strict one, for what two parties read in two ways is how requests
are smuggled: lines end with CRLF only, a field is never folded, a length is given once. In three places it is the
kind one: a target may hold bytes beyond ASCII and a "#" (both stay as they are), and empty lines before a request
are dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from asgiri.errors import LocalProtocolError, RemoteProtocolError
from asgiri.types import Headers

# RFC 9110 section 5.6.2: token. Methods and field names are tokens.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
TOKEN: Final = re.compile(_TOKEN)
# RFC 9110 section 5.5: what a field value may hold; obs-text is let through, CTLs are not.
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"
FIELD_VALUE: Final = re.compile(_VALUE)
# RFC 9112 section 5.1: no blank between name and colon. The optional blanks around the value belong to _VALUE.
_FIELD: Final = _TOKEN + rb":" + _VALUE
FIELD_LINE: Final = re.compile(_FIELD)
# RFC 9112 section 3: method SP request-target SP HTTP-version, and exactly one SP each.
_REQUEST_LINE: Final = rb"(" + _TOKEN + rb") ([!-~\x80-\xff]++) HTTP/([0-9]\.[0-9])"
REQUEST_LINE: Final = re.compile(_REQUEST_LINE)
# RFC 9112 section 2.1: a whole head, with the empty line that ends it.
HEAD: Final = re.compile(_REQUEST_LINE + rb"\r\n((?:" + _FIELD + rb"\r\n)*+)\r\n")
# What no line of a head may hold: CTLs but for the tab. CR is one; the CRLF at the end of a line is not of the line.
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
# The lines of a head that say how long the body is.
FRAMING_LINES: Final = re.compile(rb"(?im)^(content-length|transfer-encoding):([^\r]*+)\r")
# RFC 9112 section 7.1 and 7.1.1: chunk-size, then extensions, with the blanks that section 7.1.1 lets a peer send. Its
# groups are not possessive: Python before 3.11.5 goes on behind the half of one that failed (gh-106052).
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*+;[ \t]*+"
    + _TOKEN
    + rb"(?:[ \t]*+=[ \t]*+(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*)"
)
# The same line without extensions, which is what nearly all peers send.
CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")

# RFC 9112 section 3.2.2: absolute-form, as far as an origin server takes it apart. The authority may not be empty
# (RFC 9110 section 4.2.1), and userinfo is refused (section 4.2.4).
ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://(?P<authority>[^/?#@]++)(?P<rest>(?:[/?].*)?)", re.DOTALL)
# RFC 9110 section 7.2 with RFC 3986 section 3.2: uri-host [":" port]; empty for a target that has no authority.
HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z:.]++\]|[0-9A-Za-z\-._~%!$&'()*+,;=]*+)(?::[0-9]*+)?")
# RFC 9110 section 8.6: 1*DIGIT. 18 digits are more than any storage holds, and fewer than 64 bits do.
CONTENT_LENGTH: Final = re.compile(rb"[0-9]++")
CONTENT_LENGTH_DIGITS: Final = 18

FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
# RFC 9110 section 6.5.1: fields that frame, route, authenticate or change the request are no trailer fields.
NO_TRAILERS: Final = FRAMING | frozenset(
    b"authorization cache-control connection content-encoding content-range content-type cookie date expect expires"
    b" forwarded host keep-alive location max-forwards pragma proxy-authenticate proxy-authorization proxy-connection"
    b" range retry-after set-cookie te trailer upgrade vary www-authenticate x-forwarded-for x-forwarded-host"
    b" x-forwarded-proto".split()
)

# How many bytes of chunk extensions a body may have more than it has content: a peer that sends mostly these is none.
EXTENSIONS_SIZE: Final = 16 << 10
# One line of chunk size and extensions. Signed uploads send about a hundred bytes.
CHUNK_LINE_SIZE: Final = 4 << 10


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much of a message is taken, in bytes and counts; 0 is no limit."""

    request_line: int = 8 << 10
    header_count: int = 100
    header_size: int = 64 << 10
    body_size: int = 0


# The head, line by line


def check_line(line: bytes, most: int, too_long: str, status: int, searched: int = 0) -> None:
    """Refuse a line, whole or the beginning of one, for what is wrong first: its length or a control character.

    ``most`` bytes are let through; ``status`` and ``too_long`` say what more are. The verdict on the beginning of a
    line is the one on the whole of it, so it does not matter in which pieces a line comes. In the first ``searched``
    bytes was nothing wrong.
    """
    bad = CONTROL.search(line, searched)
    if len(line) > most and not (bad and bad.start() < most):
        raise RemoteProtocolError(too_long, status)
    if bad:
        raise RemoteProtocolError("the request holds a control character where none may be")


def check_request_line(line: bytes) -> None:
    """Refuse a request line without its CRLF that is none (RFC 9112 section 3), or of a version not spoken here."""
    match = REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError("the request line is malformed")
    check_version(match[3])


def check_version(version: bytes) -> str:
    """ "1.0" or "1.1" for the digits of an HTTP-version. A higher minor counts as 1.1 (RFC 9110 section 2.5)."""
    if not version.startswith(b"1."):
        raise RemoteProtocolError("this HTTP version is not spoken here", 505)
    return "1.0" if version == b"1.0" else "1.1"


def check_field_line(line: bytes) -> None:
    """Refuse a field line, without its CRLF, that is none (RFC 9112 section 5); folding is refused (section 5.2)."""
    if FIELD_LINE.fullmatch(line) is None:
        raise RemoteProtocolError("a header field is malformed")


# The head as a whole


def is_host(value: bytes) -> bool:
    return HOST.fullmatch(value) is not None


# Few names come again and again. A long one is not for the cache, which would grow with it.
is_known_host = lru_cache(maxsize=256)(is_host)
LONG_HOST: Final = 256


def check_host(version: str, hosts: list[bytes]) -> None:
    """Refuse a request whose Host is missing, there twice, or none (RFC 9112 section 3.2); 1.0 may have none."""
    if len(hosts) > 1:
        raise RemoteProtocolError("there is more than one Host header field")
    if not hosts:
        if version != "1.0":
            raise RemoteProtocolError("the Host header field is missing")
    elif not is_host(hosts[0]):
        raise RemoteProtocolError("the Host header field is malformed")


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Path, query and authority of a request target (RFC 9112 section 3.2).

    The path and the query stay percent-encoded. The authority is None unless the target is in absolute form.
    """
    if method == b"CONNECT":  # authority-form is for tunnels; an origin server has none to offer
        raise RemoteProtocolError("CONNECT is not implemented", 501)
    authority = None
    if not target.startswith(b"/"):
        if target == b"*":
            if method != b"OPTIONS":
                raise RemoteProtocolError('the request target "*" goes with OPTIONS only')
            return b"*", b"", None
        match = ABSOLUTE_FORM.fullmatch(target)
        if match is None or not is_host(match["authority"]):
            raise RemoteProtocolError("the request target is malformed")
        authority, target = match.groups()
        if not target.startswith(b"/"):
            target = b"/" + target
    path, _, query = target.partition(b"?")
    return path, query, authority


def split_fields(fields: bytes) -> Headers:
    """The fields of lines that :func:`check_field_line` let through, names in lower case, for want of an engine."""
    pairs = (line.partition(b":") for line in fields.split(b"\r\n") if line)
    return [(name.lower(), value.strip(b" \t")) for name, _, value in pairs]


def with_authority(headers: Headers, authority: bytes) -> Headers:
    """The fields with Host replaced by the target's authority (RFC 9112 section 3.2.2)."""
    return [(b"host", authority), *(field for field in headers if field[0] != b"host")]


def check_framing(version: str, fields: bytes, limits: HttpLimits) -> int | None:
    """The size of the body that follows the head, None for a chunked one (RFC 9112 section 6.3).

    It looks at the lines themselves, for engines make one of fields that are there twice. Refuses a body whose length
    two parties could read in two ways (section 6.1), and one that is too large.
    """
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in FRAMING_LINES.findall(fields):
        (lengths if name.lower() == b"content-length" else codings).append(value.strip(b" \t"))
    if codings:
        if lengths:
            raise RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other")
        if version == "1.0":
            raise RemoteProtocolError("Transfer-Encoding is not known in HTTP/1.0")
        check_codings(codings)
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or CONTENT_LENGTH.fullmatch(lengths[0]) is None:
        raise RemoteProtocolError("the Content-Length header field is not one number")
    if len(lengths[0]) > CONTENT_LENGTH_DIGITS:  # leading zeros and all: engines count these too
        raise RemoteProtocolError("the request body is too large", 413)
    size = int(lengths[0])
    check_body(size, limits)
    return size


def check_codings(values: list[bytes]) -> None:
    """Refuse every Transfer-Encoding but "chunked" alone (RFC 9112 sections 6.1, 6.3 and 7)."""
    codings = listed(values)
    if codings == [b"chunked"]:
        return
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or b"" in codings:
        raise RemoteProtocolError("the transfer codings leave the length of the body open")
    raise RemoteProtocolError("this transfer coding is not implemented", 501)


def says_close(options: list[bytes]) -> bool:
    """Whether the values of Connection hold the option "close" (RFC 9110 section 7.6.1)."""
    return b"close" in listed(options)


def says_upgrade(options: list[bytes]) -> bool:
    """Whether the values of Connection make an Upgrade field one for us (RFC 9110 section 7.8)."""
    return b"upgrade" in listed(options)


def asked_protocol(headers: Headers) -> bytes:
    """What the request's Upgrade fields name, in lower case and as one list (RFC 9110 section 7.8)."""
    return b", ".join(value for name, value in headers if name == b"upgrade").lower()


def says_continue(expectations: list[bytes]) -> bool:
    """Whether the peer waits for a 100 before it sends the body (RFC 9110 section 10.1.1)."""
    return b"100-continue" in listed(expectations)


def listed(values: list[bytes]) -> list[bytes]:
    """The members of a list that may be spread over several fields, in lower case (RFC 9110 section 5.6.1)."""
    return [member.strip(b" \t").lower() for value in values for member in value.split(b",")]


# The body


def check_chunk_line(line: bytes) -> tuple[int, int]:
    """The chunk's size and how many bytes its extensions take (RFC 9112 section 7.1), of a line without its CRLF."""
    match = CHUNK_LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError("the size of a chunk is malformed")
    digits, rest = match.groups()
    return int(digits, 16), len(rest)


def check_body(size: int, limits: HttpLimits) -> None:
    """Refuse a body of ``size`` bytes when that is too many."""
    if 0 < limits.body_size < size:
        raise RemoteProtocolError("the request body is too large", 413)


def known_trailers(trailers: Headers) -> Headers:
    """The trailer fields, trimmed, without those that must not be any (RFC 9110 section 6.5.1)."""
    return [(name, value.strip(b" \t")) for name, value in trailers if name not in NO_TRAILERS]


# Answers


def answer_has_body(method: str, status: int) -> bool:
    """Whether an answer to ``method`` with ``status`` has content at all (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)


def check_informational(status: int, upgrade: bool) -> None:
    """Raise LocalProtocolError unless ``status`` is one of an interim answer; 101 answers an upgrade only."""
    if not 100 <= status < 200:
        raise LocalProtocolError(f"status {status} cannot be an interim answer: expected 100 to 199")
    if status == 101 and not upgrade:
        raise LocalProtocolError("status 101 answers a request that asked for an upgrade")


def check_final(status: int) -> None:
    """Raise LocalProtocolError unless ``status`` is one of a final answer."""
    if not 200 <= status <= 599:
        raise LocalProtocolError(f"status {status} cannot be a final answer: expected 200 to 599")


def check_answer_fields(headers: Headers) -> None:
    """Raise LocalProtocolError for a field that must not go onto the wire (RFC 9110 section 5)."""
    for name, value in headers:
        if TOKEN.fullmatch(name) is None:
            raise LocalProtocolError(f"header name {name!r} is no token")
        if FIELD_VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"the value of header {name!r} holds a control character: {value!r}")


def check_answer_trailers(trailers: Headers) -> None:
    """Raise LocalProtocolError for trailer fields that must not go onto the wire (RFC 9110 section 6.5.1)."""
    check_answer_fields(trailers)
    for name, _ in trailers:
        if name.lower() in NO_TRAILERS:
            raise LocalProtocolError(f"{name!r} cannot be a trailer field")


def answer_fields(status: int, headers: Headers) -> Headers:
    """The fields of an answer's head as they go onto the wire.

    Values are trimmed (RFC 9110 section 5.5). The transfer coding is the server's to choose (ASGI HTTP spec,
    ``http.response.start``): "chunked" is left out, another one is a LocalProtocolError. An answer that ends with its
    head by definition, 1xx or 204, names no length (section 8.6).
    """
    fields = []
    silent = status < 200 or status == 204
    for name, value in headers:
        value = value.strip(b" \t")
        if name.lower() == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise LocalProtocolError(f"transfer-encoding: expected chunked, got {value!r}")
        elif not silent or name.lower() != b"content-length":
            fields.append((name, value))
    return fields


def framed(status: int, headers: Headers, close: bool) -> tuple[Headers, bool, bool]:
    """The fields of an answer's head without Connection: close, whether one is its length, and whether it closes."""
    length = answer_length(headers)
    fields = answer_fields(status, headers)
    close = close or says_close([value for name, value in fields if name == b"connection"])
    if close:
        fields = [field for field in fields if field[0] != b"connection"]
    return fields, length is not None and status != 204, close


def answer_length(headers: Headers) -> int | None:
    """The Content-Length of an answer; None without one. Raises LocalProtocolError for two, or for no number."""
    values = [value.strip(b" \t") for name, value in headers if name.lower() == b"content-length"]
    if not values:
        return None
    if len(values) > 1 or CONTENT_LENGTH.fullmatch(values[0]) is None or len(values[0]) > CONTENT_LENGTH_DIGITS:
        raise LocalProtocolError(f"content-length: expected one number of bytes, got {b', '.join(values)!r}")
    return int(values[0])
