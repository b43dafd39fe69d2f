"""What the server itself says: answers in the application's place, and the fields that every answer has."""

from __future__ import annotations

from http import HTTPStatus

from asgiri.asgi.scope import AppContext
from asgiri.statuses import REASONS
from asgiri.types import Headers


def plain_answer(status: HTTPStatus, reason: str = "") -> tuple[Headers, bytes]:
    """Header fields and body of an answer of the server's own; ``reason`` is one sentence for the peer."""
    phrase = REASONS[status].decode("ascii")
    body = f"{status.value} {phrase}{': ' if reason else ''}{reason}\n".encode()
    return [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))], body


def with_defaults(headers: Headers, context: AppContext) -> Headers:
    """``headers``, with the server's default ones added where none of that name is there."""
    names = {name for name, _ in headers}
    headers.extend(field for field in context.default_headers if field[0] not in names)
    return headers
