"""RFC 9110 and 9112 verdicts and limits that every engine shares.

An engine finds the parts of a message; whether the message is acceptable is decided here, so that all engines
say the same. A verdict against a peer is a RemoteProtocolError whose reason holds none of the peer's bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus

from asgiri.errors import LocalProtocolError, RemoteProtocolError
from asgiri.types import Headers

# RFC 9110 section 5.6.2: token. Methods and field names are tokens.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110 section 5.5: what a field value may hold once it is trimmed; obs-text is let through, CTLs are not.
FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# RFC 9112 section 3.2.2: absolute-form, as far as an origin server takes it apart. The authority may not be empty
# (RFC 9110 section 4.2.1), and userinfo is refused (section 4.2.4).
ABSOLUTE_FORM = re.compile(rb"(?i:https?)://(?P<authority>[^/?#@]+)(?P<rest>(?:[/?].*)?)", re.DOTALL)
# RFC 9110 section 7.2 with RFC 3986 section 3.2: uri-host [":" port]; empty for a target that has no authority.
HOST = re.compile(rb"(?:\[[0-9A-Za-z:.]+\]|[0-9A-Za-z\-._~%!$&'()*+,;=]*)(?::[0-9]*)?")

FRAMING = frozenset({b"content-length", b"transfer-encoding"})

REASONS: dict[int, bytes] = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much of a message is taken, in bytes and counts; 0 is no limit."""

    request_line: int = 8 << 10
    header_count: int = 100
    header_size: int = 64 << 10
    body_size: int = 0


def check_head(limits: HttpLimits, request_line: int, headers: Headers) -> None:
    """Refuse a head over its limits: 414 (RFC 9110 section 15.5.15) or 431 (RFC 6585 section 5)."""
    if limits.request_line and request_line > limits.request_line:
        raise RemoteProtocolError("the request line is too long", 414)
    if limits.header_count and len(headers) > limits.header_count:
        raise RemoteProtocolError("too many header fields", 431)
    # Four bytes a field for the colon, a space and the end of line.
    size = sum(map(len, (part for field in headers for part in field))) + 4 * len(headers)
    if limits.header_size and size > limits.header_size:
        raise RemoteProtocolError("the header fields are too large", 431)
    # Some parsers let control characters pass, some do not (RFC 9110 section 5.5: invalid, and dangerous).
    if FIELD_VALUE.fullmatch(b"".join([value for _, value in headers])) is None:
        raise RemoteProtocolError("a header field holds a control character")


def check_host(version: str, headers: Headers) -> None:
    """Refuse a request whose Host is missing, there twice, or none (RFC 9112 section 3.2); 1.0 may have none."""
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts and version != "1.0":
        raise RemoteProtocolError("the Host header field is missing")
    if len(hosts) > 1:
        raise RemoteProtocolError("there is more than one Host header field")
    if hosts and HOST.fullmatch(hosts[0]) is None:
        raise RemoteProtocolError("the Host header field is malformed")


def check_version(version: bytes) -> str:
    """ "1.0" or "1.1" for the digits of an HTTP-version. A higher minor counts as 1.1 (RFC 9110 section 2.5)."""
    if not version.startswith(b"1."):
        raise RemoteProtocolError("this HTTP version is not spoken here", 505)
    return "1.0" if version == b"1.0" else "1.1"


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Path, query and authority of a request target (RFC 9112 section 3.2).

    The path and the query stay percent-encoded. The authority is None unless the target is in absolute form.
    """
    if method == b"CONNECT":  # authority-form is for tunnels; an origin server has none to offer
        raise RemoteProtocolError("CONNECT is not implemented", 501)
    authority = None
    if target.startswith(b"/"):
        rest = target
    elif target == b"*":
        if method != b"OPTIONS":
            raise RemoteProtocolError('the request target "*" goes with OPTIONS only')
        return b"*", b"", None
    elif match := ABSOLUTE_FORM.fullmatch(target):
        authority = match["authority"]
        if HOST.fullmatch(authority) is None:
            raise RemoteProtocolError("the request target is malformed")
        rest = match["rest"]
        if not rest.startswith(b"/"):
            rest = b"/" + rest
    else:
        raise RemoteProtocolError("the request target is malformed")
    path, _, query = rest.partition(b"?")
    return path, query, authority


def check_framing(version: str, headers: Headers, limits: HttpLimits) -> bool:
    """Whether a body follows the head (RFC 9112 section 6.3).

    Refuses one whose length two parties could read in two ways (section 6.1), or that is too large.
    """
    content_length = transfer_encoding = None
    for name, value in headers:
        if name == b"content-length":
            content_length = value
        elif name == b"transfer-encoding":
            transfer_encoding = value
    if transfer_encoding is not None:
        if content_length is not None:
            raise RemoteProtocolError("Content-Length and Transfer-Encoding exclude each other")
        if version == "1.0":
            raise RemoteProtocolError("Transfer-Encoding is not known in HTTP/1.0")
        return True
    size = 0 if content_length is None else int(content_length)
    if limits.body_size and size > limits.body_size:
        raise RemoteProtocolError("the request body is too large", 413)
    return size > 0


def with_authority(headers: Headers, authority: bytes) -> Headers:
    """The fields with Host replaced by the target's authority (RFC 9112 section 3.2.2)."""
    return [(b"host", authority), *(field for field in headers if field[0] != b"host")]


def answer_has_body(method: str, status: int) -> bool:
    """Whether an answer to ``method`` with ``status`` has content at all (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)


def check_answer(status: int, headers: Headers) -> None:
    """Raise LocalProtocolError for an answer's head that must not go onto the wire (RFC 9110 section 5)."""
    if not 100 <= status <= 599:
        raise LocalProtocolError(f"status {status} is none: expected 100 to 599")
    for name, value in headers:
        if TOKEN.fullmatch(name) is None:
            raise LocalProtocolError(f"header name {name!r} is no token")
        if FIELD_VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"the value of header {name!r} holds a control character: {value!r}")


def answer_fields(status: int, headers: Headers) -> Headers:
    """The fields as they go onto the wire.

    Values are trimmed (RFC 9110 section 5.5); an answer that ends with its head by definition, 1xx or 204, names no
    framing (section 8.6, RFC 9112 section 6.1).
    """
    fields = [(name, value.strip(b" \t")) for name, value in headers]
    if status < 200 or status == 204:
        return [field for field in fields if field[0].lower() not in FRAMING]
    return fields
