"""What the server side sends: frames, the closing handshake, and what an application may not say."""

from __future__ import annotations

import base64
import zlib
from random import Random

import pytest

from asgiri.codec.contract import Deflate
from asgiri.codec.engines import WebSocketEngine
from asgiri.codec.events import Close, Failure, Ping, Pong, Text
from asgiri.errors import LocalProtocolError
from tests.codec.ws_rows_close import NOT_RECEIVABLE, RECEIVABLE
from tests.codec.ws_rows_frames import SIZES, some
from tests.codec.ws_wire import (
    BINARY,
    CLOSE,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Sent,
    each_engine,
    feed,
    frame,
    sent_frames,
)

NORMAL = (1000).to_bytes(2, "big")


@each_engine
def test_messages_of_all_sizes_are_one_frame_each(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    for size in SIZES:
        data = some(size)
        codec.send_binary(data)
        codec.send_text(data.decode())
        assert sent_frames(codec.take()) == [Sent(FIN | BINARY, data), Sent(FIN | TEXT, data)]
    assert codec.take() == b""
    for number in range(3):
        codec.send_text("é€😀" * number)
    codec.send_ping(b"p")
    frames = [Sent(FIN | TEXT, ("é€😀" * number).encode()) for number in range(3)]
    assert sent_frames(codec.take()) == [*frames, Sent(FIN | PING, b"p")]


@each_engine
def test_what_is_sent_keeps_its_order_among_pongs(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    codec.send_text("a")
    codec.receive(frame(PING, b"b"))
    codec.send_text("c")
    assert [sent.payload for sent in sent_frames(codec.take())] == [b"a", b"b", b"c"]


@each_engine
def test_a_text_with_surrogates_is_refused_and_nothing_is_spoiled(engine: WebSocketEngine) -> None:
    for deflate in (None, Deflate()):
        codec = engine(0, deflate)
        for text in ("\ud800", "a" * 1000 + "\udfff"):
            with pytest.raises(LocalProtocolError, match="surrogates"):
                codec.send_text(text)
        with pytest.raises(LocalProtocolError, match="surrogates"):
            codec.send_close(1000, "\udc80")
        with pytest.raises(LocalProtocolError, match="126 bytes"):
            codec.send_ping(b"p" * 126)
        assert codec.take() == b""
        assert not codec.closing
        codec.send_text("good")
        assert sent_frames(codec.take()) == [Sent(FIN | TEXT, b"good")]


@each_engine
def test_close_codes_that_may_be_sent(engine: WebSocketEngine) -> None:
    for code in RECEIVABLE:
        codec = engine(0, None)
        codec.send_close(code, "é")
        assert codec.closing
        assert sent_frames(codec.take()) == [Sent(FIN | CLOSE, code.to_bytes(2, "big") + "é".encode())]
    codec = engine(0, None)
    codec.send_close(1005)
    assert sent_frames(codec.take()) == [Sent(FIN | CLOSE, b"")]
    codec = engine(0, None)
    codec.send_close(1001, "r" * 123)
    assert sent_frames(codec.take()) == [Sent(FIN | CLOSE, (1001).to_bytes(2, "big") + b"r" * 123)]


@each_engine
def test_close_frames_that_may_not_be_sent(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    for code in (*NOT_RECEIVABLE, -1, 70_000):
        if code != 1005:
            with pytest.raises(LocalProtocolError, match=f"close code {code} "):
                codec.send_close(code)
    with pytest.raises(LocalProtocolError, match="1005"):
        codec.send_close(1005, "why")
    with pytest.raises(LocalProtocolError, match="124 bytes"):
        codec.send_close(1000, "é" * 62)
    assert not codec.closing
    assert codec.take() == b""


@each_engine
def test_after_our_close_the_peer_is_heard_until_its_own(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    codec.send_close(4000, "enough")
    codec.take()
    codec.send_text("a")
    codec.send_binary(b"a")
    codec.send_ping(b"")
    codec.send_close(1000)
    data = frame(TEXT, b"late") + frame(PING, b"p") + frame(TEXT, b"l", 0) + frame(0, b"ast") + frame(PONG)
    assert feed(codec, [data]) == [Text("late", 4), Ping(b"p"), Text("last", 4), Pong(b"")]
    assert codec.closing
    assert feed(codec, [frame(CLOSE, (4000).to_bytes(2, "big")) + frame(TEXT, b"no")]) == [Close(4000, "")]
    assert feed(codec, [frame(TEXT, b"no")]) == []
    assert codec.take() == b"", "all has been said"


@each_engine
def test_after_our_close_a_failure_is_told_and_not_sent(engine: WebSocketEngine) -> None:
    codec = engine(0, None)
    codec.send_close(1000)
    codec.take()
    assert feed(codec, [b"\xff"]) == [Failure(0, "", 1002)]
    assert codec.take() == b""


# Compression


def inflated(sent: Sent, inflater: zlib._Decompress) -> bytes:
    assert sent.first & RSV1
    return inflater.decompress(sent.payload + b"\x00\x00\xff\xff")


@each_engine
def test_messages_are_compressed_and_refer_to_those_before(engine: WebSocketEngine) -> None:
    letters = base64.b64encode(Random(1).randbytes(300)).decode()
    for bits in range(9, 16):
        codec = engine(0, Deflate(server_max_window_bits=bits))
        inflater = zlib.decompressobj(-bits)
        sizes = []
        for number in range(4):
            text = letters + str(number)
            codec.send_text(text)
            codec.send_binary(b"small")
            packed, small = sent_frames(codec.take())
            assert packed.first == FIN | RSV1 | TEXT
            assert inflated(packed, inflater) == text.encode()
            assert small == Sent(FIN | BINARY, b"small")
            sizes.append(len(packed.payload))
        assert (max(sizes[1:]) < sizes[0] / 3) is (bits > 9), "zlib looks back less far than its window is large"
        data = bytes(number * number >> 7 & 0xFF for number in range(100_000))
        codec.send_binary(data)
        assert inflated(sent_frames(codec.take())[0], inflater) == data


@each_engine
def test_without_takeover_each_message_stands_alone(engine: WebSocketEngine) -> None:
    codec = engine(0, Deflate(server_no_context_takeover=True, server_max_window_bits=9))
    for _ in range(3):
        codec.send_binary(some(400))
        assert inflated(sent_frames(codec.take())[0], zlib.decompressobj(-9)) == some(400)


@each_engine
def test_what_does_not_get_smaller_is_sent_as_it_is_where_it_may_be(engine: WebSocketEngine) -> None:
    noise = Random(1).randbytes(300)
    codec = engine(0, Deflate(server_no_context_takeover=True))
    codec.send_binary(noise)
    assert sent_frames(codec.take()) == [Sent(FIN | BINARY, noise)]
    codec = engine(0, Deflate())
    codec.send_binary(noise)
    assert inflated(sent_frames(codec.take())[0], zlib.decompressobj(-15)) == noise


@each_engine
def test_control_frames_are_never_compressed(engine: WebSocketEngine) -> None:
    codec = engine(0, Deflate())
    codec.send_ping(b"p" * 125)
    codec.receive(frame(PING, b"q" * 125))
    codec.send_close(1000, "r" * 123)
    frames = [Sent(FIN | PING, b"p" * 125), Sent(FIN | PONG, b"q" * 125), Sent(FIN | CLOSE, NORMAL + b"r" * 123)]
    assert sent_frames(codec.take()) == frames
    assert codec.receive(frame(CLOSE, NORMAL)) == [Close(1000, "")]
    assert codec.receive(frame(BINARY, b"a")) == []
