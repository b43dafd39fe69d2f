"""What a request says that asks for HTTP/2 by Upgrade (RFC 7540 section 3.2, which RFC 9113 has dropped)."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from dataclasses import replace
from typing import Final

from asgiri.codec.events import Request
from asgiri.codec.rules import listed

# RFC 7540 section 3.2.1 with RFC 4648 section 5: without padding.
BASE64URL: Final = re.compile(rb"[0-9A-Za-z_-]*+")
# RFC 9113 section 6.5.1: the size of a setting, in bytes.
SETTING_SIZE: Final = 6
# RFC 9113 section 8.2.2: fields of an HTTP/1.1 connection, whatever its Connection field names.
CONNECTION_FIELDS: Final = frozenset(
    {b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)


def asked_settings(request: Request) -> bytes | None:
    """The payload of HTTP2-Settings, when the request asks for HTTP/2 as it should; None for all other requests.

    Upgrade names h2c, Connection names both fields (and does not say "close"), there is exactly one HTTP2-Settings.
    """
    if request.http_version != "1.1":  # HTTP/1.0 knows no Upgrade (RFC 9110 section 7.8)
        return None
    upgrade, connection, settings = (
        [value for name, value in request.headers if name == wanted]
        for wanted in (b"upgrade", b"connection", b"http2-settings")
    )
    if len(settings) != 1 or b"h2c" not in listed(upgrade):
        return None
    options = set(listed(connection))
    if b"close" in options or not {b"upgrade", b"http2-settings"} <= options:
        return None
    return decoded(settings[0])


def decoded(value: bytes) -> bytes | None:
    """The payload of a SETTINGS frame; None when the value of HTTP2-Settings is none."""
    if BASE64URL.fullmatch(value) is None or len(value) % 4 == 1:
        return None
    payload = urlsafe_b64decode(value + b"=" * (-len(value) % 4))
    return None if len(payload) % SETTING_SIZE else payload


def upgraded(request: Request) -> Request:
    """The request as stream 1 of HTTP/2: without what managed its connection."""
    options = set(listed([value for name, value in request.headers if name == b"connection"]))
    dropped = options | CONNECTION_FIELDS
    headers = [field for field in request.headers if field[0] not in dropped]
    return replace(request, stream_id=1, headers=headers, http_version="2")
