"""The load generator for WebSocket: it sends messages to an echo, and counts those that come back as they were.

``python -P websocket_client.py PORT SECONDS ...`` prints one line of JSON. Over HTTP/1.1 it is picows on uvloop, which
is quicker than any server of Python. For HTTP/2 there is no such client: what is here knows just enough of RFC 9113 for
an echo, its frames are made before the clock starts, and it never waits for a window (``WINDOW``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import Protocol, cast

import hpack
import picows
import uvloop

PATIENCE = 10.0  # seconds for all handshakes together
WATCHED = 64  # one message of so many has its time taken
MASK = b"\x5a\x3c\x96\x0f"
# An echo that answers each message sends back as much as it gets, so a window as wide as the protocol knows lasts.
WINDOW = 2**31 - 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE, ENABLE_CONNECT_PROTOCOL = 4, 8


@dataclass
class Count:
    """What all connections have found; times are seconds."""

    messages: int = 0
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    opened: int = 0
    running: bool = False

    def error(self, what: str) -> None:
        if self.running or not self.opened:
            self.errors[what] = self.errors.get(what, 0) + 1


class Watch:
    """Takes the time of one message now and then; a stream answers them in order."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._left = WATCHED
        self._began = 0.0

    def sent_and_received(self, flight: int) -> None:
        """A message has come back and another goes out; ``flight`` are under way behind it."""
        self._left -= 1
        if self._left == 0:
            self._began = time.perf_counter()
        elif self._left == -flight:
            self._count.latencies.append(time.perf_counter() - self._began)
            self._left = WATCHED


class Load(Protocol):
    def begin(self) -> None: ...

    def end(self) -> None: ...


# HTTP/1.1


class Echoed(picows.WSListener):
    """One WebSocket of picows."""

    def __init__(self, count: Count, message: bytes, flight: int) -> None:
        self._count = count
        self._message = message
        self._flight = flight
        self._frame = masked(message)
        self._due = 0  # messages that have come in this read
        self._watch = Watch(count)

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self._count.opened += 1

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.BINARY:
            if frame.get_payload_as_bytes() != self._message:
                self._count.error("another message came back")
            self._count.messages += 1
            self._watch.sent_and_received(self._flight)
            self._due += 1
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type == picows.WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        if frame.last_in_buffer and self._due:  # one write for each read, or the client is slower than a server
            transport.underlying_transport.write(self._frame * self._due)
            self._due = 0

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._count.error("closed early")

    def begin(self) -> None:
        self._transport.underlying_transport.write(self._frame * self._flight)

    def end(self) -> None:
        self._transport.disconnect(graceful=False)


async def over_http1(port: int, asked: argparse.Namespace, count: Count, message: bytes) -> list[Load]:
    found: list[Load] = []
    for _ in range(asked.connections):
        listener = Echoed(count, message, asked.flight)
        await picows.ws_connect(
            lambda listener=listener: listener,
            f"ws://127.0.0.1:{port}/ws",
            enable_auto_pong=False,
            max_frame_size=1 << 24,
        )
        found.append(listener)
    return found


# HTTP/2


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def masked(message: bytes) -> bytes:
    """A binary message as a client sends it (RFC 6455 section 5.2)."""
    size = len(message)
    if size < 126:
        head = bytes((0x82, 0x80 | size))
    elif size < 1 << 16:
        head = b"\x82\xfe" + struct.pack(">H", size)
    else:
        head = b"\x82\xff" + struct.pack(">Q", size)
    keys = MASK * (size // 4 + 1)
    return head + MASK + bytes(one ^ key for one, key in zip(message, keys, strict=False))


def unmasked(message: bytes) -> bytes:
    size = len(message)
    return (bytes((0x82, size)) if size < 126 else b"\x82\x7e" + struct.pack(">H", size)) + message


class Stream:
    """One WebSocket on a connection: its message as a DATA frame, and what has come of the next one."""

    def __init__(self, number: int, content: bytes, count: Count) -> None:
        self.message = frame(DATA, 0, number, content)
        self.watch = Watch(count)
        self.rest = b""


class Http2Load(asyncio.Protocol):
    """One connection with several WebSockets (RFC 8441)."""

    def __init__(self, count: Count, message: bytes, flight: int, streams: int) -> None:
        self._count = count
        self._expected = unmasked(message)
        content = masked(message)
        self._streams = {number: Stream(number, content, count) for number in range(1, 2 * streams, 2)}
        self._flight = flight
        self._data = b""
        self._decoder = hpack.Decoder()
        self._asked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW))
        self._transport.write(PREFACE + settings + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65_535)))

    def data_received(self, data: bytes) -> None:
        data = self._data + data if self._data else data
        place, answers = 0, []
        while len(data) >= place + 9:
            end = place + 9 + int.from_bytes(data[place : place + 3], "big")
            if len(data) < end:
                break
            kind, flags = data[place + 3], data[place + 4]
            stream = int.from_bytes(data[place + 5 : place + 9], "big")
            payload = data[place + 9 : end]
            if kind == DATA:
                answers += self._echoed(self._streams[stream], payload)
            else:
                answers += self._control(kind, flags, stream, payload)
            place = end
        self._data = data[place:]
        if answers:
            self._transport.write(b"".join(answers))

    def _echoed(self, stream: Stream, payload: bytes) -> list[bytes]:
        if stream.rest:
            payload = stream.rest + payload
        size, came = len(self._expected), 0
        while len(payload) >= (came + 1) * size:
            if payload[came * size : (came + 1) * size] != self._expected:
                self._count.error("another message came back")
            stream.watch.sent_and_received(self._flight)
            came += 1
        stream.rest = payload[came * size :]
        self._count.messages += came
        return [stream.message] * came

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> list[bytes]:
        if kind == SETTINGS and not flags & ACK:
            answers = [frame(SETTINGS, ACK, 0, b"")]
            if struct.pack(">HI", ENABLE_CONNECT_PROTOCOL, 1) in payload and not self._asked:
                self._asked = True
                answers += self._requests()
            return answers
        if kind == PING and not flags & ACK:
            return [frame(PING, ACK, 0, payload)]
        if kind == HEADERS and flags & END_HEADERS:
            fields = [(str(name), str(value)) for name, value in self._decoder.decode(payload)]
            if (":status", "200") in fields:
                self._count.opened += 1
            else:
                self._count.error("denied")
        elif kind in (RST_STREAM, GOAWAY):
            self._count.error("closed early")
        return []

    def _requests(self) -> list[bytes]:
        fields = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "127.0.0.1")]
        fields += [(":path", "/ws"), ("sec-websocket-version", "13")]
        encoder = hpack.Encoder()
        return [frame(HEADERS, END_HEADERS, number, encoder.encode(fields)) for number in self._streams]

    def connection_lost(self, exc: Exception | None) -> None:
        self._count.error("closed early")

    def begin(self) -> None:
        self._transport.write(b"".join(stream.message * self._flight for stream in self._streams.values()))

    def end(self) -> None:
        self._transport.abort()


async def over_http2(port: int, asked: argparse.Namespace, count: Count, message: bytes) -> list[Load]:
    loop = asyncio.get_running_loop()
    found: list[Load] = []
    for _ in range(asked.connections):
        _, load = await loop.create_connection(
            lambda: Http2Load(count, message, asked.flight, asked.streams), "127.0.0.1", port
        )
        found.append(load)
    return found


async def main(asked: argparse.Namespace) -> None:
    count = Count()
    message = bytes(range(256)) * (asked.size // 256) + bytes(range(asked.size % 256))
    connect = over_http1 if asked.http == 1 else over_http2
    async with asyncio.timeout(PATIENCE):
        loads = await connect(asked.port, asked, count, message)
        while count.opened < asked.connections * asked.streams and not count.errors:
            await asyncio.sleep(0.005)
    count.running = not count.errors
    began = time.perf_counter()
    if count.running:
        for load in loads:
            load.begin()
        await asyncio.sleep(asked.seconds)
    messages, elapsed = count.messages, time.perf_counter() - began
    count.running = False
    for load in loads:
        load.end()
    times = sorted(count.latencies)
    found = {
        "messages": messages,
        "elapsed": elapsed,
        "latency": {name: times[int(len(times) * share)] for name, share in (("p50", 0.5), ("p99", 0.99)) if times},
        "errors": count.errors,
    }
    print(json.dumps(found))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--http", type=int, choices=[1, 2], default=1)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--streams", type=int, default=1, help="WebSockets on each connection of HTTP/2")
    parser.add_argument("--flight", type=int, default=1, help="messages under way on each WebSocket")
    parser.add_argument("--size", type=int, default=64, help="bytes of a message")
    return parser.parse_args()


if __name__ == "__main__":
    uvloop.run(main(arguments()))
    sys.stdout.flush()
