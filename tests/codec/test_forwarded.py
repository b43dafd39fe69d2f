"""What proxies say of a request: the grammars, and the walk to the client (RFC 7239)."""

from __future__ import annotations

from collections.abc import Sequence
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgiri.codec.forwarded import (
    MOST_BYTES,
    MOST_HOPS,
    Element,
    Node,
    Told,
    from_the_end,
    judged_host,
    judged_prefix,
    parse_element,
    parse_node,
    read_forwarded,
    read_x_forwarded,
    split_host,
)

CLIENT = "203.0.113.7"


def trusts(host: str) -> bool:
    return host.startswith("10.") or host == "fd00::1"


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("192.0.2.1", Node("192.0.2.1")),
        ("192.0.2.1:80", Node("192.0.2.1", 80)),
        ("192.0.2.1:_port", Node("192.0.2.1")),
        ("2001:DB8::0:1", Node("2001:db8::1")),
        ("[2001:db8::1]", Node("2001:db8::1")),
        ("[2001:db8::1]:4711", Node("2001:db8::1", 4711)),
        ("[::ffff:192.0.2.1]", Node("192.0.2.1")),
        ("unknown", Node("", 0, "unknown")),
        ("_hidden:99", Node("", 99, "_hidden")),
        ("", None),
        ("_", None),
        ("_a b", None),
        ("UNKNOWN?", None),
        ("example.org", None),
        ("192.0.2.256", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:65536", None),
        ("192.0.2.1:8o", None),
        ("192.0.2.01", None),
        ("[192.0.2.1]", None),
        ("[2001:db8::1", None),
        ("2001:db8::1]", None),
        ("[2001:db8::1]80", None),
        ("[2001:db8::1]:", None),
        ("[fe80::1%eth0]", None),
        ("192.0.2.1 ", None),
        ("\u0661.1.1.1", None),
        ("127.0.0.1\n", None),
    ],
)
def test_a_node_is_read_or_refused(text: str, node: Node | None) -> None:
    assert parse_node(text) == node


@pytest.mark.parametrize(
    ("text", "element"),
    [
        ("for=192.0.2.43", Element(Node("192.0.2.43"))),
        ("For=192.0.2.43; PROTO=https;by=203.0.113.43", Element(Node("192.0.2.43"), "https")),
        ('for="[2001:db8:cafe::17]:4711"', Element(Node("2001:db8:cafe::17", 4711))),
        ('for="_gazonk"', Element(Node("", 0, "_gazonk"))),
        (r'for="192\.0.2.1";host="a\"b"', Element(Node("192.0.2.1"), "", 'a"b')),
        ("proto=http", Element(None, "http")),
        ('for="10.0.0.1, 10.0.0.2"', None),
        ("for=10.0.0.1;for=10.0.0.2", None),
        ("for=10.0.0.1;FOR=10.0.0.1", None),
        ("for = 10.0.0.1", None),
        ("for=", None),
        ("for", None),
        ("for=[2001:db8::1]", None),  # a token has no brackets: it is to be quoted
        ('for="10.0.0.1', None),
        ('for="10.0.0.1"x', None),
        ("for=10.0.0.1:80", None),  # nor a colon
        ("for=10.0.0.1 proto=http", None),
        (";for=10.0.0.1", None),
        ('for="10.0.0.1\x01"', None),
    ],
)
def test_an_element_is_read_or_refused_whole(text: str, element: Element | None) -> None:
    assert parse_element(text) == element


@pytest.mark.parametrize(
    ("values", "entries"),
    [
        ([b"a, b,c"], ["c", "b", "a"]),
        ([b"a", b"b, c"], ["c", "b", "a"]),
        ([b"", b" , ,a,,"], ["a"]),
        ([b'x="a,b", y="c"'], ['y="c"', 'x="a,b"']),
        ([rb'x="a\",b", y=c'], ["y=c", r'x="a\",b"']),
        ([rb'x="a\\", y="c,d"'], ['y="c,d"', r'x="a\\"']),
        ([b'x="a, y=b'], ["y=b", 'x="a']),
        ([b'a, x", y=b'], ["y=b", 'a, x"']),
        ([b'"'], ['"']),
        ([b'","'], ['","']),
    ],
)
def test_entries_from_the_end(values: list[bytes], entries: list[str]) -> None:
    assert list(from_the_end(values)) == entries


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (f"for={CLIENT};proto=https;host=shop.example.org", Told(Node(CLIENT), "https", "shop.example.org")),
        (f"for=6.6.6.6;host=evil, for={CLIENT};host=shop, for=10.0.0.1;host=inner", Told(Node(CLIENT), "", "shop")),
        ("for=10.0.0.2;proto=https, for=10.0.0.1", Told(Node("10.0.0.2"), "https")),  # all are trusted
        ('for="[fd00::1]:5", for=10.0.0.1', Told(Node("fd00::1", 5))),
        ("for=6.6.6.6, for=_secret;proto=https, for=10.0.0.1", Told(Node("", 0, "_secret"), "https")),
        ("for=6.6.6.6, for=unknown", Told(Node("", 0, "unknown"))),
        ("for=6.6.6.6, nonsense, for=10.0.0.1;proto=https", Told(Node("10.0.0.1"), "https")),
        ("for=6.6.6.6, proto=https, for=10.0.0.1;proto=http", Told(Node("10.0.0.1"), "http")),
        ("for=6.6.6.6, proto=https;host=a", Told(None, "https", "a")),  # the nearest says so, and names nobody
        ("for=6.6.6.6, for=x", Told()),
        (f'for=", for={CLIENT}', Told(Node(CLIENT))),
        (f'"\\, for="{CLIENT}"', Told(Node(CLIENT))),
        (f'for={CLIENT};proto=ftp;host="a/b"', Told(Node(CLIENT))),
        (f"for={CLIENT};proto=WSS", Told(Node(CLIENT), "https")),
        ("", Told()),
    ],
)
def test_the_walk_of_forwarded(value: str, told: Told) -> None:
    assert read_forwarded([value.encode("latin-1")], trusts) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"for": CLIENT}, Told(Node(CLIENT))),
        ({"for": f"6.6.6.6, {CLIENT}, 10.0.0.1"}, Told(Node(CLIENT))),
        ({"for": "10.0.0.2, 10.0.0.1"}, Told(Node("10.0.0.2"))),
        ({"for": "6.6.6.6, what, 10.0.0.1"}, Told(Node("10.0.0.1"))),
        ({"for": "6.6.6.6, what"}, Told()),
        ({"for": f"{CLIENT}:4711"}, Told(Node(CLIENT, 4711))),
        ({"for": "2001:db8::1, 10.0.0.1"}, Told(Node("2001:db8::1"))),
        ({"for": f'", {CLIENT}'}, Told(Node(CLIENT))),
        ({"for": f"{CLIENT}, 10.0.0.1", "proto": "https, http"}, Told(Node(CLIENT), "https")),
        ({"for": f"6.6.6.6, {CLIENT}, 10.0.0.1", "proto": "http, https"}, Told(Node(CLIENT), "https")),
        (
            {"for": f"6.6.6.6, {CLIENT}", "proto": "http,https", "host": "evil, shop"},
            Told(Node(CLIENT), "https", "shop"),
        ),
        ({"proto": "wss"}, Told(None, "https")),
        ({"proto": "javascript", "host": "a b", "port": "0", "prefix": "//evil"}, Told()),
        ({"host": "[2001:db8::1]:8443", "port": "444"}, Told(None, "", "[2001:db8::1]:8443", 444)),
        ({"port": "65536"}, Told()),
        ({"port": "-1"}, Told()),
        ({"prefix": "/shop/"}, Told(prefix="/shop")),
        ({"prefix": "/evil, /shop"}, Told(prefix="/shop")),
        ({}, Told()),
    ],
)
def test_the_walk_of_x_forwarded(fields: dict[str, str], told: Told) -> None:
    given_fields = {f"x-forwarded-{name}".encode(): [value.encode()] for name, value in fields.items()}
    assert read_x_forwarded(given_fields, trusts) == told


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("/a/b", "/a/b"),
        ("/caf%C3%A9", "/café"),
        ("/a%20b", "/a b"),
        ("/", ""),
        ("", ""),
        ("a", ""),
        ("//a", ""),
        ("/a//b", ""),
        ("/a/../b", ""),
        ("/%2e%2e/b", ""),
        ("/a%2Fb", ""),
        ("/a?b", ""),
        ("/a%3Fb", ""),
        ("/a\\b", ""),
        ("/a%00", ""),
        ("/%ff", ""),
        ("/%zz", ""),
        ("https://evil/", ""),
    ],
)
def test_a_prefix_is_made_clean_or_nothing(text: str, prefix: str) -> None:
    assert judged_prefix(text) == prefix


def test_a_host_is_taken_where_it_is_one() -> None:
    assert judged_host("a.example:80") == "a.example:80"
    assert [judged_host(text) for text in ("", ":80", "a/b", "a@b", "a\r\nb", "\xe9", "a" * 257)] == [""] * 7
    assert split_host("a:80") == ("a", 80)
    assert split_host("[2001:db8::1]:80") == ("2001:db8::1", 80)
    assert split_host("[2001:db8::1]") == ("2001:db8::1", 0)
    assert split_host("a:") == ("a", 0)
    assert split_host("a:99999") == ("a", 0)


# Generated

ADDRESSES = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
JUNK = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40).map(
    lambda text: text.encode("latin-1")
)
SPITEFUL = st.text('",;\\=[]:for1. _', max_size=60).map(str.encode)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def entry(address: str) -> str:
    return f'for="[{address}]"' if ":" in address else f"for={address}"


@given(st.one_of(JUNK, SPITEFUL), ADDRESSES, st.booleans())
def test_whatever_stands_before_the_proxys_entry_changes_nothing(junk: bytes, address: str, joined: bool) -> None:
    """The nearest proxy, which is trusted, appends its peer, which is not: that is the client."""

    def nobody(host: str) -> bool:
        return False

    def fields(own: str) -> Sequence[bytes]:
        return [junk + b", " + own.encode()] if joined else [junk, own.encode()]

    expected = parse_node(f"[{address}]" if ":" in address else address)
    assert read_forwarded(fields(entry(address) + ";proto=https"), nobody) == Told(expected, "https")
    assert read_x_forwarded({b"x-forwarded-for": list(fields(address))}, nobody) == Told(expected)


@given(st.lists(st.one_of(JUNK, SPITEFUL), max_size=4))
def test_no_bytes_make_it_fail(values: list[bytes]) -> None:
    told = read_forwarded(values, trusts)
    assert told.scheme in ("", "http", "https")
    fields = dict.fromkeys((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"), values)
    read_x_forwarded(fields | {b"x-forwarded-port": values, b"x-forwarded-prefix": values}, trusts)


TOKENS = st.text("abcxyz019!#$%&'*+-.^_`|~", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(st.dictionaries(TOKENS.filter(lambda name: name != "for"), VALUES, min_size=1, max_size=3), max_size=5))
def test_what_is_written_by_the_grammar_is_read(elements: list[dict[str, str]]) -> None:
    texts = [";".join(f"{name}={quoted(value)}" for name, value in one.items()) for one in elements]
    assert list(from_the_end([", ".join(texts).encode()])) == texts[::-1]
    for one, text in zip(elements, texts, strict=True):
        assert parse_element(text) == Element(None, one.get("proto", ""), one.get("host", ""))


def test_a_chain_of_trusted_addresses_is_walked_only_so_far() -> None:
    chain = ", ".join(["for=6.6.6.6", *["for=10.0.0.9"] * MOST_HOPS])
    assert read_forwarded([chain.encode()], trusts) == Told(Node("10.0.0.9"))
    chain = chain.replace("for=", "")
    assert read_x_forwarded({b"x-forwarded-for": [chain.encode()]}, trusts) == Told(Node("10.0.0.9"))


@pytest.mark.parametrize(
    "piece", [b",", b'"', b'",', b'\\"', b"\\", b"for=10.0.0.1,", b'for="10.0.0.1",', b'",,"', b"a;"]
)
def test_the_longest_header_is_read_in_no_time(piece: bytes) -> None:
    value = piece * ((64 << 10) // len(piece))
    began = process_time()
    read_forwarded([b'"' + value], trusts)
    read_x_forwarded({b"x-forwarded-for": [b'"' + value], b"x-forwarded-proto": [value]}, trusts)
    assert process_time() - began < 0.5


@pytest.mark.parametrize(
    "values", [[b'"' * 60_000], [b"\\" * 5_000, b'"' * 6_000, b'"' * 500], [b"a" * 9_000, b"b" * 8192]]
)
def test_no_more_is_read_than_proxies_write(values: list[bytes]) -> None:
    """However long a client's words are: to take them apart would cost more than to serve it."""
    read = list(from_the_end([*values, b"203.0.113.7"]))
    assert read[0] == "203.0.113.7"
    assert sum(map(len, read)) <= MOST_BYTES
    assert len(read) > 1
