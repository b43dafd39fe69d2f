"""The opening handshake: what is refused and how, what is agreed on, and the fields of the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asgiri.codec import ws_deflate
from asgiri.codec.contract import Deflate, Http1Codec
from asgiri.codec.engines import http1_engine
from asgiri.codec.events import Request
from asgiri.codec.rules import HttpLimits
from asgiri.codec.ws_handshake import Handshake, answer_fields, is_websocket, judge_handshake
from asgiri.errors import HandshakeError, LocalProtocolError
from asgiri.types import Headers

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # section 1.3
VERSION = (b"sec-websocket-version", b"13")
FIELDS: Headers = [(b"host", b"a"), (b"sec-websocket-key", KEY), VERSION]
OFFER = b"permessage-deflate"


def request(*fields: tuple[bytes, bytes], base: Headers = FIELDS, **more: Any) -> Request:
    parts: dict[str, Any] = {"method": "GET", "http_version": "1.1", "end_stream": True, "protocol": b"websocket"}
    parts |= more
    return Request(stream_id=1, target=b"/", path=b"/", query=b"", headers=[*base, *fields], **parts)


def connect(*fields: tuple[bytes, bytes], **more: Any) -> Request:
    """The same over HTTP/2 (RFC 8441 section 5.1)."""
    parts = {"method": "CONNECT", "http_version": "2", "end_stream": False} | more
    return request(*fields, base=[(b"host", b"a"), VERSION], **parts)


def without(name: bytes, *fields: tuple[bytes, bytes], **more: Any) -> Request:
    return request(*fields, base=[field for field in FIELDS if field[0] != name], **more)


def refusal(asked: Request) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        judge_handshake(asked)
    assert caught.value.reason.isascii()
    assert caught.value.reason.isprintable()
    return caught.value


def refusals() -> Iterator[tuple[str, int, Request]]:
    for method in ("POST", "HEAD", "OPTIONS", "get", "CONNECT"):
        yield f"method {method}", 400, request(method=method)
    yield "a body", 400, request(end_stream=False)
    yield "no key", 400, without(b"sec-websocket-key")
    yield "two keys", 400, request((b"sec-websocket-key", KEY))
    keys = {
        "empty": b"",
        "15 bytes": b"dGhlIHNhbXBsZSBub25j",
        "17 bytes": b"dGhlIHNhbXBsZSBub25jZXo=",
        "no padding": KEY[:-2],
        "half of the padding": KEY[:-1],
        "more padding": KEY + b"=",
        "of the alphabet for URLs": b"-_" + KEY[2:],
        "bits that say nothing": KEY[:-3] + b"R==",
        "a blank": b"dGhlIHNhbXBs ZSBub25jZ==",
        "two in a list": KEY + b", " + KEY,
        "beyond ASCII": b"\xc3\xa9" + KEY[2:],
        "a comment": KEY + b" a",
    }
    for name, key in keys.items():
        yield f"key: {name}", 400, without(b"sec-websocket-key", (b"sec-websocket-key", key))
    yield "two versions", 400, request(VERSION)
    yield "no version", 426, without(b"sec-websocket-version")
    for version in (b"", b"0", b"8", b"12", b"14", b"013", b"13.0", b"+13", b"13, 8", b"8, 13", b"abc"):
        field = (b"sec-websocket-version", version)
        yield f"version {version!r}", 426, without(b"sec-websocket-version", field)
    for protocol in (b"a b", b"a;b", b'"a"', b"a/b", b"\xc3\xa9", b"a, b c", b"a\tb"):
        yield f"subprotocol {protocol!r}", 400, request((b"sec-websocket-protocol", protocol))
    for extension in (
        b"a b",
        b"a;",
        b"a;b=",
        b"a;=b",
        b'a;b="',
        b'a;b="c d"',
        b'a;b=""',
        b";a",
        b"a=b",
        b"a;b;;c",
        b'"a"',
    ):
        yield f"extension {extension!r}", 400, request((b"sec-websocket-extensions", extension))
        deflate = (b"sec-websocket-extensions", b"permessage-deflate, " + extension)
        yield f"extension {extension!r} behind a good one", 400, request(deflate)


REFUSALS = list(refusals())


@pytest.mark.parametrize(("status", "asked"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_is_no_handshake_is_refused(status: int, asked: Request) -> None:
    error = refusal(asked)
    assert error.status == status
    # RFC 9110 section 15.5.22: a 426 names what to upgrade to.
    upgrade = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade")]
    assert error.headers == ([VERSION, *upgrade] if status == 426 else [])


def test_over_http2_no_key_is_asked_for_and_426_is_400() -> None:
    assert judge_handshake(connect()) == Handshake(b"", [], [], "2")
    assert judge_handshake(connect((b"sec-websocket-key", b"nonsense"))).key == b""
    assert judge_handshake(connect((b"sec-websocket-key", KEY), (b"sec-websocket-key", KEY))).key == b""
    error = refusal(connect((b"sec-websocket-version", b"8")))
    assert (error.status, error.headers) == (400, [])
    error = refusal(request(base=[(b"host", b"a")], http_version="2", end_stream=False))
    assert (error.status, error.headers) == (400, [VERSION])
    assert refusal(connect(end_stream=True)).status == 400
    for length in (b"0", b"5"):
        assert refusal(connect((b"content-length", length))).status == 400


def test_which_requests_are_for_a_websocket() -> None:
    for protocol in (b"websocket", b"h2c, websocket", b"websocket , h2c", b"WebSocket"):
        assert is_websocket(request(protocol=protocol))
    for protocol in (b"", b"h2c", b"websocket/13", b"websockets", b"web socket", b"x-websocket"):
        assert not is_websocket(request(protocol=protocol))
    assert is_websocket(connect())
    assert not is_websocket(request(http_version="1.0"))
    assert is_websocket(request(method="POST")), "it is refused, not taken for a plain request"


def read(*fields: bytes) -> Request:
    codec: Http1Codec = http1_engine("auto")(HttpLimits())
    lines = [b"GET /chat HTTP/1.1", b"Host: a", b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Version: 13", *fields]
    asked = codec.receive(b"\r\n".join([*lines, b"", b""]))[0]
    assert isinstance(asked, Request)
    return asked


def test_upgrade_and_connection_in_any_case_and_in_lists() -> None:
    for upgrade, connection in (
        ([b"websocket"], [b"Upgrade"]),
        ([b"WEBSOCKET"], [b"upgrade"]),
        ([b"WebSocket"], [b"keep-alive, Upgrade"]),
        ([b"h2c,websocket"], [b"keep-alive", b"UPGRADE"]),
        ([b"h2c", b" websocket "], [b"Upgrade ,keep-alive"]),
    ):
        asked = read(*(b"Upgrade: " + value for value in upgrade), *(b"Connection: " + value for value in connection))
        assert is_websocket(asked)
        assert judge_handshake(asked).key == KEY
    assert not is_websocket(read(b"Upgrade: websocket"))
    assert not is_websocket(read(b"Upgrade: websocket", b"Connection: keep-alive"))


def test_the_body_of_a_handshake_is_refused_and_an_empty_one_is_none() -> None:
    ask = (b"Upgrade: websocket", b"Connection: Upgrade")
    assert refusal(read(*ask, b"Content-Length: 1")).status == 400
    assert refusal(read(*ask, b"Transfer-Encoding: chunked")).status == 400
    assert judge_handshake(read(*ask, b"Content-Length: 0")).key == KEY


def test_subprotocols_keep_their_order() -> None:
    asked = request((b"sec-websocket-protocol", b"b, a,"), (b"sec-websocket-protocol", b",c\t,a"))
    assert judge_handshake(asked).subprotocols == ["b", "a", "c"]
    assert judge_handshake(connect((b"sec-websocket-protocol", b"chat.v1"))).subprotocols == ["chat.v1"]


def offers(*values: bytes) -> list[ws_deflate.Offer]:
    return judge_handshake(request(*((b"sec-websocket-extensions", value) for value in values))).offers


def test_offers_are_parsed_and_other_extensions_left_out() -> None:
    assert offers() == []
    assert offers(b"") == []
    assert offers(b"foo, bar;a=b") == []
    assert offers(OFFER) == [[]]
    assert offers(OFFER + b' ; a = b; c;d="e"') == [[(b"a", b"b"), (b"c", None), (b"d", b"e")]]
    assert offers(OFFER + rb';a="1\2"') == [[(b"a", b"12")]]
    assert offers(b"foo," + OFFER + b";a , ," + OFFER, OFFER + b";b") == [[(b"a", None)], [], [(b"b", None)]]


# Negotiation (RFC 7692 section 7.1)

WINDOWS: dict[bytes, Deflate | None] = {
    b"": Deflate(server_max_window_bits=12),
    b"server_no_context_takeover": Deflate(True, False, 12),
    b"client_no_context_takeover": Deflate(False, True, 12),
    b"client_no_context_takeover; server_no_context_takeover": Deflate(True, True, 12),
    b"client_max_window_bits": Deflate(False, False, 12, 12),
    b"client_max_window_bits=15": Deflate(False, False, 12, 12),
    b"client_max_window_bits=10": Deflate(False, False, 12, 10),
    b"client_max_window_bits=9": Deflate(False, False, 12, 9),
    b"client_max_window_bits=8": Deflate(False, False, 12, 8),
    b'client_max_window_bits="10"': Deflate(False, False, 12, 10),
    b"server_max_window_bits=15": Deflate(server_max_window_bits=12),
    b"server_max_window_bits=10": Deflate(server_max_window_bits=10),
    b"server_max_window_bits=9": Deflate(server_max_window_bits=9),
    b'server_max_window_bits="9"': Deflate(server_max_window_bits=9),
    b"server_max_window_bits=8": None,
    b"server_max_window_bits": None,
    b"server_no_context_takeover; client_max_window_bits; server_max_window_bits=11": Deflate(True, False, 11, 12),
    b"unknown": None,
    b"unknown=1; client_max_window_bits": None,
    b"Client_Max_Window_Bits": None,
    b"client_max_window_bits; client_max_window_bits": None,
    b"server_no_context_takeover; server_no_context_takeover": None,
    b"server_no_context_takeover=1": None,
    b"client_no_context_takeover=true": None,
    b"server_max_window_bits=7": None,
    b"server_max_window_bits=16": None,
    b"server_max_window_bits=09": None,
    b"server_max_window_bits=-9": None,
    b"client_max_window_bits=7": None,
    b"client_max_window_bits=16": None,
    b"client_max_window_bits=08": None,
    b"client_max_window_bits=1e1": None,
    b"client_max_window_bits=999999999999": None,
}


@pytest.mark.parametrize("parameters", WINDOWS, ids=lambda value: value.decode() or "none")
def test_an_offer_is_agreed_to_or_the_next_one_is_looked_at(parameters: bytes) -> None:
    offer = OFFER + b"; " + parameters if parameters else OFFER
    assert ws_deflate.agree(offers(offer)) == WINDOWS[parameters]
    # The next one is taken where it is declined.
    behind = ws_deflate.agree(
        offers(offer + b", " + OFFER + b"; server_max_window_bits=13; server_no_context_takeover")
    )
    assert behind == (WINDOWS[parameters] or Deflate(True, False, 12))


def test_no_offer_is_none() -> None:
    assert ws_deflate.agree([]) is None
    assert ws_deflate.agree(offers(OFFER + b";x, " + OFFER + b";y")) is None


# The answer


def handshake(**more: Any) -> Handshake:
    parts: dict[str, Any] = {"key": KEY, "subprotocols": ["a", "b"], "offers": [], "http_version": "1.1"}
    return Handshake(**(parts | more))


def test_the_answer_over_http11_is_the_one_of_the_rfc() -> None:
    assert answer_fields(handshake(), None, None, [(b"x-a", b"b"), (b"set-cookie", b"c"), (b"set-cookie", b"d")]) == [
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),  # section 1.3
        (b"x-a", b"b"),
        (b"set-cookie", b"c"),
        (b"set-cookie", b"d"),
    ]


def test_the_answer_over_http2_has_none_of_these() -> None:
    asked = handshake(key=b"", http_version="2")
    assert answer_fields(asked, None, None, []) == []
    assert answer_fields(asked, "a", Deflate(server_max_window_bits=12), [(b"x", b"y")]) == [
        (b"sec-websocket-protocol", b"a"),
        (b"sec-websocket-extensions", b"permessage-deflate; server_max_window_bits=12"),
        (b"x", b"y"),
    ]


def test_a_key_that_a_gateway_passes_on_over_http2_is_answered() -> None:
    """Envoy's client of HTTP/1.1 waits for it."""
    asked = judge_handshake(connect((b"sec-websocket-key", KEY)))
    assert answer_fields(asked, None, None, []) == [(b"sec-websocket-accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")]


def test_what_was_agreed_on_is_said() -> None:
    for deflate, value in {
        Deflate(): b"permessage-deflate",
        Deflate(True, True): b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        Deflate(False, False, 9, 8): b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=8",
    }.items():
        assert (b"sec-websocket-extensions", value) in answer_fields(handshake(), None, deflate, [])


def test_the_subprotocol_must_be_one_that_was_offered() -> None:
    assert (b"sec-websocket-protocol", b"b") in answer_fields(handshake(), "b", None, [])
    for name in ("c", "A", "", "a, b", "é"):
        with pytest.raises(LocalProtocolError, match="it offers a, b"):
            answer_fields(handshake(), name, None, [])
    with pytest.raises(LocalProtocolError, match="it offers none"):
        answer_fields(handshake(subprotocols=[]), "a", None, [])
    field = (b"sec-websocket-protocol", b"a")
    assert answer_fields(handshake(), None, None, [field])[-1] == field
    for headers in ([field, field], [(b"sec-websocket-protocol", b"c")]):
        with pytest.raises(LocalProtocolError):
            answer_fields(handshake(), None, None, headers)
    with pytest.raises(LocalProtocolError, match="twice"):
        answer_fields(handshake(), "a", None, [field])


NOT_THE_APPLICATIONS = (
    b"sec-websocket-accept Sec-WebSocket-Extensions sec-websocket-key sec-websocket-version connection Upgrade"
    b" content-length transfer-encoding :status".split()
)


@pytest.mark.parametrize("name", [*NOT_THE_APPLICATIONS, b"a b", b""])
def test_fields_that_are_not_the_applications(name: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        answer_fields(handshake(), None, None, [(name, b"0")])


def test_a_value_that_would_split_the_answer_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        answer_fields(handshake(), None, None, [(b"a", b"b\r\nc: d")])
