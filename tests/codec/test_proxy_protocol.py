"""Headers of the PROXY protocol: tables, each whole, cut at every byte and with what follows it; and generated ones."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.codec.proxy_protocol import V2_MOST, ClientTls, Command, Header, HeaderParser, crc32c
from asgiri.errors import RemoteProtocolError
from tests.codec.proxy_headers import FULL_TLS, INET, INET6, SIGNATURE, UNIX, inet, tls, tlv, unix, v1, v2, with_crc

ANY = frozenset({1, 2})
P, L = Command.PROXY, Command.LOCAL
SOURCE, DESTINATION = ("192.0.2.7", 4711), ("198.51.100.1", 443)
PLAIN = Header(P, SOURCE, DESTINATION)
SOURCE6, DESTINATION6 = ("2001:db8::7", 0), ("::1", 65535)
LONGEST = b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n"
FOLLOWS = [b"", b"G", b"GET / HTTP/1.1\r\n\r\n", b"\n", b"\r\n", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n", SIGNATURE]

GOOD = {
    "TCP4": (v1(), PLAIN),
    "TCP6": (v1("2001:DB8::7", 0, "::1", 65535), Header(P, SOURCE6, DESTINATION6)),
    "mapped": (v1("::ffff:192.0.2.7", 1, "::ffff:c000:0201", 2), Header(P, ("192.0.2.7", 1), ("192.0.2.1", 2))),
    "longest": (LONGEST, Header(P)),
    "the longest of TCP6": (
        v1(":".join(["ffff"] * 8), 65535, ":".join(["ffff"] * 8), 65535),
        Header(P, (":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "unknown": (b"PROXY UNKNOWN\r\n", Header(P)),
    "unknown, and anything": (b"PROXY UNKNOWN \xff \0 TCP4\r\n", Header(P)),
    "v2 inet": (v2(inet(), kind=INET), PLAIN),
    "v2 inet6": (v2(inet("2001:db8::7", 0, "::1", 65535), kind=INET6), Header(P, SOURCE6, DESTINATION6)),
    "v2 unix": (v2(unix(b"/tmp/a"), kind=UNIX), Header(P, ("/tmp/a", None), ("/run/proxy.sock", None))),
    "v2 abstract": (
        v2(unix(b"\0a\0b", b"\xff"), kind=UNIX),
        Header(P, ("\0a", None), ("\N{REPLACEMENT CHARACTER}", None)),
    ),
    "v2 unix, nameless, full": (v2(unix(b"", b"x" * 108), kind=UNIX), Header(P, ("", None), ("x" * 108, None))),
    "v2 unspec": (v2(), Header(P)),
    "v2 unspec with TLS": (v2(tls(verify=1)), Header(P, tls=ClientTls(True, False, False))),
    "v2 local": (v2(command=0x20), Header(L)),
    "v2 local, and anything": (v2(b"\xff" * 40, kind=0xEE, command=0x20), Header(L)),
    "v2 padded to the most": (v2(inet() + tlv(4, bytes(V2_MOST - 15)), kind=INET), PLAIN),
    "v2 alpn, authority, id": (
        v2(inet() + tlv(1, b"h2") + tlv(2, "größe.example".encode()) + tlv(5, b"id\xff") + tlv(0xE4, b"?"), kind=INET),
        Header(P, SOURCE, DESTINATION, authority="größe.example", alpn="h2", unique_id="id\\xff"),
    ),
    "v2 TLS": (
        v2(inet() + FULL_TLS, kind=INET),
        Header(P, SOURCE, DESTINATION, tls=ClientTls(True, True, True, "TLSv1.3", "TLS_AES_128_GCM_SHA256", "Zoë")),
    ),
    "v2 TLS, not verified": (v2(tls(client=5, verify=18)), Header(P, tls=ClientTls(True, True, False))),
    "v2 no TLS": (v2(tls(client=0)), Header(P, tls=ClientTls(False, False, False))),
    "v2 checksum": (with_crc(inet()), PLAIN),
    "v2 checksum in the middle": (with_crc(inet(), more=tlv(4, b"12")), PLAIN),
}

BAD = {
    "HTTP": (b"GET / HTTP/1.1\r\n", "begins with HTTP"),
    "POST": (b"POST / HTTP/1.1\r\n", "begins with HTTP"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "begins with HTTP/2"),
    "TLS": (b"\x16\x03\x01\x02\x00", "begins with TLS"),
    "garbage": (b"\xff\x00\n\x1b[31m", "begins with the bytes ff 00 0a 1b"),
    "another case": (b"proxy TCP4 ", "begins with the bytes 70 72 6f 78"),
    "a signature that is wrong": (SIGNATURE[:-1] + b"\r", "begins with"),
    "LF": (v1().replace(b"\r\n", b"\n"), "does not end with CR and LF"),
    "CR": (v1().replace(b"\r\n", b"\rG"), "does not end with CR and LF"),
    "LF within": (b"PROXY UNKNOWN a\nb\r\n", "does not end with CR and LF"),
    "no end": (b"PROXY UNKNOWN " + b"a" * 93, "no end within 107"),
    "an end too late": (b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n", "no end within 107"),
    "an end much too late": (b"PROXY UNKNOWN " + b"f" * 200 + b"\r\n", "no end within 107"),
    "nothing": (b"PROXY \r\n", "is not"),
    "UDP": (v1().replace(b"TCP4", b"UDP4"), "is not"),
    "tcp4": (v1().replace(b"TCP4", b"tcp4"), "is not"),
    "UNKNOWNS": (b"PROXY UNKNOWNS\r\n", "is not"),
    "two spaces": (v1().replace(b"4711", b" 4711"), "is not"),
    "a space at the end": (v1().replace(b"\r", b" \r"), "is not"),
    "a tab": (v1().replace(b" 4711", b"\t4711"), "is not"),
    "one port": (v1().replace(b" 4711", b""), "is not"),
    **{
        f"address {text!r}": (v1().replace(b"192.0.2.7", text), "no address of IPv4")
        for text in (
            b"1.2.3",
            b"1.2.3.256",
            b"01.2.3.4",
            b"1.2.3.4.",
            b"::1",
            b"localhost",
            b"",
            b"1.2.3.\xff",
            b"+1.2.3.4",
        )
    },
    **{
        f"address {text!r}": (b"PROXY TCP6 " + text + b" ::1 1 2\r\n", "no address of IPv6")
        for text in (b"1.2.3.4", b"fe80::1%lo", b"[::1]", b":::", b"1::2::3", b"12345::", b"::g", b"")
    },
    **{
        f"port {text!r}": (v1().replace(b"4711", text), "no port")
        for text in (b"65536", b"-1", b"+1", b"01", b"00", b"", b"1e3", b"0x1", b"99999999", b"1_0", b"\xb2")
    },
    "v2 of version 1": (v2(command=0x11), "version 1, which is unknown"),
    "v2 of version 3": (v2(command=0x31), "version 3, which is unknown"),
    "v2 command": (v2(command=0x22), "unknown command 2"),
    "v2 too long": (v2(kind=INET, length=V2_MOST + 1), "4097 bytes long; 4096 are allowed"),
    "v2 much too long": (v2(kind=INET, length=0xFFFF), "65535 bytes long"),
    "v2 local, too long": (v2(command=0x20, length=0xFFFF), "65535 bytes long"),
    **{f"v2 datagrams {kind:02x}": (v2(unix(), kind=kind), "datagrams") for kind in (0x12, 0x22, 0x32)},
    **{
        f"v2 kind {kind:02x}": (v2(unix(), kind=kind), f"unknown family and transport 0x{kind:02x}")
        for kind in (0x01, 0x10, 0x13, 0x20, 0x30, 0x41, 0xFF)
    },
    "v2 inet, short": (v2(inet()[:-1], kind=INET), "11 bytes for addresses of 12"),
    "v2 inet6, short": (v2(inet(), kind=INET6), "12 bytes for addresses of 36"),
    "v2 unix, short": (v2(unix()[:-1], kind=UNIX), "215 bytes for addresses of 216"),
    "v2 a TLV's head": (v2(inet() + b"\x04\0", kind=INET), "ends within a TLV"),
    "v2 a TLV's value": (v2(inet() + tlv(4, b"ab")[:-1], kind=INET), "ends within a TLV"),
    "v2 twice": (v2(tlv(2, b"a") + tlv(2, b"a")), "TLV 0x02 twice"),
    "v2 id": (v2(tlv(5, bytes(129))), "more than 128 bytes"),
    "v2 TLS, short": (v2(tlv(0x20, bytes(4))), "too short a TLV"),
    "v2 TLS, a TLV's value": (v2(tls(tlv(0x22, b"ab")[:-1])), "ends within a TLV"),
    "v2 TLS, twice": (v2(tls(tlv(0x22, b"a"), tlv(0x22, b"b"))), "twice"),
    "v2 checksum": (with_crc(inet()).replace(b"\xc0\x00\x02\x07", b"\xc0\x00\x02\x08"), "wrong checksum"),
    "v2 checksum, short": (v2(inet() + tlv(3, bytes(3)), kind=INET), "not 4 bytes"),
}


def read(parser: HeaderParser, pieces: list[bytes]) -> int:
    """Feed as a socket does: what is not taken is not lost, and nothing is asked for once the header is there."""
    taken = 0
    for piece in pieces:
        if parser.header is not None:
            break
        taken += parser.feed(piece)
    return taken


@pytest.mark.parametrize("follows", FOLLOWS)
@pytest.mark.parametrize("name", GOOD)
def test_a_good_header_is_read_and_not_a_byte_more(name: str, follows: bytes) -> None:
    data, header = GOOD[name]
    parser = HeaderParser(ANY)
    assert parser.feed(data + follows) == len(data)
    assert parser.header == header


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_in_two_pieces_and_byte_by_byte(name: str) -> None:
    data, header = GOOD[name]
    for at in range(1, min(len(data), 400)):
        parser = HeaderParser(ANY)
        assert parser.feed(data[:at]) == at
        assert parser.header is None
        assert parser.begun
        assert parser.feed(data[at:] + b"GET /") == len(data) - at
        assert parser.header == header
    parser = HeaderParser(ANY)
    assert read(parser, [data[at : at + 1] for at in range(len(data))]) == len(data)
    assert parser.header == header


@pytest.mark.parametrize("name", BAD)
def test_a_bad_header_is_refused_at_any_cut(name: str) -> None:
    data, what = BAD[name]
    with pytest.raises(RemoteProtocolError, match=what):
        HeaderParser(ANY).feed(data)
    for follows in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(200)):
        parser = HeaderParser(ANY)
        with pytest.raises(RemoteProtocolError):
            read(parser, [bytes([byte]) for byte in data + follows])
        assert parser.header is None


@pytest.mark.parametrize(
    ("data", "versions", "what"),
    [
        (v1(), {2}, "version 1 of the PROXY protocol is not taken"),
        (b"P", {2}, "version 1"),
        (v2(), {1}, "version 2 of the PROXY protocol is not taken"),
        (b"\r", {1}, "version 2"),
        (b"G", {1}, "begins with HTTP"),
    ],
)
def test_a_version_that_is_not_taken(data: bytes, versions: set[int], what: str) -> None:
    with pytest.raises(RemoteProtocolError, match=what):
        HeaderParser(frozenset(versions)).feed(data)


@pytest.mark.parametrize("data", [b"PROXY TCP4 1.2.3.4", v2(inet(), kind=INET)[:20], b"\r\n\r\n"])
def test_garbage_is_seen_at_its_first_byte(data: bytes) -> None:
    parser = HeaderParser(ANY)
    parser.feed(data)
    assert parser.header is None
    with pytest.raises(RemoteProtocolError):
        HeaderParser(ANY).feed(b"\x00")


def test_it_never_asks_for_more_than_a_header_can_be() -> None:
    parser = HeaderParser(ANY)
    data = v2(tlv(4, bytes(V2_MOST - 3)))
    assert parser.most == len(data)
    parser.feed(data[:-1])
    assert parser.most == 1


def test_the_checksum_of_the_rfc() -> None:
    """RFC 3720 appendix B.4 has these."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


octets = st.binary(min_size=4, max_size=4).map(lambda data: socket.inet_ntop(socket.AF_INET, data))
words = st.binary(min_size=16, max_size=16).map(lambda data: socket.inet_ntop(socket.AF_INET6, data))
ports = st.integers(0, 65535)
shapes = st.sampled_from([data for data, _ in GOOD.values()] + [data for data, _ in BAD.values()])


@given(st.data(), st.booleans())
def test_what_a_proxy_says_is_what_is_heard(data: st.DataObject, is_v2: bool) -> None:
    hosts = data.draw(st.one_of(st.tuples(octets, octets), st.tuples(words, words)))
    source, destination = ((host, data.draw(ports)) for host in hosts)
    ends = *source, *destination
    kind = INET6 if ":" in hosts[0] else INET
    parser = HeaderParser(ANY)
    header = v2(inet(*ends), kind=kind) if is_v2 else v1(*ends)
    assert parser.feed(header + b"x") == len(header)
    assert parser.header is not None
    assert parser.header.source is not None
    heard = parser.header.source, parser.header.destination
    assert [(host.removeprefix("::ffff:"), port) for host, port in (source, destination)] == [*heard]


@given(st.binary(max_size=80) | shapes, st.integers(0, 300), st.binary(min_size=1, max_size=3), st.integers(1, 40))
def test_any_bytes_are_a_header_an_error_or_not_whole(data: bytes, at: int, put: bytes, step: int) -> None:
    """And which of these does not depend on how they come."""
    data = data[:at] + put + data[at + len(put) :]

    def outcome(pieces: list[bytes]) -> tuple[str, Header | None, int]:
        parser = HeaderParser(ANY)
        taken = 0
        with suppress(RemoteProtocolError):
            taken = read(parser, pieces)
            return "whole" if parser.header else "more", parser.header, taken
        return "bad", None, 0

    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert outcome([data]) == outcome(pieces) == outcome([data[:1], data[1:]] if len(data) > 1 else [data])
