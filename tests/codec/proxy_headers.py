"""Headers of the PROXY protocol as a proxy makes them: written from the spec, apart from the code that reads them."""

from __future__ import annotations

import socket
import struct

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
INET, INET6, UNIX = 0x11, 0x21, 0x31


def v1(source: str = "192.0.2.7", port: int = 4711, destination: str = "198.51.100.1", to: int = 443) -> bytes:
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {port} {to}\r\n".encode()


def v2(block: bytes = b"", *, kind: int = 0, command: int = 0x21, length: int | None = None) -> bytes:
    """The 16 bytes and ``block``; ``length`` where it is to be wrong."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block) if length is None else length) + block


def inet(source: str = "192.0.2.7", port: int = 4711, destination: str = "198.51.100.1", to: int = 443) -> bytes:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    return addresses + struct.pack("!HH", port, to)


def unix(source: bytes = b"", destination: bytes = b"/run/proxy.sock") -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def tls(*within: bytes, client: int = 1, verify: int = 0) -> bytes:
    return tlv(0x20, struct.pack("!BI", client, verify) + b"".join(within))


FULL_TLS = tls(tlv(0x21, b"TLSv1.3"), tlv(0x22, "Zoë".encode()), tlv(0x23, b"TLS_AES_128_GCM_SHA256"), client=7)


def with_crc(block: bytes, kind: int = INET, more: bytes = b"") -> bytes:
    """A whole header with its checksum, which is computed bit by bit."""
    blank = v2(block + tlv(3, bytes(4)) + more, kind=kind)
    crc = 0xFFFFFFFF
    for byte in blank:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return v2(block + tlv(3, struct.pack("!I", crc ^ 0xFFFFFFFF)) + more, kind=kind)
