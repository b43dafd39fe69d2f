"""Clients of WebSocket behind one set of verbs: websockets and picows, and wsproto over HTTP/1.1 and through h2.

The first two are what people use, and speak HTTP/1.1 only. wsproto knows only frames, so that the same conversation can
be held over both carriers, and what the server has said be compared byte for byte.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import h2.events
import h2.exceptions
import h2.settings
import picows
import websockets.asyncio.client
import websockets.exceptions
import wsproto.events
from wsproto.connection import CLIENT, Connection, ConnectionState
from wsproto.extensions import PerMessageDeflate

from tests.http2_client import Answer2, Http2Client, texts
from tests.proto.fakes import parse_answers

PATIENCE = 20  # seconds until what should come is taken not to
MOST = 64 << 20  # bytes of a message that the clients take
WAITING = 16  # messages that may wait for the user of wsproto
WINDOW = 1 << 30  # bytes that an HTTP/2 connection may have on its way to a client
EXTENDED_CONNECT = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL


class ClosedError(Exception):
    """The WebSocket is over; ``code`` and ``reason`` are the server's, 1006 where it sent no Close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class DeniedError(Exception):
    """The server has answered the handshake with something else than success."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status, headers, body)
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True)
class Offer:
    """What a client asks for."""

    path: str = "/echo"
    subprotocols: Sequence[str] = ()
    compression: bool = False
    tls: ssl.SSLContext | None = None


class Peer(Protocol):
    """A client's end of one WebSocket. ``subprotocol`` and ``extensions`` are the server's choice, "" for none."""

    subprotocol: str
    extensions: str

    async def send(self, message: str | bytes) -> None: ...

    async def send_fragments(self, pieces: Sequence[str]) -> None:
        """One text message in several frames."""

    async def receive(self) -> str | bytes:
        """The next message. Raises ClosedError."""

    async def ping(self, data: bytes) -> None:
        """Returns once the pong for it has come."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Returns once the closing handshake is over."""


class Bound(Protocol):
    def getsockname(self) -> Any: ...


class Place(Protocol):
    """Where a server is: a Server, or somebody who speaks for another process."""

    @property
    def sockets(self) -> Sequence[Bound]: ...


Opener = Callable[[Place, Offer], contextlib.AbstractAsyncContextManager[Peer]]


def address(server: Place) -> tuple[str, int]:
    host, port = server.sockets[0].getsockname()[:2]
    return host, port


def url(server: Place, offer: Offer) -> str:
    scheme = "ws" if offer.tls is None else "wss"
    return f"{scheme}://localhost:{address(server)[1]}{offer.path}"


# websockets


class Websockets:
    def __init__(self, connection: websockets.asyncio.client.ClientConnection) -> None:
        self._connection = connection
        self.subprotocol = connection.subprotocol or ""
        assert connection.response is not None
        self.extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")

    async def send(self, message: str | bytes) -> None:
        await self._connection.send(message)

    async def send_fragments(self, pieces: Sequence[str]) -> None:
        await self._connection.send(pieces)

    async def receive(self) -> str | bytes:
        async with asyncio.timeout(PATIENCE):
            try:
                return await self._connection.recv()
            except websockets.exceptions.ConnectionClosed as closed:
                if closed.rcvd is None:
                    raise ClosedError(1006, "") from None
                raise ClosedError(closed.rcvd.code, closed.rcvd.reason) from None

    async def ping(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await (await self._connection.ping(data))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self._connection.close(code, reason)


@contextlib.asynccontextmanager
async def through_websockets(server: Place, offer: Offer) -> AsyncIterator[Peer]:
    try:
        connection = await websockets.asyncio.client.connect(
            url(server, offer),
            host=address(server)[0],
            subprotocols=cast(Any, list(offer.subprotocols)) or None,
            compression="deflate" if offer.compression else None,
            max_size=MOST,
            ssl=offer.tls,
            proxy=None,
            ping_interval=None,
        )
    except websockets.exceptions.InvalidStatus as answer:
        headers = {name.lower(): value for name, value in answer.response.headers.raw_items()}
        raise DeniedError(answer.response.status_code, headers, bytes(answer.response.body)) from None
    try:
        yield Websockets(connection)
    finally:
        await connection.close()


# picows


class Picows(picows.WSListener):
    """It gives frames, and asgiri never cuts a message into several."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[str | bytes | ClosedError] = asyncio.Queue()
        self._pongs: asyncio.Queue[bytes] = asyncio.Queue()

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        headers = transport.response.headers
        self.subprotocol = headers.get("Sec-WebSocket-Protocol", "")
        self.extensions = headers.get("Sec-WebSocket-Extensions", "")

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        assert frame.fin
        match frame.msg_type:
            case picows.WSMsgType.TEXT:
                self._arrived.put_nowait(frame.get_payload_as_utf8_text())
            case picows.WSMsgType.BINARY:
                self._arrived.put_nowait(frame.get_payload_as_bytes())
            case picows.WSMsgType.PONG:
                self._pongs.put_nowait(frame.get_payload_as_bytes())
            case picows.WSMsgType.CLOSE:
                self._arrived.put_nowait(
                    ClosedError(int(cast(Any, frame.get_close_code())), frame.get_close_reason() or "")
                )
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            case other:
                raise AssertionError(f"a frame of the type {other}")

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._arrived.put_nowait(ClosedError(1006, ""))

    async def send(self, message: str | bytes) -> None:
        kind = picows.WSMsgType.TEXT if isinstance(message, str) else picows.WSMsgType.BINARY
        self._transport.send(kind, message.encode() if isinstance(message, str) else message)

    async def send_fragments(self, pieces: Sequence[str]) -> None:
        for number, piece in enumerate(pieces):
            kind = picows.WSMsgType.CONTINUATION if number else picows.WSMsgType.TEXT
            self._transport.send(kind, piece.encode(), fin=number == len(pieces) - 1)

    async def receive(self) -> str | bytes:
        async with asyncio.timeout(PATIENCE):
            message = await self._arrived.get()
        if isinstance(message, ClosedError):
            raise message
        return message

    async def ping(self, data: bytes) -> None:
        self._transport.send_ping(data)
        async with asyncio.timeout(PATIENCE):
            assert await self._pongs.get() == data

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._transport.send_close(cast(Any, code), reason.encode())
        async with asyncio.timeout(PATIENCE):
            await self._transport.wait_disconnected()


@contextlib.asynccontextmanager
async def through_picows(server: Place, offer: Offer) -> AsyncIterator[Peer]:
    assert not offer.compression, "picows has none"
    fields = {"Sec-WebSocket-Protocol": ", ".join(offer.subprotocols)} if offer.subprotocols else None
    try:
        transport, peer = await picows.ws_connect(
            Picows, url(server, offer), ssl_context=offer.tls, extra_headers=fields, max_frame_size=MOST
        )
    except picows.WSHandshakeError as answer:
        if answer.response is None:
            raise
        headers = {name.lower(): value for name, value in answer.response.headers.items()}
        raise DeniedError(answer.response.status, headers, answer.raw_body or b"") from None
    try:
        yield cast(Picows, peer)
    finally:
        transport.disconnect()
        await transport.wait_disconnected()


# wsproto


class Carrier(Protocol):
    """The byte stream that a WebSocket of wsproto goes over."""

    async def write(self, data: bytes) -> None: ...

    def resume(self) -> None:
        """The user has taken a message: there is room for more."""

    async def finish(self) -> None:
        """The closing handshake is over: wait until the server ends the stream (RFC 6455 section 7.1.1)."""


class Wsproto:
    """One WebSocket on wsproto. ``heard`` is all that the server has said, byte for byte."""

    def __init__(self, carrier: Carrier, headers: dict[str, str], offer: Offer) -> None:
        self._carrier = carrier
        self.subprotocol = headers.get("sec-websocket-protocol", "")
        self.extensions = headers.get("sec-websocket-extensions", "")
        deflate = PerMessageDeflate()
        if self.extensions:
            assert offer.compression
            deflate.finalize(self.extensions)
        self._frames = Connection(CLIENT, [deflate] if self.extensions else [])
        self._arrived: asyncio.Queue[str | bytes | ClosedError] = asyncio.Queue()
        self._pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self._pieces: list[Any] = []
        self._over = False  # nothing after it is parsed
        self.heard = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Take what the server has said; what is to be sent in answer."""
        self.heard += data
        answers = b""
        if data and not self._over:
            self._frames.receive_data(data)
            for event in self._frames.events():
                answers += self._handle(event)
        return answers

    def _handle(self, event: wsproto.events.Event) -> bytes:
        match event:
            case wsproto.events.Message():
                self._pieces.append(event.data)
                if event.message_finished:
                    pieces, self._pieces = self._pieces, []
                    text = isinstance(event, wsproto.events.TextMessage)
                    self._arrived.put_nowait("".join(pieces) if text else b"".join(pieces))
            case wsproto.events.Ping():
                return self._frames.send(event.response())
            case wsproto.events.Pong():
                self._pongs.put_nowait(bytes(event.payload))
            case wsproto.events.CloseConnection():
                self._over = True
                self._arrived.put_nowait(ClosedError(int(event.code), event.reason or ""))
                if self._frames.state is ConnectionState.REMOTE_CLOSING:
                    return self._frames.send(event.response())
        return b""

    def end(self) -> None:
        """The stream has ended."""
        self._over = True
        self._arrived.put_nowait(ClosedError(1006, ""))

    @property
    def full(self) -> bool:
        """Whether the user is to take a message before more is read."""
        return self._arrived.qsize() >= WAITING

    async def raw(self, data: bytes) -> None:
        """Send bytes that wsproto would not."""
        await self._carrier.write(data)

    async def send(self, message: str | bytes) -> None:
        event: wsproto.events.Event = (
            wsproto.events.TextMessage(data=message)
            if isinstance(message, str)
            else wsproto.events.BytesMessage(data=message)
        )
        await self._carrier.write(self._frames.send(event))

    async def send_fragments(self, pieces: Sequence[str]) -> None:
        for number, piece in enumerate(pieces, 1):
            fragment = wsproto.events.TextMessage(data=piece, message_finished=number == len(pieces))
            await self._carrier.write(self._frames.send(fragment))

    async def receive(self) -> str | bytes:
        async with asyncio.timeout(PATIENCE):
            message = await self._arrived.get()
            self._carrier.resume()
            if isinstance(message, ClosedError):
                await self._carrier.finish()
                self._arrived.put_nowait(message)  # for who asks again
                raise message
        return message

    async def ping(self, data: bytes) -> None:
        await self._carrier.write(self._frames.send(wsproto.events.Ping(payload=data)))
        async with asyncio.timeout(PATIENCE):
            assert await self._pongs.get() == data

    async def close(self, code: int = 1000, reason: str = "") -> None:
        closing = wsproto.events.CloseConnection(code=code, reason=reason)
        await self._carrier.write(self._frames.send(closing))
        with contextlib.suppress(ClosedError):
            while True:
                await self.receive()


def offered(offer: Offer) -> list[tuple[str, str]]:
    """The fields of a handshake that both carriers have."""
    fields = [("sec-websocket-version", "13")]
    if offer.subprotocols:
        fields.append(("sec-websocket-protocol", ", ".join(offer.subprotocols)))
    if offer.compression:
        fields.append(("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"))
    return fields


class Http1Carrier:
    """A connection of HTTP/1.1: the handshake, and what it is switched to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._room = asyncio.Event()
        self._ended = asyncio.Event()

    async def handshake(self, offer: Offer) -> Wsproto:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = ["Host: localhost", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}"]
        fields += [f"{name}: {value}" for name, value in offered(offer)]
        self._writer.write("\r\n".join([f"GET {offer.path} HTTP/1.1", *fields, "\r\n"]).encode())
        data = await self._more()
        while b"\r\n\r\n" not in data:
            data += await self._more()
        if not data.startswith(b"HTTP/1.1 101 "):
            while not (answers := parse_answers(data)[0]):
                data += await self._more()
            raise DeniedError(answers[0].status, answers[0].headers, answers[0].body)
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
        peer = Wsproto(self, {name.lower(): value.strip() for name, _, value in lines}, offer)
        self._writer.write(peer.feed(rest))
        return peer

    async def _more(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read(1 << 16)
        assert data, "the connection ended within the handshake"
        return data

    async def run(self, peer: Wsproto) -> None:
        """Read as long as there is room."""
        data = b"-"
        while data:
            if peer.full:
                self._room.clear()
                await self._room.wait()
            try:
                data = await self._reader.read(1 << 18)
            except ConnectionError:
                data = b""
            answers = peer.feed(data)
            if answers and not self._writer.is_closing():
                self._writer.write(answers)
        peer.end()
        self._ended.set()

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def resume(self) -> None:
        self._room.set()

    async def finish(self) -> None:
        await self._ended.wait()


@contextlib.asynccontextmanager
async def through_http1(server: Place, offer: Offer) -> AsyncIterator[Wsproto]:
    secure = {"ssl": offer.tls, "server_hostname": "localhost"} if offer.tls is not None else {}
    reader, writer = await asyncio.open_connection(*address(server), **cast(Any, secure))
    reading: asyncio.Task[None] | None = None
    try:
        carrier = Http1Carrier(reader, writer)
        peer = await carrier.handshake(offer)
        reading = asyncio.ensure_future(carrier.run(peer))
        yield peer
    finally:
        await ended(reading, writer)


async def ended(reading: asyncio.Task[None] | None, writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait for who reads it; what went wrong there is raised."""
    writer.close()
    if reading is not None:
        await reading
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Http2Carrier:
    """A stream of HTTP/2 (RFC 8441). What the user has not taken is held against the server's window."""

    def __init__(self, connection: Http2Connection, stream: int) -> None:
        self._connection = connection
        self._stream = stream
        self._unread = 0  # bytes of DATA that were not acknowledged

    def received(self, peer: Wsproto, event: h2.events.DataReceived) -> None:
        self._unread += event.flow_controlled_length or 0
        answers = peer.feed(event.data or b"")
        with contextlib.suppress(h2.exceptions.StreamClosedError):  # what ended it has come behind these bytes
            if answers:
                self._connection.h2.send_data(self._stream, answers)
        if not peer.full:
            self._acknowledge()

    def _acknowledge(self) -> None:
        unread, self._unread = self._unread, 0
        if unread:
            self._connection.h2.acknowledge_received_data(unread, self._stream)

    async def write(self, data: bytes) -> None:
        connection, stream = self._connection, self._stream
        place = 0
        while place < len(data):
            await connection.until(lambda: connection.h2.local_flow_control_window(stream) > 0)
            size = min(connection.h2.local_flow_control_window(stream), connection.h2.max_outbound_frame_size)
            connection.h2.send_data(stream, data[place : place + size])
            place += size
            await connection.flush()

    def resume(self) -> None:
        if self._unread:
            self._acknowledge()
            self._connection.send()

    async def finish(self) -> None:
        """Both sides end the stream with END_STREAM (RFC 8441 section 5)."""
        await self._connection.until(lambda: self._connection.ended(self._stream))
        answer = self._connection.answers[self._stream]
        if answer.reset is None:
            with contextlib.suppress(h2.exceptions.StreamClosedError):  # it has ended before
                self._connection.h2.end_stream(self._stream)
            self._connection.send()


class Http2Connection(Http2Client):
    """A connection of HTTP/2 that is read all the time: many WebSockets, and requests beside them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: str) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self._scheme = scheme
        self._news = asyncio.Event()
        self._offers: dict[int, Offer] = {}
        self._carriers: dict[int, Http2Carrier] = {}
        self._peers: dict[int, Wsproto] = {}
        self.over = False  # the connection has ended

    def send(self) -> None:
        data = self.take()
        if data and not self._writer.is_closing():
            self._writer.write(data)

    async def flush(self) -> None:
        self.send()
        await self._writer.drain()

    def ended(self, stream: int) -> bool:
        return self.over or self.done(stream)

    async def run(self) -> None:
        self.begin()
        self.h2.increment_flow_control_window(WINDOW)  # of the connection: one slow WebSocket is not to stop the others
        self.send()
        while not self.over:
            try:
                data = await self._reader.read(1 << 18)
            except (ConnectionError, ssl.SSLError):  # the latter for data that has crossed our close_notify
                data = b""
            self.over = not data
            self.feed(data)
            self.send()
            if self.over:
                for peer in self._peers.values():
                    peer.end()
            self._news.set()
            self._news = asyncio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                assert not self.over, "the connection ended"
                await self._news.wait()

    def _handle(self, event: h2.events.Event) -> None:
        stream = getattr(event, "stream_id", 0)
        match event:
            case h2.events.DataReceived() if stream in self._peers:
                self._carriers[stream].received(self._peers[stream], event)
                return
            case h2.events.ResponseReceived() if texts(event.headers)[":status"] == "200" and stream in self._offers:
                carrier = self._carriers[stream] = Http2Carrier(self, stream)
                self._peers[stream] = Wsproto(carrier, texts(event.headers), self._offers[stream])
        super()._handle(event)
        if stream in self._peers and self.done(stream):
            self._peers[stream].end()

    async def get(self, path: str) -> Answer2:
        stream = self.request(path)
        await self.flush()
        await self.until(lambda: self.done(stream))
        return self.answers[stream]

    async def open(self, offer: Offer) -> Wsproto:
        """Open a WebSocket by extended CONNECT, which the server must have said that it takes. Raises DeniedError."""
        await self.until(lambda: self.settings.get(EXTENDED_CONNECT) == 1)
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", self._scheme)]
        head += [(":authority", "localhost"), (":path", offer.path), *offered(offer)]
        self.answers[stream] = Answer2()
        self._offers[stream] = offer
        self.h2.send_headers(stream, head)
        await self.flush()
        await self.until(lambda: stream in self._peers or self.done(stream))
        if stream not in self._peers:
            answer = self.answers[stream]
            raise DeniedError(answer.status, answer.headers, answer.body)
        return self._peers[stream]


@contextlib.asynccontextmanager
async def http2(server: Place, tls: ssl.SSLContext | None = None) -> AsyncIterator[Http2Connection]:
    """A connection by prior knowledge, or over TLS whatever ALPN says."""
    secure = {"ssl": tls, "server_hostname": "localhost"} if tls is not None else {}
    reader, writer = await asyncio.open_connection(*address(server), **cast(Any, secure))
    connection = Http2Connection(reader, writer, "http" if tls is None else "https")
    reading = asyncio.ensure_future(connection.run())
    try:
        yield connection
    finally:
        await ended(reading, writer)


@contextlib.asynccontextmanager
async def through_http2(server: Place, offer: Offer) -> AsyncIterator[Wsproto]:
    async with http2(server, offer.tls) as connection:
        yield await connection.open(offer)


WAYS: dict[str, Opener] = {
    "websockets": through_websockets,
    "picows": through_picows,
    "http1": through_http1,
    "http2": through_http2,
}
