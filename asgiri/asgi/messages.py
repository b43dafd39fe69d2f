"""What an application's messages hold: taken apart, or refused with what is wrong with them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from asgiri.types import Headers


def status_of(status: object) -> int:
    """The status of an answer as a plain int, of an HTTPStatus too. TypeError when it is none."""
    if not isinstance(status, int):
        raise TypeError(f"status: expected an int, got {status!r}")
    return int(status)


def response_headers(headers: Iterable[Any], watched: Container[bytes] = ()) -> tuple[Headers, dict[bytes, bytes]]:
    """The app's header fields as a list of byte pairs with names in lower case, and the ``watched`` ones by name.

    One that is there twice is found as empty. TypeError says which field is none.
    """
    if type(headers) is not list:
        headers = list(headers)
    fields: Headers = []
    found: dict[bytes, bytes] = {}
    try:
        for name, value in headers:
            if type(name) is not bytes or type(value) is not bytes:
                name, value = bytes_of(name), bytes_of(value)
            name = name.lower()
            if name in watched:
                found[name] = value if name not in found else b""
            fields.append((name, value))
    except (TypeError, ValueError):
        header = headers[len(fields)]
        raise TypeError(f"headers: expected pairs of bytes, got {header!r}") from None
    return fields, found


def bytes_of(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"expected bytes, got {type(value).__name__}")


def content_of(value: object, key: str) -> bytes:
    """A piece of content as bytes; TypeError, which names the key of the message, when it is none."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{key}: expected bytes, got {type(value).__name__}")
    return bytes(value)


def length_left(left: int, size: int, more: bool) -> int:
    """Bytes of its Content-Length that an answer still owes after a piece of ``size`` bytes (RFC 9110 section 8.6).

    Raises RuntimeError when the piece is too long, or is the last and too short.
    """
    if size > left:
        raise RuntimeError(f"the answer's body is longer than its Content-Length, by {size - left} bytes")
    if not more and size < left:
        raise RuntimeError(f"the answer's body is shorter than its Content-Length, by {left - size} bytes")
    return left - size


def content_length(headers: Headers) -> int:
    """The Content-Length among the fields of an answer; ValueError when it is none, or there are two."""
    values = [value.strip(b" \t") for name, value in headers if name == b"content-length"]
    if len(values) != 1 or not values[0].isdigit():
        raise ValueError(f"content-length: expected one number of bytes, got {b', '.join(values)!r}")
    return int(values[0])


def link_fields(links: object) -> Headers:
    """One Link field each for the links of an early hint (RFC 8297, RFC 8288). TypeError when they are no bytes."""
    if not isinstance(links, Iterable) or isinstance(links, str | bytes | bytearray):
        raise TypeError(f"links: expected a list of bytes, got {links!r}")
    try:
        return [(b"link", bytes_of(link)) for link in links]
    except TypeError as error:
        raise TypeError(f"links: {error}") from None


def takes_trailers(headers: Headers) -> bool:
    """Whether the request says ``TE: trailers``: its sender will not throw them away (RFC 9110 section 10.1.4)."""
    codings = (coding for name, value in headers if name == b"te" for coding in value.split(b","))
    return any(coding.partition(b";")[0].strip(b" \t").lower() == b"trailers" for coding in codings)
