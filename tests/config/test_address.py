"""Bind addresses: text to value, value to canonical text, and what the errors say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.config.address import Address, parse_bind

EXPECTED = "HOST:PORT, [V6]:PORT, unix:PATH, fd:N or systemd[:NAME]"


@pytest.mark.parametrize(
    ("text", "address", "canonical"),
    [
        ("127.0.0.1:8000", Address("tcp", host="127.0.0.1", port=8000), "127.0.0.1:8000"),
        ("0.0.0.0:0", Address("tcp", host="0.0.0.0", port=0), "0.0.0.0:0"),
        ("LocalHost:080", Address("tcp", host="localhost", port=80), "localhost:80"),
        ("my_service.internal.:65535", Address("tcp", host="my_service.internal.", port=65535), None),
        ("[::1]:8000", Address("tcp", host="::1", port=8000), "[::1]:8000"),
        ("[2001:DB8:0:0::1]:1", Address("tcp", host="2001:db8::1", port=1), "[2001:db8::1]:1"),
        ("[fe80::1%eth0]:1", Address("tcp", host="fe80::1%eth0", port=1), "[fe80::1%eth0]:1"),
        ("unix:/run/asgiri.sock", Address("unix", path="/run/asgiri.sock"), "unix:/run/asgiri.sock"),
        ("unix:a b:c", Address("unix", path="a b:c"), "unix:a b:c"),
        ("unix:" + "x" * 107, Address("unix", path="x" * 107), None),
        ("unix:@name/of it", Address("unix", path="@name/of it"), None),
        ("unix:@" + "x" * 106, Address("unix", path="@" + "x" * 106), None),
        ("systemd", Address("systemd"), None),
        ("systemd:web.socket", Address("systemd", name="web.socket"), None),
        ("fd:3", Address("fd", fd=3), "fd:3"),
        ("fd:007", Address("fd", fd=7), "fd:7"),
    ],
)
def test_addresses(text: str, address: Address, canonical: str | None) -> None:
    assert parse_bind(text) == address
    assert str(address) == (canonical or text)
    assert parse_bind(str(address)) == address


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", f'expected {EXPECTED}, got ""'),
        ("8000", f'expected {EXPECTED}, got "8000"'),
        (":8000", f'expected {EXPECTED}, got ":8000"'),
        ("[]:8000", f'expected {EXPECTED}, got "[]:8000"'),
        ("::1:8000", f'expected {EXPECTED}, got "::1:8000"; an IPv6 address stands in brackets'),
        ("http://a:80", f'expected {EXPECTED}, got "http://a:80"; an IPv6 address stands in brackets'),
        ("a:", 'expected a port from 0 to 65535, got ""'),
        ("a:65536", 'expected a port from 0 to 65535, got "65536"'),
        ("a:-1", 'expected a port from 0 to 65535, got "-1"'),
        ("a:٣", 'expected a port from 0 to 65535, got "٣"'),
        ("[::g]:80", 'expected an IPv6 address in the brackets, got "::g"'),
        ("256.0.0.1:80", 'expected an IPv4 address or a host name, got "256.0.0.1"'),
        ("127.1:80", 'expected an IPv4 address or a host name, got "127.1"'),
        ("*:80", 'expected an IPv4 address or a host name, got "*"'),
        ("-a:80", 'expected an IPv4 address or a host name, got "-a"'),
        ("a..b:80", 'expected an IPv4 address or a host name, got "a..b"'),
        ("bücher:80", 'expected an IPv4 address or a host name, got "bücher"'),
        ("unix:", 'expected a path after "unix:"'),
        ("unix:@", 'expected a name after "unix:@"'),
        ("unix:" + "ü" * 54, "expected a socket path of 107 bytes at most, got 108 bytes"),
        ("fd:", 'expected a file descriptor number after "fd:", got ""'),
        ("fd:-1", 'expected a file descriptor number after "fd:", got "-1"'),
        ("fd:1234567890", 'expected a file descriptor number after "fd:", got "1234567890"'),
        ("systemd:", 'expected a FileDescriptorName after "systemd:", got ""'),
        ("systemd:a:b", 'expected a FileDescriptorName after "systemd:", got "a:b"'),
        ("systemd:a\x07", 'expected a FileDescriptorName after "systemd:", got "a\x07"'),
        ("systemd:" + "x" * 256, f'expected a FileDescriptorName after "systemd:", got "{"x" * 256}"'),
    ],
)
def test_what_is_no_address(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(error)}$"):
        parse_bind(text)


@given(st.text() | st.from_regex(r"(unix|fd|tcp|\[[0-9a-f:]*\]|[0-9.]*|[a-z.]*):[0-9]*", fullmatch=True))
def test_any_text_is_an_address_that_reads_back_or_a_value_error(text: str) -> None:
    try:
        address = parse_bind(text)
    except ValueError:
        return
    assert parse_bind(str(address)) == address
