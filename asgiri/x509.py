"""What a certificate says of itself: whose it is, who has issued it, and the dates between which it holds.

Python's ssl tells that of a peer's certificate, and of the authorities in a file, but not of the certificate that a
server shows. So this reads the few fields of it, by their place (RFC 5280 section 4.1; DER is X.690). Whether OpenSSL
takes the certificate is asked elsewhere.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from collections.abc import Iterator
from datetime import UTC, datetime
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final

from msgspec import Struct

_INTEGER: Final = 0x02
_OCTETS: Final = 0x04
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_SEQUENCE: Final = 0x30
_EXTENSIONS: Final = 0xA3  # [3] EXPLICIT
_VERSION: Final = 0xA0  # [0] EXPLICIT, left out by certificates of version 1
# subjectAltName (RFC 5280 section 4.2.1.6), as an encoded identifier, and of its forms those that servers have.
_ALT_NAMES: Final = bytes.fromhex("0603551d11")
_DNS_NAME: Final = 0x82
_IP_ADDRESS: Final = 0x87


# RFC 7468 section 5, and the older labels that OpenSSL takes too. What follows the certificate in a trusted one is not
# read. Base64 has no hyphen: a file full of beginnings is gone through once, and not once for each.
PEM: Final = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----([^-]*)-----END (?:X509 |TRUSTED )?CERTIFICATE-----"
)
_TIME: Final = re.compile(rb"(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z")


class Certificate(Struct, frozen=True):
    """``subject`` and ``issuer`` are names as they are encoded, fit to be compared; the dates are UTC and inclusive."""

    subject: bytes
    issuer: bytes
    not_before: datetime
    not_after: datetime


def in_pem(data: bytes) -> Iterator[Certificate]:
    """The certificates in a text, in its order. ValueError at one that is not understood."""
    return map(read, ders_in(data))


def ders_in(data: bytes) -> Iterator[bytes]:
    """The certificates in a text as they are encoded, in its order. ValueError at one that is not base64."""
    for block in PEM.finditer(data):
        try:
            yield a2b_base64(block[1])
        except Error as error:
            raise ValueError(f"no base64: {error}") from error


def read(der: bytes) -> Certificate:
    """The certificate that ``der`` begins with. ValueError when it is none."""
    whole = _Reader(_Reader(der).take(_SEQUENCE))
    fields = _Reader(whole.take(_SEQUENCE))  # tbsCertificate
    if fields.next == _VERSION:
        fields.take(_VERSION)
    fields.take(_INTEGER)  # serialNumber
    fields.take(_SEQUENCE)  # signature
    issuer = fields.take(_SEQUENCE)
    dates = _Reader(fields.take(_SEQUENCE))
    return Certificate(fields.take(_SEQUENCE), issuer, dates.time(), dates.time())


def names(der: bytes) -> list[str]:
    """The host names and addresses that the certificate is for, in its order. ValueError when it is none."""
    fields = _Reader(_Reader(_Reader(der).take(_SEQUENCE)).take(_SEQUENCE))
    while fields.next not in (_EXTENSIONS, -1):
        fields.take(fields.next)
    if fields.next == -1:
        return []
    extensions = _Reader(_Reader(fields.take(_EXTENSIONS)).take(_SEQUENCE))
    while extensions.next == _SEQUENCE:
        extension = extensions.take(_SEQUENCE)
        if extension.startswith(_ALT_NAMES):
            rest = _Reader(extension[len(_ALT_NAMES) :])
            if rest.next != _OCTETS:
                rest.take(rest.next)  # whether it is critical
            return list(_alternatives(_Reader(_Reader(rest.take(_OCTETS)).take(_SEQUENCE))))
    return []


def _alternatives(reader: _Reader) -> Iterator[str]:
    while (tag := reader.next) != -1:
        value = reader.take(tag)
        if tag == _DNS_NAME:
            yield value.decode("ascii", "backslashreplace")
        elif tag == _IP_ADDRESS and len(value) in (4, 16):
            yield inet_ntop(AF_INET if len(value) == 4 else AF_INET6, value)


class _Reader:
    """Takes one element after the other off their encoding."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def next(self) -> int:
        """The tag of the next element; -1 at the end."""
        return self._data[self._at] if self._at < len(self._data) else -1

    def take(self, tag: int) -> bytes:
        """The contents of the next element, which must be a ``tag``."""
        if self.next != tag:
            raise ValueError(f"expected tag 0x{tag:02x} at byte {self._at}, got 0x{max(self.next, 0):02x}")
        start, size = self._length(self._at + 1)
        if start + size > len(self._data):
            raise ValueError(f"the element at byte {self._at} is cut off")
        self._at = start + size
        return self._data[start : self._at]

    def _length(self, at: int) -> tuple[int, int]:
        """Where the contents begin, and their size (X.690 section 8.1.3: in a byte, or in as many as that one says)."""
        first = self._data[at] if at < len(self._data) else 0x80
        if first < 0x80:
            return at + 1, first
        count = first & 0x7F
        if not 1 <= count <= 4:  # none is the indefinite form, which DER has not
            raise ValueError(f"the length at byte {at} is not DER's")
        start = at + 1 + count
        return start, int.from_bytes(self._data[at + 1 : start], "big")

    def time(self) -> datetime:
        """A date, in either form (RFC 5280 section 4.1.2.5)."""
        tag = self.next
        text = self.take(_GENERALIZED_TIME if tag == _GENERALIZED_TIME else _UTC_TIME)
        parts = _TIME.fullmatch(text)
        if parts is None or len(parts[1]) != (2 if tag == _UTC_TIME else 4):
            raise ValueError(f"a date that is none: {text!r}")
        year, *rest = map(int, parts.groups())
        if tag == _UTC_TIME:
            year += 1900 if year >= 50 else 2000
        month, day, hour, minute, second = rest
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
