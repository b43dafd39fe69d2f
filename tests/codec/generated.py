"""Requests made by hypothesis, whole and damaged, and what a connection makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from asgiri.codec.contract import Http1Codec
from asgiri.codec.events import Body, End, Event, Failure, Request
from asgiri.codec.rules import NO_TRAILERS
from asgiri.types import Headers
from tests.codec.rows import BY_CHUNKS
from tests.codec.wire import answer, is_whole, merged

Draw = Callable[[st.SearchStrategy[object]], object]

TCHARS = "!#$%&'*+-.^_`|~0123456789abcXYZ"
VALUE_BYTES = [9, *range(32, 127), *range(128, 256)]
TARGET_BYTES = [*range(33, 127), *range(128, 256)]
# What a name must not be, for it would frame the request, or manage its connection.
SPECIAL = {b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"}

places = st.lists(st.integers(0, 10_000), max_size=8)
tokens = st.text(TCHARS, min_size=1, max_size=8).map(str.encode)
names = tokens.filter(lambda name: name.lower() not in SPECIAL)
values = st.lists(st.sampled_from(VALUE_BYTES), max_size=12).map(lambda codes: bytes(codes).strip(b" \t"))
blanks = st.text(" \t", max_size=2).map(str.encode)
targets = st.lists(st.sampled_from(TARGET_BYTES), max_size=12).map(lambda codes: b"/" + bytes(codes))
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "FOO"]) | st.text(
    TCHARS, min_size=1, max_size=8
).filter(lambda method: method != "CONNECT")
quoted = st.lists(st.sampled_from(VALUE_BYTES), max_size=6).map(
    lambda codes: b'"' + b"".join(b"\\" * (code in b'"\\' or code % 7 == 0) + bytes([code]) for code in codes) + b'"'
)


@dataclass(frozen=True)
class Message:
    """A request's bytes and the events that they make, as the first of a connection."""

    data: bytes
    events: list[Event]
    last: bool


@st.composite
def extensions(draw: st.DrawFn) -> bytes:
    """Chunk extensions, with blanks wherever RFC 9112 section 7.1.1 lets them be."""
    out = b""
    for name in draw(st.lists(tokens, max_size=2)):
        out += draw(blanks) + b";" + draw(blanks) + name
        if draw(st.booleans()):
            out += draw(blanks) + b"=" + draw(blanks) + draw(tokens | quoted)
    return out


@st.composite
def field_lines(draw: st.DrawFn, headers: Headers) -> bytes:
    lines = []
    for name, value in headers:
        cased = name.title() if draw(st.booleans()) else name
        lines.append(cased + b":" + draw(blanks) + value + draw(blanks) + b"\r\n")
    return b"".join(lines)


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes, Headers]:
    """The bytes of a chunked body, its content, and the trailer fields that are let through."""
    wire = content = b""
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        size = b"0" * draw(st.integers(0, 3)) + (b"%x" if draw(st.booleans()) else b"%X") % len(chunk)
        wire += size + draw(extensions()) + b"\r\n" + chunk + b"\r\n"
        content += chunk
    trailers = draw(st.lists(st.tuples(tokens | st.sampled_from(sorted(NO_TRAILERS)), values), max_size=3))
    wire += b"0" * draw(st.integers(1, 3)) + draw(extensions()) + b"\r\n" + draw(field_lines(trailers)) + b"\r\n"
    return wire, content, [(name.lower(), value) for name, value in trailers if name.lower() not in NO_TRAILERS]


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A valid request."""
    method, target, version = draw(methods), draw(targets), draw(st.sampled_from(["1.1", "1.1", "1.2", "1.0"]))
    headers: Headers = [(b"host", b"a"), *draw(st.lists(st.tuples(names, values), max_size=4))]
    last = version == "1.0"
    options = protocol = b""
    if draw(st.integers(0, 3)) == 0:
        options = draw(st.sampled_from([b"keep-alive", b"close", b"te, Close", b"upgrade", b"x", b""]))
        headers.append((b"connection", options))
        last = last or b"close" in options.lower()
    if draw(st.integers(0, 3)) == 0:
        upgrade = draw(tokens)
        headers.append((b"upgrade", upgrade))
        if options == b"upgrade" and not last:
            protocol = upgrade.lower()
    body, content = b"", b""
    trailers: Headers = []
    how = draw(st.sampled_from(["none", "length", "chunked"] if version != "1.0" else ["none", "length"]))
    if how == "length":
        body = content = draw(st.binary(max_size=30))
        headers.append((b"content-length", b"0" * draw(st.integers(0, 2)) + b"%d" % len(content)))
    elif how == "chunked":
        headers.append(BY_CHUNKS)
        body, content, trailers = draw(chunked_bodies())
    expects = draw(st.integers(0, 5)) == 0
    if expects:
        headers.append((b"expect", b"100-Continue"))
    headers = draw(st.permutations(headers))
    path, _, query = target.partition(b"?")
    fields = [(name.lower(), value) for name, value in headers]
    if draw(st.integers(0, 5)) == 0:
        target = b"http://b:1" + target
        fields = [(b"host", b"b:1"), *(field for field in fields if field[0] != b"host")]
    has_body = how == "chunked" or bool(content)
    events: list[Event] = [
        Request(
            1,
            method,
            target,
            path,
            query,
            fields,
            "1.0" if version == "1.0" else "1.1",
            not has_body,
            expects and has_body and version != "1.0",
            protocol,
        )
    ]
    if content:
        events.append(Body(1, content))
    if has_body:
        events.append(End(1, trailers))
    line = b"%b %b HTTP/%b\r\n" % (method.encode(), target, version.encode())
    return Message(line + draw(field_lines(headers)) + b"\r\n" + body, events, last)


@st.composite
def traffic(draw: st.DrawFn, most: int = 4) -> list[Message]:
    """Several requests for one connection, some of them the same, or the same but for their first line."""
    out: list[Message] = []
    for message in draw(st.lists(messages(), min_size=1, max_size=most)):
        out.append(message)
        if not message.last and len(message.events) == 1 and draw(st.booleans()):
            request = message.events[0]
            assert isinstance(request, Request)
            again = replace(request, method="GET", target=b"/again", path=b"/again", query=b"")
            if request.target.startswith(b"/"):
                fields = message.data.partition(b"\r\n")[2]
                out.append(Message(b"GET /again HTTP/1.1\r\n" + fields, [again], message.last))
    return out


# What does most damage: what ends or parts things, what only some take for it, and fields that frame.
SHARDS = [
    *(b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\x80", b"\xa0", b"\xff"),
    *(b":", b",", b";", b"=", b'"', b"\\", b"0", b"1", b"9", b"a", b"-", b"+", b"_", b"/", b"?", b"*", b"@", b"#"),
    *(b"chunked", b"close", b"0\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"9" * 30, b"X" * 90, b"Host: b\r\n"),
    *(
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Upgrade: x\r\n",
        b" x\r\n",
    ),
]
STRUCTURE = b"\r\n :;=\"'0123456789/"
damages = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "double", "swap"]),
        st.booleans(),
        st.integers(0, 5000),
        st.sampled_from(SHARDS),
        st.integers(1, 12),
    ),
    max_size=4,
)


def damaged(data: bytes, how: Iterable[tuple[str, bool, int, bytes, int]]) -> bytes:
    """``data`` after each of the damages; half of them strike where it is parted."""
    for kind, at_structure, place, shard, size in how:
        joints = [i for i, byte in enumerate(data) if byte in STRUCTURE] if at_structure else []
        at = joints[place % len(joints)] if joints else place % (len(data) + 1)
        before, piece, after = data[:at], data[at : at + size], data[at + size :]
        match kind:
            case "insert":
                data = before + shard + piece + after
            case "replace":
                data = before + shard + data[at + 1 :]
            case "delete":
                data = before + after
            case "double":
                data = before + piece + piece + after
            case _:
                data = before + piece[::-1] + after
    return data


def talk(codec: Http1Codec, pieces: Iterable[bytes]) -> tuple[list[Event], list[bytes]]:
    """The merged events of all requests in the pieces, each answered as soon as it is whole; and the answers."""
    events: list[Event] = []
    answers = []
    for piece in pieces:
        more = codec.receive(piece)
        while more:
            assert not any(isinstance(event, Failure) for event in more[:-1]), "a Failure is the last event"
            events += more
            if not is_whole(more[-1]):
                break
            answers.append(answer(codec))
            more = codec.next_request() if codec.reusable else []
    return merged(events), answers
