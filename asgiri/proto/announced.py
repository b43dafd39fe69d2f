"""Connections that a proxy announces, with a header of the PROXY protocol before their first byte.

The header is read from the accepted socket itself, and not one byte more, before there is a transport: TLS and HTTP
above it never know. Meanwhile the connection is arriving: it counts for the limits, and a drain and a stop end it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import Any, Final, cast

from asgiri.asgi.scope import Announced
from asgiri.codec.proxy_protocol import Command, Header, HeaderParser
from asgiri.errors import RemoteProtocolError
from asgiri.proto.accept import Acceptor, Intake
from asgiri.proto.connection import Connection
from asgiri.proto.detect import Detector
from asgiri.proto.peers import host_port
from asgiri.proto.secure import Connect, MakeConnection
from asgiri.proto.trust import Trusted

logger = logging.getLogger("asgiri.server")

# How often a listener warns of each kind of refusal, in seconds: it is anybody's to cause one.
WARNING_SECONDS: Final = 60.0


# The config's words -> the versions of the protocol.
VERSIONS: Final = {"v1": frozenset({1}), "v2": frozenset({2}), "any": frozenset({1, 2})}


@dataclass(frozen=True, slots=True)
class Proxies:
    """``trusted`` alone may connect, with a header of one of these ``versions`` within ``timeout`` seconds; 0: ever."""

    trusted: Trusted
    versions: frozenset[int]
    timeout: float


class RefusedError(ConnectionAbortedError):
    """The connection ends before it is one; counted and logged already."""


@dataclass(slots=True)
class Tally:
    """What happens too often to be told each time: how often, and when to tell."""

    count: int = 0  # since it was last told
    told_at: float | None = None

    def tell(self, now: float) -> int:
        """It happened at ``now``, in seconds: the number of times to tell of; 0 is not yet."""
        self.count += 1
        if self.told_at is not None and now - self.told_at < WARNING_SECONDS:
            return 0
        self.told_at, count, self.count = now, self.count, 0
        return count


class ProxiedAcceptor(Acceptor):
    """The acceptor of a listener that only proxies connect to, and each connection of theirs with a header."""

    def __init__(
        self,
        intake: Intake,
        sock: socket.socket,
        name: str,
        make: MakeConnection,
        connect: Connect,
        proxies: Proxies,
    ) -> None:
        super().__init__(intake, sock, name, make, connect)
        self._proxies = proxies
        self._untrusted, self._headless = Tally(), Tally()

    def _accept_one(self) -> None:
        """OSError when none is there, or none can be had."""
        fd, address = self._accept()
        sock = self.socket(*self._kind, fd)
        host = None if sock.family == socket.AF_UNIX else address[0]
        if self._proxies.trusted.trusts(host):
            sock.setblocking(False)
            self._arrive(sock, self._welcome(sock, in_text(address)))
            return
        sock.close()
        self._intake.refuse("untrusted")
        peer = in_text(address)
        logger.debug("%s: %s is not in proxy.trusted, and not let in", self.name, peer)
        if times := self._untrusted.tell(self._loop.time()):
            logger.warning(
                "%s: connections from peers that are not in proxy.trusted are closed: %d, the last from %s",
                self.name,
                times,
                peer,
            )

    async def _welcome(self, sock: socket.socket, peer: str) -> Any:
        """Read the header, and make the connection. OSError when that does not come about."""
        seconds = self._proxies.timeout
        try:
            async with asyncio.timeout(seconds or None):
                header = await read_header(self._loop, sock, HeaderParser(self._proxies.versions))
        except TimeoutError:
            raise self._refused(f"its PROXY header is not here after {seconds:g}s", peer) from None
        except RemoteProtocolError as error:
            raise self._refused(error.reason, peer) from None
        announced = announced_by(header)
        return await self._connect(self.make if announced is None else announcing(self.make, announced), sock)

    def _note_failure(self, error: OSError) -> None:
        if not isinstance(error, RefusedError):
            super()._note_failure(error)

    def _refused(self, why: str, peer: str) -> RefusedError:
        self._intake.refuse("proxy_header")
        if times := self._headless.tell(self._loop.time()):
            logger.warning(
                "%s: connections without a good PROXY header are closed: %d, the last from %s: %s",
                self.name,
                times,
                peer,
                why,
            )
        return RefusedError(f"{peer}: {why}")


async def read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket, parser: HeaderParser) -> Header:
    """Take the header from the socket, and nothing that follows it.

    Raises RemoteProtocolError for a bad one, or one that was cut, and OSError where none was begun: what looks whether
    somebody listens does no more than connect.
    """
    while parser.header is None:
        try:
            seen = sock.recv(parser.most, socket.MSG_PEEK)
        except BlockingIOError:
            await readable(loop, sock)
            continue
        except OSError:
            seen = b""
        if not seen:
            if parser.begun:
                raise RemoteProtocolError("it was closed within its PROXY header")
            raise RefusedError("it was closed before a PROXY header had begun")
        left = parser.feed(seen)
        while left:
            left -= len(sock.recv(left))
    return parser.header


async def readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Wait until the socket has something to read, or its end."""
    news: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), tell, news)
    try:
        await news
    finally:
        loop.remove_reader(sock.fileno())


def tell(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


def announced_by(header: Header) -> Announced | None:
    """What a header says of the connection; None where the proxy connects for itself."""
    if header.command is Command.LOCAL:
        return None
    tls = header.tls
    details: dict[str, Any] = {
        "authority": header.authority,
        "alpn": header.alpn,
        "unique_id": header.unique_id,
        "tls": tls
        and {
            "version": tls.version,
            "cipher": tls.cipher,
            "client_cert_shown": tls.certificate,
            "client_cert_verified": tls.verified,
            "client_cert_common_name": tls.common_name,
        },
    }
    is_secure = tls is not None and tls.over_tls
    if header.source is None or header.destination is None:
        return Announced(None, None, is_secure, details, tells_ends=False)
    host, port = header.source
    server = header.destination if header.destination[0] else None  # a unix socket may have no name
    return Announced(None if port is None else (host, port), server, is_secure, details)


def announcing(make: MakeConnection, announced: Announced) -> MakeConnection:
    """What makes the protocol of one connection of which this was said."""

    def made() -> asyncio.Protocol:
        protocol = make()
        cast("Connection | Detector", protocol).announce(announced)
        return protocol

    return made


def in_text(address: object) -> str:
    """A peer's address for a log line."""
    found = host_port(address)
    if found is None:
        return "a unix socket"
    host, port = found
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
