"""A client of HTTP/2 on the h2 library: sans-I/O, where the user moves the bytes, and on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from hyperframe.frame import Frame, GoAwayFrame


@dataclass
class Answer2:
    """One answer as a client reads it."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reset: int | None = None  # the code of the RST_STREAM
    interim: list[int] = field(default_factory=list)


def texts(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The fields of a head; of a name that is there twice, the last one."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in fields}


class LastingConnection(h2.connection.H2Connection):
    """The library's takes nothing more once a GOAWAY has come, where RFC 9113 section 6.8 lets open streams finish."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.error_code = ErrorCodes(frame.error_code)
        event.last_stream_id = frame.last_stream_id
        return [], [event]


class Http2Client:
    """Sends requests, reads answers; ``feed`` takes the server's bytes, ``take`` gives those for the server."""

    def __init__(self) -> None:
        self.h2 = LastingConnection(h2.config.H2Configuration(client_side=True))
        self.answers: dict[int, Answer2] = {}
        self.goaways: list[tuple[int, int]] = []  # last stream, code
        self.settings: dict[int, int] = {}  # the server's

    def begin(self) -> None:
        self.h2.initiate_connection()

    def upgrade(self) -> str:
        """Begin as of an upgrade; the value of HTTP2-Settings."""
        value = self.h2.initiate_upgrade_connection()
        assert value is not None
        self.answers[1] = Answer2()
        return value.decode("ascii")

    def request(
        self,
        path: str = "/",
        *fields: tuple[str, str],
        method: str = "GET",
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """Send a request, and as much of its body as the windows let; its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "asgiri.test"), (":path", path), *fields]
        self.answers[stream] = Answer2()
        self.h2.send_headers(stream, head, end_stream=end and body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end)
        return stream

    def take(self) -> bytes:
        return self.h2.data_to_send()

    def feed(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._handle(event)

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                self.answers[event.stream_id].interim.append(int(texts(event.headers)[":status"]))
            case h2.events.ResponseReceived():
                answer = self.answers[event.stream_id]
                answer.headers = texts(event.headers)
                answer.status = int(answer.headers.pop(":status"))
            case h2.events.DataReceived():
                self.answers[event.stream_id].body += event.data
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self.answers[event.stream_id].trailers = texts(event.headers)
            case h2.events.StreamEnded():
                self.answers[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.answers[event.stream_id].reset = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.goaways.append((int(event.last_stream_id or 0), int(event.error_code or 0)))
            case h2.events.RemoteSettingsChanged():
                self.settings |= {int(code): setting.new_value for code, setting in event.changed_settings.items()}

    def done(self, *streams: int) -> bool:
        """Whether all these answers, or all there are, are whole or reset."""
        return all(
            self.answers[stream].ended or self.answers[stream].reset is not None for stream in streams or self.answers
        )


class Http2Peer(Http2Client):
    """The same on a connection's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__()
        self._reader = reader
        self._writer = writer
        self.ended = False  # the server sends nothing more

    @property
    def tls(self) -> ssl.SSLObject:
        found = self._writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    @property
    def address(self) -> tuple[str, int]:
        name = self._writer.get_extra_info("sockname")
        return name[0], name[1]

    async def flush(self) -> None:
        self._writer.write(self.take())
        with contextlib.suppress(ConnectionError):  # what the server has said before can still be read
            await self._writer.drain()

    async def until(self, condition: Callable[[], object]) -> None:
        """Move bytes until the condition holds; what the last ones read are answered with goes with the next ones sent.

        The limit is there for the message it gives.
        """
        async with asyncio.timeout(20):
            await self.flush()
            while not condition():
                assert not self.ended, "the connection ended"
                data = await self._reader.read(1 << 16)
                self.ended = not data
                self.feed(data)
                if condition():
                    break
                await self.flush()

    async def end(self) -> None:
        """Read until the server ends the connection."""
        await self.until(lambda: self.ended)

    async def answer(self, stream: int) -> Answer2:
        await self.until(lambda: self.done(stream))
        return self.answers[stream]

    async def get(self, path: str = "/", *fields: tuple[str, str]) -> Answer2:
        return await self.answer(self.request(path, *fields))

    async def post(self, path: str, body: bytes) -> Answer2:
        """Send a body as the server's windows let."""
        stream = self.request(path, method="POST", end=False)
        place = 0
        while place < len(body):
            await self.until(lambda: self.h2.local_flow_control_window(stream) > 0)
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, body[place : place + size])
            place += size
        self.h2.end_stream(stream)
        return await self.answer(stream)


@contextlib.asynccontextmanager
async def http2_connected(
    address: tuple[str, int], tls: ssl.SSLContext | None = None, name: str = "localhost"
) -> AsyncIterator[Http2Peer]:
    """A connection that speaks HTTP/2 by prior knowledge, or over TLS whatever ALPN says."""
    secure: dict[str, Any] = {"ssl": tls, "server_hostname": name} if tls is not None else {}
    reader, writer = await asyncio.open_connection(*address, **secure)
    peer = Http2Peer(reader, writer)
    peer.begin()
    try:
        yield peer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
