"""Generated answers: another party's parser reads them as they were meant, and every engine refuses the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field

import h11
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asgiri.codec.contract import Http1Codec
from asgiri.codec.engines import HTTP1_ENGINES, http1_engine
from asgiri.codec.rules import NO_TRAILERS, HttpLimits
from asgiri.errors import LocalProtocolError
from asgiri.types import Headers
from tests.codec.generated import tokens, values
from tests.codec.rows import A, head
from tests.codec.wire import parsed

# What is sent of the content: pieces of it, or raw ones that the connection writes itself.
Piece = tuple[bytes, bool]

ASKED = {
    (method, version): head(b"%b / HTTP/%b" % (method.encode(), version.encode()), A)
    for method in ("GET", "HEAD")
    for version in ("1.0", "1.1")
}
FRAMING = {b"content-length", b"transfer-encoding", b"connection"}
names = tokens.map(bytes.lower).filter(lambda name: name not in FRAMING)
statuses = st.sampled_from([200, 201, 204, 205, 299, 301, 304, 404, 500, 599])
pieces = st.lists(st.tuples(st.binary(max_size=20), st.booleans()), max_size=4)


@dataclass(frozen=True)
class Answer:
    """What an application sends, in order."""

    status: int
    headers: Headers
    pieces: list[Piece]
    trailers: Headers
    interim: list[tuple[int, Headers]] = field(default_factory=list)


def sent(codec: Http1Codec, what: Answer) -> bytes:
    """The bytes that the connection would write."""
    wire = b""
    for status, headers in what.interim:
        codec.send_informational(1, status, headers)
    codec.send_head(1, what.status, what.headers)
    for data, raw in what.pieces:
        if not raw:
            codec.send_body(1, data, False)
        elif codec.begin_raw(1, len(data)):
            wire += codec.take() + data
            codec.end_raw(1, False)
    if what.trailers:
        codec.send_trailers(1, what.trailers)
    else:
        codec.send_body(1, b"", True)
    return wire + codec.take()


@dataclass
class Heard:
    """What a client made of it."""

    interim: list[tuple[int, Headers]] = field(default_factory=list)
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    trailers: Headers = field(default_factory=list)


def heard(method: str, wire: bytes, closed: bool) -> Heard:
    """The answer as h11, as a client, reads it. An answer that is not whole or has more behind it is an error."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    if closed:
        client.receive_data(b"")
    out = Heard()
    while True:
        event = client.next_event()
        match event:
            case h11.InformationalResponse():
                out.interim.append((event.status_code, list(event.headers)))
            case h11.Response():
                out.status, out.headers = event.status_code, list(event.headers)
            case h11.Data():
                out.body += bytes(event.data)
            case h11.EndOfMessage():
                out.trailers = list(event.headers)
                break
            case _:
                raise AssertionError(f"not a whole answer: {event!r} of {wire!r}")
    assert client.trailing_data[0] == b""
    return out


def plain(headers: Headers) -> Headers:
    """The fields that do not frame, in any order."""
    return sorted(field for field in headers if field[0] not in FRAMING)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    content = draw(pieces)
    headers = draw(st.lists(st.tuples(names, values), max_size=4))
    size = sum(len(data) for data, _ in content)
    framing = draw(st.sampled_from(["none", "none", "length", "length", "chunked", "both"]))
    if framing in ("length", "both"):
        headers.append((b"content-length", b"%d" % size))
    if framing in ("chunked", "both"):
        headers.append((b"transfer-encoding", draw(st.sampled_from([b"chunked", b"Chunked", b" chunked "]))))
    if draw(st.integers(0, 3)) == 0:
        options = draw(st.sampled_from([b"close", b"keep-alive", b"x, Close", b"x", b""]))
        headers.append((b"connection", options))
    trailers = draw(st.lists(st.tuples(names.filter(lambda name: name not in NO_TRAILERS), values), max_size=2))
    interim = draw(
        st.lists(st.tuples(st.sampled_from([100, 102, 103, 199]), st.just([(b"link", b"</x>")])), max_size=2)
    )
    return Answer(draw(statuses), draw(st.permutations(headers)), content, trailers, interim)


@pytest.mark.parametrize("name", HTTP1_ENGINES)
@settings(deadline=None)
@given(asked=st.sampled_from(sorted(ASKED)), what=answers())
def test_a_client_reads_what_was_sent(name: str, asked: tuple[str, str], what: Answer) -> None:
    method, version = asked
    codec = http1_engine(name)(HttpLimits())
    codec.receive(ASKED[asked])
    got = heard(method, sent(codec, what), codec.closing)
    silent = method == "HEAD" or what.status in (204, 304)
    fields = {name: value for name, value in got.headers if name in FRAMING}
    assert got.status == what.status
    assert sorted(f for f in got.headers if f[0] not in FRAMING) == sorted(
        f for f in what.headers if f[0] not in FRAMING
    )
    assert got.body == (b"" if silent else b"".join(data for data, _ in what.pieces))
    assert got.interim == ([] if version == "1.0" else what.interim)
    assert got.trailers == (what.trailers if fields.get(b"transfer-encoding") and not silent else [])
    has_length = any(name == b"content-length" for name, _ in what.headers)
    assert (b"content-length" in fields) is (has_length and what.status != 204)
    assert fields.get(b"transfer-encoding") == (
        b"chunked" if version == "1.1" and not has_length and what.status not in (204, 304) else None
    )
    says_close = any(name == b"connection" and b"close" in value.lower() for name, value in what.headers)
    assert codec.closing is (version == "1.0" or says_close)
    assert codec.closing is (fields.get(b"connection") == b"close")
    assert codec.reusable is not codec.closing


@settings(deadline=None)
@given(asked=st.sampled_from(sorted(ASKED)), what=answers())
def test_every_engine_writes_the_same_answer(asked: tuple[str, str], what: Answer) -> None:
    wires = []
    for engine in HTTP1_ENGINES.values():
        codec = engine(HttpLimits())
        codec.receive(ASKED[asked])
        wires.append(parsed(sent(codec, Answer(what.status, what.headers, what.pieces, what.trailers))))
    assert all(wire == wires[0] for wire in wires)


odd_values = values | st.binary(max_size=8)
odd_fields = st.tuples(tokens.map(bytes.lower) | st.binary(max_size=6).map(bytes.lower), odd_values)
odd_framing = st.tuples(
    st.sampled_from(sorted(FRAMING)),
    st.sampled_from([b"1", b"0", b"", b"+1", b"1, 1", b"9" * 25, b"x\n", b"chunked", b"gzip", b"close", b"close\r"])
    | odd_values,
)
odd_headers = st.lists(odd_fields | odd_framing, max_size=4)


def refuses(codec: Http1Codec, send: str, *arguments: object) -> bool:
    """Whether the codec refuses; then nothing of it is left."""
    try:
        getattr(codec, send)(1, *arguments)
    except LocalProtocolError:
        assert codec.take() == b""
        return True
    return False


@settings(deadline=None)
@given(
    asked=st.sampled_from(sorted(ASKED)),
    interim=st.tuples(st.integers(90, 210), odd_headers),
    final=st.tuples(st.integers(190, 610), odd_headers),
    trailers=odd_headers,
)
def test_every_engine_refuses_the_same_and_goes_on(
    asked: tuple[str, str], interim: tuple[int, Headers], final: tuple[int, Headers], trailers: Headers
) -> None:
    verdicts = []
    for engine in HTTP1_ENGINES.values():
        codec = engine(HttpLimits())
        codec.receive(ASKED[asked])
        verdict = [refuses(codec, "send_informational", *interim)]
        told = codec.take()
        verdict.append(refuses(codec, "send_head", *final))
        if verdict[-1]:
            codec.send_head(1, 500, [(b"x", b"1")])
        top = codec.take()
        length = int(dict(parsed(top)[1]).get(b"content-length", b"0"))
        assume(length < 1000)
        codec.send_body(1, b"x" * length, False)
        codec.take()
        verdict.append(refuses(codec, "send_trailers", trailers))
        if verdict[-1]:
            codec.send_trailers(1, [(b"x", b"2")])
        rest = codec.take()
        for wire in (told, top, rest):
            assert b"\n" not in wire.replace(b"\r\n", b"")
            assert b"\r" not in wire.replace(b"\r\n", b"")
            assert b"\x00" not in wire
        verdicts.append((verdict, codec.closing, codec.reusable))
    assert all(verdict == verdicts[0] for verdict in verdicts)


@settings(deadline=None)
@given(status=st.integers(200, 599), headers=odd_headers)
def test_what_is_not_refused_is_read_as_it_was_sent(status: int, headers: Headers) -> None:
    for engine in HTTP1_ENGINES.values():
        codec = engine(HttpLimits())
        codec.receive(ASKED["HEAD", "1.1"])
        assume(not refuses(codec, "send_head", status, headers))
        codec.send_body(1, b"", True)
        got = heard("HEAD", codec.take(), codec.closing)
        assert got.status == status
        assert plain(got.headers) == plain([(name, value.strip(b" \t")) for name, value in headers])
