"""HPACK both ways: the examples of RFC 7541 appendix C, and the hpack library as the other side."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from asgiri.codec import hpack_encode
from asgiri.codec.h2_wire import ConnectionFault, ErrorCode
from asgiri.codec.hpack_decode import HpackDecoder, number_at
from asgiri.codec.hpack_encode import fields_block, head_block, number
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
NO_CACHE = [*GET, (b"cache-control", b"no-cache")]
CUSTOM = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
DATE_21, DATE_22 = b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT"
FOUND = [
    (b":status", b"302"),
    (b"cache-control", b"private"),
    (b"date", DATE_21),
    (b"location", b"https://www.example.com"),
]
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
OK = [
    (b":status", b"200"),
    (b"cache-control", b"private"),
    (b"date", DATE_22),
    (b"location", b"https://www.example.com"),
    (b"content-encoding", b"gzip"),
    (b"set-cookie", COOKIE),
]
ANSWERS = [FOUND, [(b":status", b"307"), *FOUND[1:]], OK]

# Appendix C: blocks of one connection, and their fields.
EXAMPLES = {
    "C.2.1": (["400a637573746f6d2d6b65790d637573746f6d2d686561646572"], [[(b"custom-key", b"custom-header")]]),
    "C.2.2": (["040c2f73616d706c652f70617468"], [[(b":path", b"/sample/path")]]),
    "C.2.3": (["100870617373776f726406736563726574"], [[(b"password", b"secret")]]),
    "C.2.4": (["82"], [[(b":method", b"GET")]]),
    "C.3": (
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        [GET, NO_CACHE, CUSTOM],
    ),
    "C.4": (
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
        [GET, NO_CACHE, CUSTOM],
    ),
    # The table of these has 256 octets, which the first block must say here.
    "C.5": (
        [
            (
                "3fe101"
                "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
                "6e1768747470733a2f2f7777772e6578616d706c652e636f6d"
            ),
            "4803333037c1c0bf",
            (
                "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b4851"
                "4b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31"
            ),
        ],
        ANSWERS,
    ),
    "C.6": (
        [
            (
                "3fe101"
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3"
            ),
            "4883640effc1c0bf",
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af2708"
                "7f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
            ),
        ],
        ANSWERS,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_rfc(name: str) -> None:
    blocks, fields = EXAMPLES[name]
    decoder = HpackDecoder()
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == fields


@pytest.mark.parametrize(
    ("value", "prefix", "octets"), [(10, 5, b"\x0a"), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a")]
)
def test_the_numbers_of_the_rfc(value: int, prefix: int, octets: bytes) -> None:
    """Appendix C.1."""
    assert number(value, prefix, 0) == octets


@given(st.integers(0, 1 << 27), st.integers(4, 7))
def test_a_number_comes_back(value: int, prefix: int) -> None:
    octets = number(value, prefix, 0)
    full = (1 << prefix) - 1
    if value < full:
        assert octets == bytes((value,))
    else:
        assert octets[0] == full
        assert number_at(octets, 1, full) == (value, len(octets))


BROKEN = {
    "index 0": "80",
    "an index beyond the tables": "be",
    "an index far beyond the tables": "ff80808001",
    "a name's index beyond the tables": "7e0161",
    "no name": "40",
    "no value": "400161",
    "a name that is cut": "40056162",
    "a value that is cut": "4001610562",
    "a number that is cut": "ff80",
    "a number without end": "ff" + "80" * 10 + "01",
    "a length without end": "40017f" + "ff" * 10,
    "a table that is too large": "3fe21f",
    "a table's size behind a field": "8220",
    "a code with the end of string": "40" + "84ffffffff" + "0161",
    "a code that is padded with zeros": "40" + "8118" + "0161",
    "a code with a whole octet of padding": "40" + "821fff" + "0161",
    "a code that ends within a symbol": "40" + "82fff8" + "0161",
}


@pytest.mark.parametrize("block", BROKEN.values(), ids=BROKEN)
def test_a_block_that_cannot_be_decoded_is_an_error_of_the_connection(block: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        HpackDecoder().decode(bytes.fromhex(block))
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_the_largest_table_and_two_sizes_in_one_block() -> None:
    decoder = HpackDecoder()
    assert decoder.decode(bytes.fromhex("203fe11f4001610162")) == [(b"a", b"b")]
    assert decoder.decode(b"\xbe") == [(b"a", b"b")]
    assert decoder.decode(b"\x20") == []
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


def test_an_entry_larger_than_the_table_empties_it() -> None:
    """RFC 7541 section 4.4; and the name of an entry that goes may be the new one's."""
    decoder = HpackDecoder()
    decoder.decode(b"\x40\x01a\x01b")
    large = b"x" * 4064
    field = b"\x7e" + number(len(large), 7, 0) + large
    assert decoder.decode(field) == [(b"a", large)]
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\xbe")


def test_every_symbol_has_its_code() -> None:
    every = bytes(range(256))
    block = Encoder().encode([(b"x", every)], huffman=True)
    assert HpackDecoder().decode(block) == [(b"x", every)]


NAMES = st.sampled_from([b"a", b":path", b"cookie", b"x-long-name", b"accept"]) | st.binary(min_size=1, max_size=12)
VALUES = st.sampled_from([b"", b"/", b"gzip", b"x" * 1500]) | st.binary(max_size=40)
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@settings(max_examples=150)
@given(st.lists(st.tuples(LISTS, st.booleans(), st.none() | st.integers(0, 4096)), max_size=6))
def test_the_librarys_blocks_are_decoded(lists: list[tuple[Headers, bool, int | None]]) -> None:
    encoder, decoder = Encoder(), HpackDecoder()
    for fields, huffman, size in lists:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=huffman)) == fields


@settings(max_examples=300)
@given(
    st.lists(st.binary(max_size=30) | st.sampled_from([bytes.fromhex(block) for block in BROKEN.values()]), max_size=4)
)
def test_what_is_taken_is_what_the_library_takes(blocks: list[bytes]) -> None:
    decoder, theirs = HpackDecoder(), Decoder(1 << 30)
    for block in blocks:
        try:
            fields = decoder.decode(block)
        except ConnectionFault:
            return
        assert fields == [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]


@settings(max_examples=200)
@given(st.binary(max_size=12))
def test_a_code_is_judged_as_the_library_does(code: bytes) -> None:
    block = b"\x00\x01a" + number(len(code), 7, 0x80) + code
    try:
        expected: object = [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]
    except HPACKError:
        expected = None
    try:
        decoded: object = HpackDecoder().decode(block)
    except ConnectionFault:
        decoded = None
    assert decoded == expected


# Answers


def decoded(block: bytes) -> Headers:
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]


TOKENS = st.text("abcXYZ-_019", min_size=1, max_size=20).map(str.encode)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=300).map(str.encode)


@settings(max_examples=150)
@given(st.sampled_from([200, 204, 301, 404, 599]), st.lists(st.tuples(TOKENS, TEXTS), max_size=8))
def test_the_library_decodes_our_heads(status: int, headers: Headers) -> None:
    expected = [(b":status", b"%d" % status), *[(name.lower(), value.strip(b" \t")) for name, value in headers]]
    assert decoded(head_block(status, headers)) == expected
    assert decoded(head_block(status, headers)) == expected  # known now


def test_what_is_exact_in_the_static_table_is_one_octet() -> None:
    assert head_block(200, [(b"accept-encoding", b"gzip, deflate")]) == b"\x88\x90"


@pytest.mark.parametrize("name", [b"set-cookie", b"authorization", b"proxy-authorization", b"Set-Cookie"])
def test_secrets_are_never_indexed_and_not_kept(name: bytes) -> None:
    block = head_block(200, [(name, b"a-secret-value")])
    field = next(field for field in Decoder().decode(block, raw=True) if field[0] == name.lower())
    assert not field.indexable
    for _ in range(2):
        head_block(200, [(name, b"a-secret-value"), (b"x", b"y")])
    assert "a-secret-value" not in repr((hpack_encode.FIELDS, hpack_encode.HEADS))


def test_fields_of_http_1_are_left_out_and_names_are_in_lower_case() -> None:
    headers = [
        (b"Connection", b"close"),
        (b"keep-alive", b"x"),
        (b"proxy-connection", b"x"),
        (b"transfer-encoding", b"chunked"),
        (b"Upgrade", b"h2c"),
        (b"X-Name", b" value "),
        (b"Content-Length", b"5"),
    ]
    for _ in range(2):
        assert decoded(head_block(200, headers)) == [
            (b":status", b"200"),
            (b"x-name", b"value"),
            (b"content-length", b"5"),
        ]


@pytest.mark.parametrize("status", [103, 204])
def test_an_answer_without_content_names_no_length(status: int) -> None:
    headers = [(b"content-length", b"5"), (b"x", b"y")]
    assert decoded(head_block(status, headers)) == [(b":status", b"%d" % status), (b"x", b"y")]
    assert (b"content-length", b"5") in decoded(head_block(304, headers))


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\rb")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\0b")],
        [(b"x\r\n", b"a")],
        [(b":status", b"200")],
        [(b"", b"a")],
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"5"), (b"Content-Length", b"6")],
        [(b"content-length", b"x")],
        [(b"content-length", b"1" * 19)],
    ],
)
def test_what_must_not_go_out_does_not(headers: Headers) -> None:
    for _ in range(2):
        with pytest.raises(LocalProtocolError):
            head_block(200, headers)


def test_fields_that_differ_each_time_do_not_gather() -> None:
    for place in range(hpack_encode.MOST_FIELDS + 100):
        head_block(200, [(b"x-request-id", b"%d" % place)])
    for place in range(hpack_encode.MOST_HEADS + 100):
        head_block(200, [(b"content-length", b"%d" % place)])
    assert len(hpack_encode.FIELDS) <= hpack_encode.MOST_FIELDS
    assert len(hpack_encode.HEADS) <= hpack_encode.MOST_HEADS
    head_block(200, [(b"x-long", b"x" * 1000)])
    assert (b"x-long", b"x" * 1000) not in hpack_encode.FIELDS


def test_trailers_are_blocks_of_their_own() -> None:
    assert decoded(fields_block([(b"x-checksum", b"abc")])) == [(b"x-checksum", b"abc")]
