"""Heads of answers: of those in the application's place, and of its own with what the server adds to them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from asgiri.asgi.messages import content_length, response_headers
from asgiri.asgi.scope import FRAMING, AppContext
from asgiri.codec.events import Request
from asgiri.statuses import REASONS
from asgiri.types import Headers, KnownHeaders

# Final statuses whose answers have no content (RFC 9110 section 6.4.1).
SILENT: Final = frozenset({204, 304})

# How many heads of answers are remembered, each until the Date field changes: apps that never say the same twice do not
# pay for more than these.
MOST_KNOWN: Final = 256


def plain_answer(status: HTTPStatus, reason: str = "") -> tuple[Headers, bytes]:
    """Header fields and body of an answer of the server's own; ``reason`` is one sentence for the peer."""
    phrase = REASONS[status].decode("ascii")
    body = f"{status.value} {phrase}{': ' if reason else ''}{reason}\n".encode()
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))], body


def with_defaults(headers: Headers, context: AppContext, request: Request) -> Headers:
    """``headers``, with the server's default ones added where none of that name is there."""
    names = {name for name, _ in headers}
    headers.extend(field for field in context.default_headers if field[0] not in names)
    return with_id(headers, context.id_field, request) if context.id_field else headers


def with_id(headers: Headers, name: bytes, request: Request) -> Headers:
    """``headers`` and the request's id, in a field of this name where they have none."""
    if any(said.lower() == name for said, _ in headers):
        return headers
    return [*headers, (name, request.id.encode("latin-1"))]


def answer_head(context: AppContext, status: int, said: Iterable[Any]) -> KnownHeaders:
    """The fields that the app said, judged, and the server's own. TypeError and ValueError for what is none."""
    key = None
    if type(said) is list:
        try:
            key = (status, *said)
            return context.known_heads[key]
        except KeyError:
            pass
        except (TypeError, ValueError):  # fields that are lists themselves, bytearrays, or views of some
            key = None
    headers, found = response_headers(said, context.watched)
    length = left = None
    if found:
        length = found.get(b"content-length")
        if length is not None:
            left = int(length) if length.isdigit() else content_length(headers)
    if found.keys() <= FRAMING:
        headers += context.default_headers
    else:
        headers += [field for field in context.default_headers if field[0] not in found]
    head = KnownHeaders(status, headers, left, length is not None or b"transfer-encoding" in found)
    if key is not None and len(context.known_heads) < MOST_KNOWN:
        context.known_heads[key] = head
    return head
