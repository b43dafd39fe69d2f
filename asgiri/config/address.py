"""Bind addresses as people write them.

``127.0.0.1:8000``, ``[::1]:8000``, ``unix:/run/a.sock``, ``unix:@name``, ``fd:3``, ``systemd:web``.
"""

from __future__ import annotations

import os
import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from msgspec import Struct

BIND_EXPECTED = "HOST:PORT, [V6]:PORT, unix:PATH, fd:N or systemd[:NAME]"

# sun_path of sockaddr_un holds 108 bytes on Linux, the closing NUL among them (unix(7)).
UNIX_PATH_MOST = 107

# RFC 1123 section 2.1 labels; the underscore is for the names that container networks give to their members.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII | re.IGNORECASE)
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^\[\]:]*)):(?P<port>[^:\]]*)")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_FD = re.compile(r"[0-9]{1,9}", re.ASCII)


class Address(Struct, frozen=True):
    """A place to listen on; ``str()`` gives the canonical text, which :func:`parse_bind` reads back.

    ``host`` and ``port`` belong to ``tcp`` (an IPv6 host stands without brackets; port 0: any free one),
    ``path`` to ``unix`` (with an @ in front it is a name without a file, of Linux's abstract namespace), ``fd`` to
    ``fd``, and ``name`` to ``systemd`` (a FileDescriptorName; empty: any).
    """

    kind: Literal["tcp", "unix", "fd", "systemd"]
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    name: str = ""

    @property
    def is_abstract(self) -> bool:
        return self.path.startswith("@")

    @property
    def is_any_port(self) -> bool:
        """Port 0 is another port each time: several entries may have it, and each of them has one socket."""
        return self.kind == "tcp" and not self.port

    @property
    def is_by_name(self) -> bool:
        """A host's name, of which it is known at the bind only which address it is; ``localhost`` is none of them."""
        return self.kind == "tcp" and self.host != "localhost" and ":" not in self.host and not _is_ipv4(self.host)

    def excludes(self, other: Address) -> bool:
        """Whether nobody can listen on both: a wildcard takes its port of every address, [::] of IPv4's too.

        Names are what they are: only ``localhost`` is known to be 127.0.0.1, as it is bound.
        """
        if self.kind != "tcp" or other.kind != "tcp":
            return self == other
        if self.port != other.port or self.is_any_port:
            return False
        hosts = {"127.0.0.1" if host == "localhost" else host for host in (self.host, other.host)}
        if len(hosts) == 1 or "::" in hosts:
            return True
        return "0.0.0.0" in hosts and all(_is_ipv4(host) for host in hosts)

    def __str__(self) -> str:
        match self.kind:
            case "unix":
                return f"unix:{self.path}"
            case "fd":
                return f"fd:{self.fd}"
            case "systemd":
                return f"systemd:{self.name}" if self.name else "systemd"
            case "tcp":
                host = f"[{self.host}]" if ":" in self.host else self.host
                return f"{host}:{self.port}"


def parse_bind(text: str) -> Address:
    """The address that ``text`` names. Raises ValueError, which says what was expected."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix":
        return _parse_unix(rest)
    if scheme == "fd":
        return _parse_fd(rest)
    if scheme == "systemd":
        return _parse_systemd(text)
    return _parse_tcp(text)


def _is_ipv4(host: str) -> bool:
    return host.rpartition(".")[2].isdecimal()


def _parse_unix(path: str) -> Address:
    if not path:
        raise ValueError('expected a path after "unix:"')
    if path == "@":
        raise ValueError('expected a name after "unix:@"')
    size = len(os.fsencode(path))
    if size > UNIX_PATH_MOST:
        raise ValueError(f"expected a socket path of {UNIX_PATH_MOST} bytes at most, got {size} bytes")
    return Address("unix", path=path)


def _parse_systemd(text: str) -> Address:
    _, colon, name = text.partition(":")
    if colon and not is_fd_name(name):
        raise ValueError(f'expected a FileDescriptorName after "systemd:", got {_quoted(name)}')
    return Address("systemd", name=name)


def is_fd_name(text: str) -> bool:
    """systemd.socket(5), FileDescriptorName=: no colon, no control characters, 255 characters at most."""
    return 0 < len(text) <= 255 and ":" not in text and text.isprintable()


def _parse_fd(number: str) -> Address:
    if not _FD.fullmatch(number):
        raise ValueError(f'expected a file descriptor number after "fd:", got {_quoted(number)}')
    return Address("fd", fd=int(number))


def _parse_tcp(text: str) -> Address:
    match = _HOST_PORT.fullmatch(text)
    if match is None or not (match["v6"] or match["host"]):
        brackets = "; an IPv6 address stands in brackets" if text.count(":") > 1 else ""
        raise ValueError(f"expected {BIND_EXPECTED}, got {_quoted(text)}{brackets}")
    host = _ipv6(match["v6"]) if match["v6"] else _host(match["host"])
    port = match["port"]
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise ValueError(f"expected a port from 0 to 65535, got {_quoted(port)}")
    return Address("tcp", host=host, port=int(port))


def _ipv6(text: str) -> str:
    try:
        return str(IPv6Address(text))
    except AddressValueError:
        raise ValueError(f"expected an IPv6 address in the brackets, got {_quoted(text)}") from None


def _host(text: str) -> str:
    """An IPv4 address, or a name in lower case. A last label of digits makes it an address (RFC 1123 2.1)."""
    if text.rstrip(".").rpartition(".")[2].isdecimal():
        try:
            return str(IPv4Address(text))
        except AddressValueError:
            raise ValueError(f"expected an IPv4 address or a host name, got {_quoted(text)}") from None
    if len(text) > 253 or not _HOST_NAME.fullmatch(text):
        raise ValueError(f"expected an IPv4 address or a host name, got {_quoted(text)}")
    return text.lower()


def _quoted(text: str) -> str:
    return f'"{text}"'
