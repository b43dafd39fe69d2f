"""The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte, sans-I/O.

Section numbers are those of HAProxy's proxy-protocol.txt. Imported where a listener wants such headers, and nowhere
else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import Final, TypeAlias

from asgiri.errors import RemoteProtocolError

V1: Final = b"PROXY "
V1_MOST: Final = 107  # section 2.1, the CRLF included
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED: Final = Struct("!12sBBH")  # section 2.2: signature, version and command, family and transport, length
# What may follow these 16 bytes: more than any proxy sends (216 of addresses, and names and numbers that are short).
V2_MOST: Final = 4096
UNIX_PATH: Final = 108

TLV: Final = Struct("!BH")
ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL = 0x01, 0x02, 0x03, 0x05, 0x20
SSL_FIXED: Final = Struct("!BI")
SSL_VERSION, SSL_CN, SSL_CIPHER = 0x21, 0x22, 0x23
ONCE: Final = frozenset({ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL, SSL_VERSION, SSL_CN, SSL_CIPHER})
UNIQUE_ID_MOST: Final = 128
CLIENT_SSL, CLIENT_CERT = 0x01, 0x02 | 0x04  # of this connection, or of the TLS session that it goes on with

# (host, port), or the path of a unix socket with None. An abstract one begins with NUL, one without a name is empty.
End: TypeAlias = tuple[str, int | None]


class Command(Enum):
    LOCAL = "local"  # the proxy connects for itself, as for a health check
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The client's TLS, which the proxy has ended (section 2.2.6).

    ``over_tls``: the client connected over TLS. ``certificate``: it has shown one; ``verified``: and that has passed.
    """

    over_tls: bool
    certificate: bool
    verified: bool
    version: str | None = None
    cipher: str | None = None
    common_name: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What was said. ``source`` and ``destination`` are None where the real ends of the connection count."""

    command: Command
    source: End | None = None
    destination: End | None = None
    authority: str | None = None  # the server name that the client asked for
    alpn: str | None = None
    unique_id: str | None = None
    tls: ClientTls | None = None


@dataclass(slots=True)
class HeaderParser:
    """Finds the header that a connection begins with; ``versions`` (of 1 and 2) are those that are taken."""

    versions: frozenset[int]
    header: Header | None = None
    _seen: bytearray = field(default_factory=bytearray)

    @property
    def begun(self) -> bool:
        return bool(self._seen)

    @property
    def most(self) -> int:
        """How many bytes to offer: with fewer it takes more calls, more are never the header's."""
        return FIXED.size + V2_MOST - len(self._seen)

    def feed(self, data: bytes) -> int:
        """Take what is the header's, and return how many bytes that is: all of ``data``, but for what follows it.

        Once the header is whole, it is in :attr:`header`. Raises RemoteProtocolError for what can be none.
        """
        before = len(self._seen)
        self._seen += data
        version = self._version()
        size = 0 if version == 0 else self._size_of_v1() if version == 1 else self._size_of_v2()
        if size == 0:
            return len(data)
        whole = bytes(self._seen[:size])
        self.header = parse_v1(whole) if version == 1 else parse_v2(whole)
        return size - before

    def _version(self) -> int:
        """1, 2, or 0 while it may be both. Raises RemoteProtocolError for one that is not taken."""
        seen = bytes(self._seen[: len(SIGNATURE)])
        version = 1 if V1.startswith(seen[: len(V1)]) else 2 if SIGNATURE.startswith(seen) else None
        if version is None:
            raise RemoteProtocolError(f"it begins with {guess(seen)}, and not with a PROXY header")
        if version not in self.versions:
            raise RemoteProtocolError(f"version {version} of the PROXY protocol is not taken here")
        return version if seen else 0

    def _size_of_v1(self) -> int:
        """How long the line is, 0 while it has no end. Section 2.1: a CR or an LF alone ends nothing."""
        seen = self._seen
        end = next((index for index, byte in enumerate(seen[: V1_MOST - 1]) if byte in b"\r\n"), None)
        if end is None:
            if len(seen) >= V1_MOST - 1:
                raise RemoteProtocolError(f"its PROXY line has no end within {V1_MOST} bytes")
            return 0
        if seen[end:] == b"\r":
            return 0
        if seen[end : end + 2] != b"\r\n":
            raise RemoteProtocolError("its PROXY line does not end with CR and LF")
        return end + 2

    def _size_of_v2(self) -> int:
        """How long the header is, 0 while not all of it is there. Each of the first bytes is judged as it comes."""
        seen = self._seen
        if len(seen) > 12 and seen[12] >> 4 != 2:
            raise RemoteProtocolError(f"its PROXY header is of version {seen[12] >> 4}, which is unknown")
        if len(seen) > 12 and seen[12] & 0x0F > 1:
            raise RemoteProtocolError(f"its PROXY header has the unknown command {seen[12] & 0x0F}")
        if len(seen) < FIXED.size:
            return 0
        length = FIXED.unpack_from(seen)[3]
        if length > V2_MOST:
            raise RemoteProtocolError(f"its PROXY header is {length} bytes long; {V2_MOST} are allowed")
        return FIXED.size + length if len(seen) >= FIXED.size + length else 0


def guess(seen: bytes) -> str:
    """What a connection seems to begin with that has no header, in words that hold nothing of the peer's."""
    if seen[:2] == b"\x16\x03":
        return "TLS"
    if seen.startswith(b"PRI * HTTP/2"):
        return "HTTP/2"
    method = seen.partition(b" ")[0]
    return "HTTP" if method.isalpha() and method.isupper() else f"the bytes {seen[:4].hex(' ')}"


def parse_v1(line: bytes) -> Header:
    """The header of a whole line (section 2.1). Raises RemoteProtocolError."""
    if line == b"PROXY UNKNOWN\r\n" or line.startswith(b"PROXY UNKNOWN "):
        return Header(Command.PROXY)  # and what follows is to be ignored
    parts = line[:-2].split(b" ")
    if len(parts) != 6 or parts[1] not in (b"TCP4", b"TCP6"):
        raise RemoteProtocolError('its PROXY line is not "PROXY TCP4|TCP6 source destination port port"')
    family = IPv4Address if parts[1] == b"TCP4" else IPv6Address
    source, destination = (address_of(part, family) for part in parts[2:4])
    return Header(Command.PROXY, (source, port_of(parts[4])), (destination, port_of(parts[5])))


def address_of(text: bytes, family: type[IPv4Address] | type[IPv6Address]) -> str:
    """An address in its canonical form. RemoteProtocolError when it is none of this family."""
    try:
        if b"%" not in text:  # an interface of the proxy's means nothing here
            return address(family(text.decode("ascii")))
    except ValueError:
        pass
    raise RemoteProtocolError(f"its PROXY line has something that is no address of IPv{family(0).version}")


def address(found: IPv4Address | IPv6Address) -> str:
    """As the scope shows addresses: those of IPv4 that are mapped into IPv6 as the former."""
    return str(getattr(found, "ipv4_mapped", None) or found)


def port_of(text: bytes) -> int:
    """Strictly decimal: no sign, no space, and no zero in front."""
    if text.isdigit() and len(text) <= 5 and (text == b"0" or text[0] != 0x30) and int(text) < 1 << 16:
        return int(text)
    raise RemoteProtocolError("its PROXY line has something that is no port")


def parse_v2(data: bytes) -> Header:
    """The header of version 2 that is whole in ``data`` (section 2.2). Raises RemoteProtocolError."""
    command, kind = data[12] & 0x0F, data[13]
    if command == 0:  # whatever else it says is to be discarded
        return Header(Command.LOCAL)
    block = memoryview(data)[FIXED.size :]
    match kind:
        case 0x00:
            source = destination = None
            size = 0
        case 0x11:
            source, destination, size = ends(block, 4, IPv4Address)
        case 0x21:
            source, destination, size = ends(block, 16, IPv6Address)
        case 0x31:
            size = 2 * UNIX_PATH
            enough(block, size)
            source, destination = path(block[:UNIX_PATH]), path(block[UNIX_PATH:size])
        case 0x12 | 0x22 | 0x32:
            raise RemoteProtocolError("its PROXY header is that of datagrams")
        case _:
            raise RemoteProtocolError(f"its PROXY header has the unknown family and transport 0x{kind:02x}")
    tlvs = tlvs_of(block[size:], FIXED.size + size)
    if (found := tlvs.get(CRC32C)) is not None:
        check_crc(data, *found)
    unique_id = text(tlvs, UNIQUE_ID)
    if unique_id is not None and len(tlvs[UNIQUE_ID][1]) > UNIQUE_ID_MOST:
        raise RemoteProtocolError(f"its PROXY header has a unique id of more than {UNIQUE_ID_MOST} bytes")
    return Header(
        Command.PROXY,
        source,
        destination,
        authority=text(tlvs, AUTHORITY),
        alpn=text(tlvs, ALPN),
        unique_id=unique_id,
        tls=client_tls(tlvs[SSL][1]) if SSL in tlvs else None,
    )


def enough(block: memoryview, size: int) -> None:
    if len(block) < size:
        raise RemoteProtocolError(f"its PROXY header has {len(block)} bytes for addresses of {size}")


def ends(block: memoryview, width: int, family: type[IPv4Address] | type[IPv6Address]) -> tuple[End, End, int]:
    """Source and destination, and how many bytes they took: two addresses of ``width`` bytes, then their ports."""
    size = 2 * width + 4
    enough(block, size)
    hosts = [address(family(bytes(block[at : at + width]))) for at in (0, width)]
    ports = [int.from_bytes(block[at : at + 2], "big") for at in (2 * width, 2 * width + 2)]
    return (hosts[0], ports[0]), (hosts[1], ports[1]), size


def path(field: memoryview) -> End:
    """The path of a unix socket, padded with NUL; the name of an abstract one begins with that."""
    name = bytes(field).rstrip(b"\0")
    if b"\0" in name[1:]:
        name = name[: name.index(b"\0", 1)]
    return name.decode("utf-8", "replace"), None


# A TLV's type -> where its value begins in the header, and the value.
Tlvs: TypeAlias = dict[int, tuple[int, bytes]]


def tlvs_of(block: memoryview, at: int) -> Tlvs:
    """What else there is, by its type (sections 2.2.1 to 2.2.8); ``at`` is where ``block`` begins in the header."""
    found: Tlvs = {}
    place = 0
    while place < len(block):
        if len(block) - place < TLV.size:
            raise RemoteProtocolError("its PROXY header ends within a TLV")
        kind, size = TLV.unpack_from(block, place)
        place += TLV.size
        if len(block) - place < size:
            raise RemoteProtocolError("its PROXY header ends within a TLV")
        if kind in ONCE:
            if kind in found:
                raise RemoteProtocolError(f"its PROXY header has the TLV 0x{kind:02x} twice")
            found[kind] = at + place, bytes(block[place : place + size])
        place += size
    return found


def text(tlvs: Tlvs, kind: int) -> str | None:
    """A TLV's value, which may be the client's word: what is no UTF-8 in it shows as ``\\xff``."""
    return tlvs[kind][1].decode("utf-8", "backslashreplace") if kind in tlvs else None


def client_tls(value: bytes) -> ClientTls:
    """The TLV of the client's TLS, and those within it (section 2.2.6)."""
    if len(value) < SSL_FIXED.size:
        raise RemoteProtocolError("its PROXY header has too short a TLV about TLS")
    client, verify = SSL_FIXED.unpack_from(value)
    tlvs = tlvs_of(memoryview(value)[SSL_FIXED.size :], 0)
    certificate = bool(client & CLIENT_CERT)
    return ClientTls(
        over_tls=bool(client & CLIENT_SSL),
        certificate=certificate,
        verified=certificate and verify == 0,
        version=text(tlvs, SSL_VERSION),
        cipher=text(tlvs, SSL_CIPHER),
        common_name=text(tlvs, SSL_CN),
    )


def check_crc(data: bytes, at: int, value: bytes) -> None:
    """Section 2.2.3: the CRC32c of all of the header, its own four bytes being 0."""
    if len(value) != 4:
        raise RemoteProtocolError("its PROXY header has a checksum that is not 4 bytes long")
    if crc32c(data[:at] + bytes(4) + data[at + 4 :]) != int.from_bytes(value, "big"):
        raise RemoteProtocolError("its PROXY header has a wrong checksum")


def _crc_table() -> Iterable[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


_CRC: Final = tuple(_crc_table())


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC (RFC 9260 appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
