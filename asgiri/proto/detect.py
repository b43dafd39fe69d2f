"""Which protocol a connection speaks: told by ALPN, or by the first bytes of it.

    SILENT   nothing has come; the connection waits
    BEGUN    what has come may be the beginning of HTTP/2's preface (RFC 9113 section 3.4)
    OVER     another connection has taken over, or this one is closed

Where HTTP/1.1 alone is spoken there is nothing to find out, and no Detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus

from asgiri.codec.h2_wire import PREFACE, ErrorCode
from asgiri.proto.connection import Connection, Shared
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http11 import Http11Connection
from asgiri.proto.secure import MakeConnection, Secure
from asgiri.proto.upgrade import UpgradableConnection

ONLY_HTTP2 = "this listener speaks HTTP/2 only"


@dataclass(frozen=True, slots=True)
class Way:
    """What is spoken on a listener: ALPN's names, over TLS or not, and whether HTTP/1.1 may upgrade to HTTP/2."""

    http: Sequence[str]
    secure: Secure | None = None
    h2c_upgrade: bool = False

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
        secure, http1 = self.secure, self.http1
        if "h2" not in self.http:
            if secure is None:
                return lambda: Http11Connection(shared)

            def make() -> Http11Connection:
                connection = Http11Connection(shared)
                connection.secure = secure
                return connection

            return make
        return lambda: Detector(shared, secure, http1)


class Stage(Enum):
    SILENT = "silent"
    BEGUN = "begun"
    OVER = "over"


SILENT, BEGUN, OVER = Stage


class Detector(Connection):
    """A connection of which is not known yet what it speaks. It becomes one that does, and costs nothing any more.

    ``http1`` is what HTTP/1.1 becomes, None where it is not spoken; HTTP/2 always is.
    """

    __slots__ = ("_http1", "_seen", "_since", "_stage")

    def __init__(self, shared: Shared, secure: Secure | None, http1: type[Http11Connection] | None) -> None:
        super().__init__(shared)
        self.secure = secure
        self._http1 = http1
        self._stage = SILENT
        self._since = shared.now  # when it came, or the first byte did
        self._seen = b""

    def connected(self) -> None:
        if self.secure is None:
            return
        match self.transport.get_extra_info("ssl_object").selected_alpn_protocol():
            case "h2":
                self._become_http2()
            case "http/1.1":
                self._become_http1()
            # None: a client without ALPN, or one that offers nothing which is spoken here. Its first bytes tell.

    def data_received(self, data: bytes) -> None:
        if self._stage is BEGUN:
            data = self._seen + data
        elif self._stage is OVER:
            return
        if data.startswith(PREFACE):
            self._become_http2().data_received(data)
        elif PREFACE.startswith(data):
            if self._stage is SILENT:
                self._stage = BEGUN
                self._since = self.shared.now
            self._seen = data
        else:
            self._take_http1(data)

    def _become_http2(self) -> Http2Connection:
        self._stage = OVER
        connection = Http2Connection(self.shared)
        connection.take_over(self)
        if self.secure is not None and self.secure.is_weak(self.transport.get_extra_info("ssl_object")):
            connection.turn_away(ErrorCode.INADEQUATE_SECURITY)  # RFC 9113 section 9.2.2
        return connection

    def _become_http1(self) -> Http11Connection:
        self._stage = OVER
        connection = (self._http1 or Http11Connection)(self.shared)
        connection.take_over(self)
        return connection

    def _take_http1(self, data: bytes) -> Http11Connection:
        """These bytes are not HTTP/2's."""
        begun = self._stage is BEGUN
        connection = self._become_http1()
        if self._http1 is None:
            # RFC 9110 section 15.6.6. No 426: it would have to name what to upgrade to, and h2c is deprecated (RFC 9113
            # section 3.1).
            connection.turn_away(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, ONLY_HTTP2)
            return connection
        connection.data_received(data)
        if begun:
            connection.backdate(self._since)
        return connection

    def eof_received(self) -> bool:
        """The peer sends nothing more: what it has sent is no whole preface."""
        if self._stage is BEGUN and self._http1 is not None and self.secure is None:
            return self._take_http1(self._seen).eof_received()
        self._close()
        return False

    def check(self, now: float) -> None:
        if self.write_overdue(now):
            self.abort()
            return
        waited = now - self._since
        times = self.shared.times
        if self._stage is SILENT and 0 < times.keep_alive < waited:
            self._close()
        elif self._stage is BEGUN and 0 < times.request_head < waited:
            if self._http1 is None:
                self._close()
            else:
                self._take_http1(self._seen).check(now)  # which answers that it took too long

    def close_idle(self) -> None:
        if self._stage is SILENT:
            self._close()

    def _close(self) -> None:
        self._stage = OVER
        self.transport.close()
