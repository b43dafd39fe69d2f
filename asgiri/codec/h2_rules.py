"""Verdicts on HTTP/2's header lists (RFC 9113 section 8) that both engines share, on top of RFC 9110's in rules.py.

A request may be malformed, which is an error of its stream (StreamFault, section 8.1.1), or readable and refused: a
RemoteProtocolError, whose status is the answer. What is over a limit is refused before it is looked at, so that the
verdict does not depend on how much of the list was kept.
"""

from __future__ import annotations

import re
from typing import Final

from asgiri.codec import rules
from asgiri.codec.events import Request
from asgiri.codec.h2_wire import ErrorCode, Http2Options, StreamFault
from asgiri.codec.rules import HttpLimits
from asgiri.errors import LocalProtocolError, RemoteProtocolError
from asgiri.types import Headers

# RFC 7541 section 4.1: what a field costs besides its bytes.
FIELD_COST: Final = 32
# What it costs as a line of HTTP/1.1, so that limits.header_size means the same: ": " and CRLF.
LINE_COST: Final = 4

# RFC 9113 section 8.2.1: names are tokens (RFC 9110 section 5.1) in lower case; values begin and end in no blank.
NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]++")
BLANKS: Final = (b" ", b"\t")
# RFC 3986 section 3.1.
SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*+")
# RFC 9113 section 8.3.1: origin-form, or the asterisk. Bytes beyond ASCII and "#" are let through as on HTTP/1.1.
PATH: Final = re.compile(rb"/[!-~\x80-\xff]*+|\*")

# RFC 9113 section 8.3.1, and RFC 8441 section 4 where it is spoken.
PLAIN_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
KNOWN_PSEUDO: Final = PLAIN_PSEUDO | {b":protocol"}
# RFC 9113 section 8.2.2: these manage a connection of HTTP/1.1.
CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
# Values of these are secrets: they are not kept beyond their request.
SECRETS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
# Fields that mean something here, besides the secrets.
WATCHED: Final = CONNECTION_FIELDS | {b"host", b"te", b"content-length", b"expect"}

# RFC 9218 section 4: urgency without a signal. Streams without one are served in turns, though the RFC's default is one
# after the other: a large answer to a client that knows no priorities must not hold up the small ones behind it.
NO_PRIORITY: Final = (3, True)
PRIORITY_MEMBER: Final = re.compile(rb"[ \t]*+(u|i)(?:=(\?0|\?1|[0-7]))?[ \t]*+(?:;[^,]*+)?")

# Plain fields that were judged. Clients send the same ones again and again; those that differ each time fill it up, and
# then it begins anew.
PLAIN: Final[set[tuple[bytes, bytes]]] = set()
MOST_PLAIN: Final = 1024
LONG_FIELD: Final = 256


def malformed(reason: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, reason)


def list_size(fields: Headers) -> int:
    """The size of a header list as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 section 6.5.2)."""
    return sum([len(name) + len(value) for name, value in fields]) + FIELD_COST * len(fields)


def check_list(fields: Headers, options: Http2Options) -> None:
    """Refuse a header list over one of the limits, each crumb of a cookie counted (RemoteProtocolError, 431)."""
    size = list_size(fields)
    if size > options.header_list:
        raise too_large()
    limits = options.limits
    if 0 < limits.header_count < len(fields) or 0 < limits.header_size < size:  # perhaps: pseudo-fields are none there
        check_lines(fields, limits)


def check_lines(fields: Headers, limits: HttpLimits) -> None:
    """Refuse what is too much for HTTP/1.1, counted as there: Host is a field, the request line is not."""
    regular = [field for field in fields if not field[0].startswith(b":") or field[0] == b":authority"]
    if 0 < limits.header_count < len(regular):
        raise RemoteProtocolError("too many header fields", 431)
    size = sum([len(name) + len(value) for name, value in regular]) + LINE_COST * len(regular)
    if 0 < limits.header_size < size:
        raise too_large()


def too_large() -> RemoteProtocolError:
    return RemoteProtocolError("the header fields are too large", 431)


def check_field(field: tuple[bytes, bytes]) -> None:
    """Refuse a field that RFC 9113 sections 8.2.1 and 8.2.2 call malformed."""
    name, value = field
    if NAME.fullmatch(name) is None:
        raise malformed("the name of a header field is malformed")
    if rules.FIELD_VALUE.fullmatch(value) is None or value.startswith(BLANKS) or value.endswith(BLANKS):
        raise malformed("the value of a header field is malformed")
    if name in CONNECTION_FIELDS:
        raise malformed("a header field of HTTP/1.1's connections has come")
    if name == b"te" and value.lower() != b"trailers":
        raise malformed("the TE header field names something else than trailers")
    if name not in WATCHED and name not in SECRETS and len(name) + len(value) <= LONG_FIELD:
        if len(PLAIN) >= MOST_PLAIN:
            PLAIN.clear()
        PLAIN.add(field)


# Requests


def request_of(stream_id: int, fields: Headers, end_stream: bool, options: Http2Options) -> Request:
    """The request that a header list makes (RFC 9113 sections 8.1 to 8.5, RFC 8441).

    Raises StreamFault for a malformed one, RemoteProtocolError with the answer's status for one that is refused.
    """
    check_list(fields, options)
    pseudo, count = pseudo_fields(fields)
    method, target, protocol = request_line(pseudo, options)
    headers, length, expects = judged_fields(fields, count, pseudo.get(b":authority"))
    if length is not None:
        check_length(length, end_stream, options)
    path, _, query = target.partition(b"?")
    expects = expects and not end_stream
    return Request(stream_id, method, target, path, query, headers, "2", end_stream, expects, protocol)


def pseudo_fields(fields: Headers) -> tuple[dict[bytes, bytes], int]:
    """The pseudo-header fields, and how many they are; the others come behind them (RFC 9113 section 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name[:1] != b":":
            break
        if name in pseudo:
            raise malformed("a pseudo-header field is there twice")
        if not value:
            raise malformed("a pseudo-header field is empty")
        pseudo[name] = value
    return pseudo, len(pseudo)


def request_line(pseudo: dict[bytes, bytes], options: Http2Options) -> tuple[str, bytes, bytes]:
    """Method, target and protocol of a request's pseudo-header fields (RFC 9113 section 8.3.1)."""
    if not pseudo.keys() <= (KNOWN_PSEUDO if options.connect_protocol else PLAIN_PSEUDO):
        raise malformed("a pseudo-header field is unknown")
    method = pseudo.get(b":method")
    if method is None or rules.TOKEN.fullmatch(method) is None:
        raise malformed("the :method is missing or malformed")
    protocol = pseudo.get(b":protocol", b"")
    scheme, target = pseudo.get(b":scheme"), pseudo.get(b":path")
    if protocol:  # RFC 8441 section 4
        if method != b"CONNECT" or rules.TOKEN.fullmatch(protocol) is None:
            raise malformed("the :protocol is malformed, or not of a CONNECT")
    elif method == b"CONNECT":  # RFC 9113 section 8.5
        if scheme is not None or target is not None or b":authority" not in pseudo:
            raise malformed("a CONNECT has an :authority and no :scheme or :path")
        raise RemoteProtocolError("CONNECT is not implemented", 501)
    if scheme is None or SCHEME.fullmatch(scheme) is None:
        raise malformed("the :scheme is missing or malformed")
    if target is None or PATH.fullmatch(target) is None:
        raise malformed("the :path is missing or malformed")
    most = options.limits.request_line
    if 0 < most < len(method) + len(target):
        raise RemoteProtocolError("the request line is too long", 414)
    if target == b"*" and method != b"OPTIONS":
        raise malformed('the :path "*" goes with OPTIONS only')
    return method.decode("ascii"), target, protocol


def judged_fields(fields: Headers, count: int, authority: bytes | None) -> tuple[Headers, bytes | None, bool]:
    """The fields behind ``count`` pseudo-fields, the Content-Length, and whether a 100 is waited for.

    Host is the first of them, whichever way it came (RFC 9113 section 8.3.1), and the crumbs of the cookie are joined.
    """
    headers: Headers = [(b"host", authority or b"")]
    crumbs: list[bytes] = []
    length: bytes | None = None
    host: bytes | None = None
    place = 0  # of the cookie
    expects = False
    for field in fields[count:] if count else fields:
        if field not in PLAIN:
            check_field(field)
            name, value = field
            if name == b"host":
                if host is not None:
                    raise malformed("there is more than one Host header field")
                host = value
                continue
            if name == b"cookie":
                crumbs.append(value)
                if len(crumbs) > 1:
                    continue
                place = len(headers)
            elif name == b"content-length":
                if length is not None or rules.CONTENT_LENGTH.fullmatch(value) is None:
                    raise malformed("the Content-Length header field is not one number")
                length = value
            elif name == b"expect":
                expects = expects or rules.says_continue([value])
        headers.append(field)
    if len(crumbs) > 1:  # RFC 9113 section 8.2.3
        headers[place] = (b"cookie", b"; ".join(crumbs))
    if authority is None or host is not None:
        headers[0] = (b"host", agreed_host(authority, host))
    check_host(headers[0][1])
    return headers, length, expects


def agreed_host(authority: bytes | None, host: bytes | None) -> bytes:
    """The Host field, or the :authority with which it must agree; one of them there must be."""
    if authority is None:
        if not host:
            raise malformed("both :authority and Host are missing")
        return host
    if host is not None and host.lower() != authority.lower():
        raise malformed("the Host header field differs from the :authority")
    return authority


def check_host(host: bytes) -> None:
    if not (rules.is_known_host if len(host) <= rules.LONG_HOST else rules.is_host)(host):
        raise malformed("the :authority or Host is malformed")


def check_length(length: bytes, end_stream: bool, options: Http2Options) -> None:
    """Refuse a body that is too large, and one that ends before it begins (RFC 9113 section 8.1.1)."""
    if len(length) > rules.CONTENT_LENGTH_DIGITS:
        raise RemoteProtocolError("the request body is too large", 413)
    size = int(length)
    if end_stream and size:
        raise malformed("the request body is shorter than its Content-Length")
    rules.check_body(size, options.limits)


def body_length(request: Request) -> int | None:
    """How many bytes of body the request says will come; None when it does not say."""
    for name, value in request.headers:
        if name == b"content-length":
            return int(value)
    return None


def trailers_of(fields: Headers, options: Http2Options) -> Headers:
    """The trailer fields of a request (RFC 9113 section 8.1). Raises what :func:`request_of` does."""
    check_list(fields, options)
    for field in fields:
        if field[0].startswith(b":"):
            raise malformed("a pseudo-header field is among the trailers")
        if field not in PLAIN:
            check_field(field)
    return rules.known_trailers(fields)


# Priorities


def priority_of(value: bytes) -> tuple[int, bool]:
    """Urgency, and whether incremental, of a ``priority`` field (RFC 9218 section 4).

    What cannot be understood is left out, so the worst that a bad one does is nothing.
    """
    urgency, incremental = 3, False
    for member in value.split(b","):
        match = PRIORITY_MEMBER.fullmatch(member)
        if match is None:
            continue
        key, parameter = match.groups()
        if key == b"u" and parameter is not None and parameter.isdigit():
            urgency = int(parameter)
        elif key == b"i" and parameter in (None, b"?0", b"?1"):
            incremental = parameter != b"?0"
    return urgency, incremental


def priority_in(headers: Headers) -> tuple[int, bool]:
    """What a request says of its priority."""
    for name, value in headers:
        if name == b"priority":
            return priority_of(value)
    return NO_PRIORITY


# Answers


def answer_fields(status: int, headers: Headers) -> Headers:
    """The fields of an answer's head as they go onto the wire, names in lower case.

    Fields of HTTP/1.1's connections are left out (RFC 9113 section 8.2.2), and the length where an answer names none
    (RFC 9110 section 8.6). Raises LocalProtocolError for what must not go out.
    """
    rules.check_answer_fields(headers)
    silent = status < 200 or status == 204
    fields = []
    for name, value in headers:
        name = name.lower()
        if name in CONNECTION_FIELDS:
            continue
        if name == b"content-length":
            rules.answer_length(headers)
            if silent:
                continue
        fields.append((name, value.strip(b" \t")))
    return fields


def answer_trailers(trailers: Headers) -> Headers:
    """The trailer fields of an answer as they go onto the wire. Raises LocalProtocolError for what may not be one."""
    rules.check_answer_trailers(trailers)
    return [(name.lower(), value.strip(b" \t")) for name, value in trailers]


def check_informational(status: int) -> None:
    """Raise LocalProtocolError unless an interim answer may have this status; 101 is none here (section 8.6)."""
    rules.check_informational(status, upgrade=True)
    if status == 101:
        raise LocalProtocolError("status 101 does not exist in HTTP/2")
