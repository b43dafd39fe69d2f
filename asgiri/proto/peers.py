"""Who is at the two ends of a connection: as the scope has them, and as the logs show them."""

from __future__ import annotations

import asyncio
import socket

from asgiri.asgi.scope import Announced, Peers
from asgiri.proto.secure import Secure


def peers_of(transport: asyncio.BaseTransport, secure: Secure | None = None) -> Peers:
    """The two ends of a transport, as the scope shows them; IPv4 addresses mapped into IPv6 are shown as IPv4."""
    scheme, extensions = "http", {}
    if secure is not None:
        scheme, extensions = "https", {"tls": secure.extension(transport.get_extra_info("ssl_object"))}
    sockname = transport.get_extra_info("sockname")
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        path = sockname.decode("utf-8", "replace") if isinstance(sockname, bytes) else sockname
        return Peers(None, (path, None), scheme, extensions)
    peername = transport.get_extra_info("peername")
    return Peers(host_port(peername), host_port(sockname), scheme, extensions)


def spoken_for(real: Peers, announced: Announced) -> Peers:
    """The peers where a proxy, the ``real`` client, speaks for another one."""
    scheme = "https" if announced.secure else real.scheme
    extensions = real.extensions | {"proxy_protocol": announced.details | {"proxy": real.client}}
    client = announced.client if announced.tells_ends else real.client
    return Peers(client, announced.server or real.server, scheme, extensions, announced)


def client_text(peers: Peers) -> str:
    """``192.0.2.1:53412``, ``[2001:db8::1]:53412``, or ``unix``."""
    if peers.client is None:
        return "unix"
    host, port = peers.client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_port(address: object) -> tuple[str, int] | None:
    """(host, port) of a socket address of the AF_INET family or the AF_INET6 one."""
    if not isinstance(address, tuple) or len(address) < 2:
        return None
    host, port = address[:2]
    return host.removeprefix("::ffff:") if "." in host else host, port
