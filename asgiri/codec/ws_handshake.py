"""The opening handshake of a WebSocket (RFC 6455 section 4, RFC 8441 section 5), for both carriers.

What it judges is a request that the HTTP codec has read: the head is well-formed, Connection names Upgrade where
``protocol`` says anything, Host is there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from asgiri.codec import rules, ws_deflate
from asgiri.codec.contract import Deflate
from asgiri.codec.events import Request
from asgiri.codec.ws_deflate import Offer
from asgiri.errors import HandshakeError, LocalProtocolError
from asgiri.types import Headers

WEBSOCKET: Final = b"websocket"
# RFC 6455 section 1.3: what makes the answer to a key one that only a WebSocket server gives.
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION: Final = (b"sec-websocket-version", b"13")
# What a 101 and a 426 have to say (RFC 9110 sections 7.8 and 15.5.22).
UPGRADE: Final = ((b"upgrade", WEBSOCKET), (b"connection", b"Upgrade"))

# RFC 6455 section 4.1 item 7: 16 bytes in base64, of whose last letter but the padding four bits are none.
KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
# RFC 6455 section 9.1: token [ "=" (token | quoted-string) ], whose quoted value is a token as well.
PARAMETER: Final = re.compile(
    rb"[ \t]*;[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    rb"(?:[ \t]*=[ \t]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|\"((?:\\?[!#$%&'*+\-.^_`|~0-9A-Za-z])+)\"))?"
)
BLANKS: Final = re.compile(rb"[ \t]*")
BLANKS_AND_COMMAS: Final = re.compile(rb"[ \t,]*")

# What the handshake itself says, or what would frame an answer that has no content.
OWN_FIELDS: Final = frozenset(
    b"sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-version connection upgrade"
    b" content-length transfer-encoding".split()
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """A handshake that can be accepted.

    ``key`` is empty over HTTP/2, which needs none, but where a gateway passes one on. ``subprotocols`` come in the
    client's order of preference, and so do ``offers``, the parameters of each permessage-deflate that it offers.
    """

    key: bytes
    subprotocols: list[str]
    offers: list[Offer]
    http_version: str


def is_websocket(request: Request) -> bool:
    """Whether the request would open a WebSocket: then :func:`judge_handshake` says if it can."""
    return request.http_version != "1.0" and WEBSOCKET in rules.listed([request.protocol])


# The request


def judge_handshake(request: Request) -> Handshake:
    """What the client asks for. Raises HandshakeError with the answer for what is no handshake of RFC 6455."""
    http2 = request.http_version == "2"
    fields: dict[bytes, list[bytes]] = {}
    for name, value in request.headers:
        fields.setdefault(name, []).append(value)
    if http2:
        # RFC 8441 section 5: the stream is the connection. It has no length, and cannot be over before it begins.
        if request.end_stream or b"content-length" in fields:
            raise refused("the request opens a WebSocket and has a length")
    elif request.method != "GET":
        raise refused("a WebSocket is opened with GET")
    elif not request.end_stream:
        raise refused("the request opens a WebSocket and has a body")
    check_version(fields.get(b"sec-websocket-version", []), http2)
    keys = fields.get(b"sec-websocket-key", [])
    return Handshake(
        passed_on_key(keys) if http2 else judged_key(keys),
        listed_subprotocols(fields.get(b"sec-websocket-protocol", [])),
        listed_offers(fields.get(b"sec-websocket-extensions", [])),
        request.http_version,
    )


def refused(reason: str) -> HandshakeError:
    return HandshakeError(400, reason, [])


def check_version(values: list[bytes], http2: bool) -> None:
    """RFC 6455 section 4.4: 13 is the only version; who speaks another one, or an older draft, is told so."""
    if len(values) > 1:  # section 11.3.5
        raise refused("the Sec-WebSocket-Version header field is there twice")
    if values != [b"13"]:
        reason = "this WebSocket version is not spoken here"
        if http2:  # 426 wants an Upgrade, which HTTP/2 has not
            raise HandshakeError(400, reason, [VERSION])
        raise HandshakeError(426, reason, [VERSION, *UPGRADE])


def judged_key(values: list[bytes]) -> bytes:
    """RFC 6455 section 4.2.1 item 5, and section 11.3.1: exactly one."""
    if len(values) != 1:
        raise refused("the Sec-WebSocket-Key header field is missing, or there twice")
    if KEY.fullmatch(values[0]) is None:
        raise refused("the Sec-WebSocket-Key header field is not 16 bytes in base64")
    return values[0]


def passed_on_key(values: list[bytes]) -> bytes:
    """Over HTTP/2 a key is not looked at (RFC 8441 section 5), and so never wrong. Envoy passes that of a client of
    HTTP/1.1 on, and its answer back: such a client fails the connection without one.
    """
    return values[0] if len(values) == 1 and KEY.fullmatch(values[0]) is not None else b""


def listed_subprotocols(values: list[bytes]) -> list[str]:
    """RFC 6455 sections 4.1 item 10 and 11.3.4: tokens, in one list or several. One that is named again is one."""
    names: dict[str, None] = {}
    for value in values:
        for member in value.split(b","):
            name = member.strip(b" \t")
            if not name:  # RFC 9110 section 5.6.1.2: an empty member of a list is none
                continue
            if rules.TOKEN.fullmatch(name) is None:
                raise refused("the Sec-WebSocket-Protocol header field is malformed")
            names[name.decode("ascii")] = None
    return list(names)


def listed_offers(values: list[bytes]) -> list[Offer]:
    """RFC 6455 section 9.1: each permessage-deflate; other extensions are not known here, but must be well-formed."""
    offers = []
    for value in values:
        at = BLANKS_AND_COMMAS.match(value).end()  # type: ignore[union-attr]  # it matches nothing, too
        while at < len(value):
            name = rules.TOKEN.match(value, at)
            if name is None:
                raise refused("the Sec-WebSocket-Extensions header field is malformed")
            at = name.end()
            offer: Offer = []
            while (match := PARAMETER.match(value, at)) is not None:
                key, plain, quoted = match.groups()
                offer.append((key, quoted.replace(b"\\", b"") if quoted is not None else plain))
                at = match.end()
            at = BLANKS.match(value, at).end()  # type: ignore[union-attr]
            if at < len(value) and value[at] != ord(","):
                raise refused("the Sec-WebSocket-Extensions header field is malformed")
            at = BLANKS_AND_COMMAS.match(value, at).end()  # type: ignore[union-attr]
            if name[0] == ws_deflate.NAME:
                offers.append(offer)
    return offers


# The answer


def answer_fields(handshake: Handshake, subprotocol: str | None, deflate: Deflate | None, headers: Headers) -> Headers:
    """The fields of the answer that accepts: a 101 over HTTP/1.1, a 200 over HTTP/2. The application's come last.

    Raises LocalProtocolError for a field that is the handshake's own, and for a subprotocol that the client has not
    offered: it would have to fail the connection (RFC 6455 section 4.1).
    """
    fields: Headers = []
    if handshake.http_version != "2":
        fields += UPGRADE
    if handshake.key:
        fields.append((b"sec-websocket-accept", accepts(handshake)))
    if subprotocol is not None:
        check_subprotocol(handshake, subprotocol)
        fields.append((b"sec-websocket-protocol", subprotocol.encode("ascii")))
    if deflate is not None:
        fields.append((b"sec-websocket-extensions", ws_deflate.answer(deflate)))
    rules.check_answer_fields(headers)
    chosen = subprotocol
    for name, value in headers:
        lower, value = name.lower(), value.strip(b" \t")
        if lower in OWN_FIELDS:
            raise LocalProtocolError(f"{name!r} is not the application's to set where it accepts a WebSocket")
        if lower == b"sec-websocket-protocol":
            if chosen is not None:
                raise LocalProtocolError("the subprotocol is given twice")
            chosen = value.decode("latin-1")
            check_subprotocol(handshake, chosen)
        fields.append((name, value))
    return fields


def accepts(handshake: Handshake) -> bytes:
    """RFC 6455 section 4.2.2 item 5.4."""
    return base64.b64encode(hashlib.sha1(handshake.key + GUID, usedforsecurity=False).digest())


def check_subprotocol(handshake: Handshake, name: str) -> None:
    if name not in handshake.subprotocols:
        offered = ", ".join(handshake.subprotocols) or "none"
        raise LocalProtocolError(f"the subprotocol {name!r} is not one that the client offers (it offers {offered})")
