"""Which protocol a connection speaks: told by ALPN, or by the first bytes of it.

Until that is known it is one of HTTP/1.1 with nothing on it: counted, drained and timed out like any, and idle, or
within a request's head once there are bytes that may be HTTP/2's preface (RFC 9113 section 3.4). A Detector stands
between it and its transport, and is gone with the answer. Where HTTP/1.1 alone is spoken there is nothing to find out,
and no Detector.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from asgiri.asgi.scope import Announced
from asgiri.codec.h2_wire import PREFACE, ErrorCode
from asgiri.proto.connection import Shared
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http11 import Http11Connection
from asgiri.proto.secure import MakeConnection, Secure
from asgiri.proto.upgrade import UpgradableConnection

if TYPE_CHECKING:
    from asgiri.proto.announced import Proxies

ONLY_HTTP2 = "this listener speaks HTTP/2 only"


@dataclass(frozen=True, slots=True)
class Way:
    """What is spoken on a listener: ALPN's names, over TLS or not, and whether HTTP/1.1 may upgrade to HTTP/2.

    ``proxies``: each connection there must begin with a header of the PROXY protocol.
    """

    http: Sequence[str]
    secure: Secure | None = None
    h2c_upgrade: bool = False
    proxies: Proxies | None = None

    @property
    def http1(self) -> type[Http11Connection] | None:
        """What HTTP/1.1 becomes there; None where it is not spoken."""
        if "http/1.1" not in self.http:
            return None
        # Not over TLS, where there is ALPN (RFC 7540 section 3.3).
        takes_upgrades = self.h2c_upgrade and self.secure is None and "h2" in self.http
        return UpgradableConnection if takes_upgrades else Http11Connection

    def maker(self, shared: Shared) -> MakeConnection:
        """What makes the protocol of a connection that was accepted there."""
        secure, speaks_http1 = self.secure, self.http1 is not None
        http1 = self.http1 or Http11Connection

        def make() -> Http11Connection:
            connection = http1(shared)
            connection.secure = secure
            return connection

        if "h2" in self.http:
            return lambda: Detector(make(), speaks_http1)
        return make if secure is not None else lambda: http1(shared)


class Detector(asyncio.Protocol):
    """Sees what comes first on a connection, and gives the transport to whom it is for.

    ``speaks_http1`` is whether ``connection`` may go on as what it is.
    """

    __slots__ = ("_connection", "_seen", "_speaks_http1")

    def __init__(self, connection: Http11Connection, speaks_http1: bool) -> None:
        self._connection = connection
        self._speaks_http1 = speaks_http1
        self._seen = b""  # of what may be a preface

    def announce(self, announced: Announced) -> None:
        self._connection.announce(announced)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = self._connection
        connection.connection_made(transport)
        if connection.secure is not None:
            match transport.get_extra_info("ssl_object").selected_alpn_protocol():
                case "h2":
                    self._become_http2()
                case "http/1.1":
                    connection.transport.set_protocol(connection)
                # None: a client without ALPN, or one that offers nothing which is spoken here. Its first bytes tell.

    def data_received(self, data: bytes) -> None:
        if self._seen:
            data = self._seen + data
        connection = self._connection
        if not PREFACE.startswith(data[: len(PREFACE)]) or connection.has_ended:
            self._take_http1(data)
        elif len(data) < len(PREFACE):
            self._seen = data
            connection.head_begun()
        else:
            self._become_http2().data_received(data)

    def _become_http2(self) -> Http2Connection:
        before = self._connection
        connection = Http2Connection(before.shared)
        connection.take_over(before)
        if before.secure is not None and before.secure.is_weak(before.transport.get_extra_info("ssl_object")):
            connection.turn_away(ErrorCode.INADEQUATE_SECURITY)  # RFC 9113 section 9.2.2
        return connection

    def _take_http1(self, data: bytes) -> None:
        """These bytes are not HTTP/2's."""
        connection = self._connection
        connection.transport.set_protocol(connection)
        if self._speaks_http1:
            connection.data_received(data)
        else:
            # RFC 9110 section 15.6.6. No 426: it would have to name what to upgrade to, and h2c is deprecated (RFC 9113
            # section 3.1).
            connection.turn_away(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, ONLY_HTTP2)

    def eof_received(self) -> bool:
        """The peer sends nothing more: what it has sent is no whole preface."""
        if self._seen and self._speaks_http1:
            self._take_http1(self._seen)
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)
