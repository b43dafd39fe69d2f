"""What certificates say of themselves: what cryptography reads, too, and nothing but ValueError for others."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from asgiri.tls_files import FILE_MOST
from asgiri.x509 import Certificate, ders_in, in_pem, names, read
from tests.pki import Pki


def made(not_before: datetime, not_after: datetime, name: str = "a", serial: int = 1) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)] * 5)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "someone")])
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), serial, not_before, not_after)
    return builder.sign(key, hashes.SHA256())


def der(tag: int, *contents: bytes) -> bytes:
    """An element of DER, with a short length."""
    data = b"".join(contents)
    assert len(data) < 128
    return bytes([tag, len(data)]) + data


def minimal(first: bytes, last: bytes, version: bytes = b"") -> bytes:
    """The part of a certificate that is read, with these dates."""
    names = der(0x30), der(0x30)
    return der(
        0x30, der(0x30, version, der(0x02, b"\1"), der(0x30), names[0], der(0x30, first, last), names[1], b"rest")
    )


@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime(1999, 2, 28, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),  # the last of UTCTime
        (datetime(2000, 2, 29, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)),  # a GeneralizedTime
        (datetime(2060, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),  # no end, in RFC 5280
    ],
)
@pytest.mark.parametrize(("name", "serial"), [("a", 1), ("A long name, of which five take a long length", 2**158 - 1)])
def test_it_reads_what_cryptography_has_written(
    not_before: datetime, not_after: datetime, name: str, serial: int
) -> None:
    cert = made(not_before, not_after, name, serial)
    found = read(cert.public_bytes(Encoding.DER))
    assert (found.not_before, found.not_after) == (not_before, not_after)
    assert cert.subject.public_bytes().endswith(found.subject)
    assert cert.issuer.public_bytes().endswith(found.issuer)
    assert found.subject != found.issuer


def test_a_chain_in_its_order(pki: Pki) -> None:
    middle = pki.authority.create_child_ca()
    certfile, keyfile = pki.issue("chain", "localhost", authority=middle)
    text = (
        b"-- a comment --\n" + Path(certfile).read_bytes() + Path(keyfile).read_bytes() + Path(pki.ca_file).read_bytes()
    )
    leaf, second, root = in_pem(text)
    assert (leaf.issuer, second.issuer, root.issuer) == (second.subject, root.subject, root.subject)
    assert list(in_pem(Path(keyfile).read_bytes())) == []


def test_older_labels() -> None:
    pem = trustme.CA().cert_pem.bytes()
    for label in (b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
        assert list(in_pem(pem.replace(b" CERTIFICATE", b" " + label))) == list(in_pem(pem))


def utc(text: str) -> bytes:
    return der(0x17, text.encode())


def generalized(text: str) -> bytes:
    return der(0x18, text.encode())


def test_dates_in_both_forms_and_the_centuries_of_the_short_one() -> None:
    found = read(minimal(utc("500101000000Z"), utc("491231235959Z")))
    assert found == Certificate(
        b"", b"", datetime(1950, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    )
    version = der(0xA0, der(0x02, b"\2"))
    found = read(minimal(generalized("20260101000000Z"), generalized("20261231000000Z"), version))
    assert found.not_after - found.not_before == timedelta(days=364)


@pytest.mark.parametrize(
    "date",
    [
        utc("20260101000000Z"),
        generalized("260101000000Z"),
        utc("260101000000+0100"),
        utc("2601010000Z"),
        utc("261301000000Z"),
        utc("260230000000Z"),
        generalized("20260101000000.5Z"),
        der(0x13, b"260101000000Z"),
        b"",
    ],
)
def test_what_is_no_date(date: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of the message nothing is promised
        read(minimal(utc("260101000000Z"), date))


def test_whatever_the_bytes_are_it_is_a_certificate_or_a_value_error() -> None:
    whole = made(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)).public_bytes(Encoding.DER)
    for size in range(len(whole)):
        with pytest.raises(ValueError):  # noqa: PT011
            read(whole[:size])
    chance = random.Random(7)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(160)] = chance.randrange(256)
        with suppress(ValueError):
            read(bytes(data))
    for text in (b"\xff", b"A", b"AAAA", b""):
        with pytest.raises(ValueError):  # noqa: PT011
            list(in_pem(b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"))


# Whom it is for


def test_the_names_are_those_of_the_subject_alternative_names(pki: Pki) -> None:
    leaf, _ = pki.issue("names", "www.example.org", "*.example.org", "192.0.2.7", "2001:db8::1", "jane@example.org")
    ours, authority = next(ders_in(Path(leaf).read_bytes())), Path(pki.ca_file).read_bytes()
    assert names(ours) == ["www.example.org", "*.example.org", "192.0.2.7", "2001:db8::1"]
    assert names(next(ders_in(authority))) == []
    assert (
        names(made(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)).public_bytes(Encoding.DER)) == []
    )


def test_no_damage_to_names_raises_anything_but_a_value_error(pki: Pki) -> None:
    data = next(ders_in(Path(pki.certfile).read_bytes()))
    chance = random.Random(9)
    for _ in range(2000):
        damaged = bytearray(data[: chance.choice((len(data), chance.randrange(len(data))))])
        for _ in range(chance.randrange(4)):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with suppress(ValueError):
            names(bytes(damaged))


def test_a_file_full_of_beginnings_is_gone_through_once() -> None:
    before = time.process_time()
    assert list(ders_in(b"-----BEGIN CERTIFICATE-----" * (FILE_MOST // 27))) == []
    assert time.process_time() - before < 1  # the master does it: it took minutes
