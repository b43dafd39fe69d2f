"""The other end of one HTTP/2 connection: the h2 library as a client, on a transport without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext
from asgiri.codec.engines import http1_engine, http2_engine
from asgiri.codec.h2_wire import Http2Options
from asgiri.codec.rules import HttpLimits
from asgiri.proto.connection import ExchangeLog, Shared, TimeLimits
from asgiri.proto.http2 import Http2Connection
from asgiri.proto.http2_life import State
from asgiri.types import ASGIApp
from tests.proto.fakes import FakeTransport, settle

GOAWAY = 7

H2Headers = list[tuple[str, str]]


@dataclass
class Answered:
    """What has come on one stream, as far as it has."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None  # with which code


class Http2Peer:
    """The other end of one HTTP/2 connection, and its clock.

    ``reads``: the windows open again for what arrives. ``window`` is the client's for each stream, ``window_all`` what
    it adds to the connection's.
    """

    engine: ClassVar[str] = "auto"  # of the server; the fixture ``each_http2_engine`` changes it

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: HttpLimits | None = None,
        times: TimeLimits | None = None,
        options: Http2Options | None = None,
        requests: int = 0,
        requests_per_connection: int = 0,
        access_log: ExchangeLog | None = None,
        window: int = 65535,
        greet: bool = True,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        limits = limits or HttpLimits()
        self.shared = Shared(
            context=AppContext(app=app, extensions=HTTP_EXTENSIONS),
            http1=http1_engine("auto"),
            http2=http2_engine(self.engine),
            http2_options=options or Http2Options(limits=limits),
            limits=limits,
            times=times or TimeLimits(),
            loop=self.loop,
            requests=requests,
            requests_per_connection=requests_per_connection,
            access_log=access_log,
            now=1000.0,
            patience=60.0,  # a machine that is busy must not part what leaves together
        )
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.client.local_settings = Settings(client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.reads = True
        self.answers: dict[int, Answered] = {}
        self.goaways: list[tuple[int, int]] = []  # last stream, code
        self.settings: dict[int, int] = {}  # the server's
        self.events: list[Event] = []
        self._heard = 0  # writes of the server's that the client has
        self.connection = Http2Connection(self.shared)
        self.transport = FakeTransport(self.loop, self.connection)
        self.begin()
        self.client.initiate_connection()
        if greet:
            self.pump()

    def begin(self) -> None:
        self.connection.connection_made(self.transport)

    def state(self) -> State:
        return self.connection._state

    # Bytes between the two

    def pump(self) -> None:
        """Let everything pass that either side has, until both are silent."""
        for _ in range(10_000):
            data = self.client.data_to_send()
            if data and self.transport.is_reading():
                self.connection.data_received(data)
            elif not self.hear():
                return
        raise AssertionError("they never come to an end")

    async def turn(self) -> None:
        """The same, with what the applications do about it."""
        for _ in range(50):
            before = len(self.transport.writes)
            self.pump()
            await settle()
            self.pump()
            if before == len(self.transport.writes):
                return

    async def until(self, condition: Callable[[], object]) -> None:
        """Let everything pass until the condition holds; the limit is there for the message it gives."""
        async with asyncio.timeout(20):
            while not condition():
                self.pump()
                await asyncio.sleep(0)

    async def until_answered(self, *streams: int) -> list[Answered]:
        """The whole answers of these streams."""
        await self.until(lambda: all(stream in self.answers and self.answers[stream].ended for stream in streams))
        return [self.answers[stream] for stream in streams]

    def hear(self) -> bool:
        """Give the client what the server has written; whether there was something.

        Not GOAWAY: behind one this client sends and takes nothing more, which only the last one means.
        """
        writes = self.transport.writes
        new, self._heard = b"".join(writes[self._heard :]), len(writes)
        for kind, flags, stream, payload in frames(new):
            if kind == GOAWAY:
                self.goaways.append((int.from_bytes(payload[:4]), int.from_bytes(payload[4:8])))
                continue
            frame = len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
            for event in self.client.receive_data(frame):
                self._on(event)
        return bool(new)

    def _on(self, event: Event) -> None:
        self.events.append(event)
        match event:
            case InformationalResponseReceived():
                self._of(event).interim.append(int(dict(pairs(event.headers))[":status"]))
            case ResponseReceived():
                headers = dict(pairs(event.headers))
                answer = self._of(event)
                answer.status = int(headers.pop(":status"))
                answer.headers = headers
            case DataReceived():
                assert event.data is not None
                self._of(event).body += event.data
                if self.reads and event.flow_controlled_length:
                    assert event.stream_id is not None
                    self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case TrailersReceived():
                self._of(event).trailers = dict(pairs(event.headers))
            case StreamEnded():
                self._of(event).ended = True
            case StreamReset():
                assert event.error_code is not None
                self._of(event).reset = int(event.error_code)
            case RemoteSettingsChanged():
                self.settings |= {int(code): change.new_value for code, change in event.changed_settings.items()}

    def _of(self, event: Any) -> Answered:
        return self.answers.setdefault(event.stream_id, Answered())

    # What the client does. Nothing is under way before the next pump.

    def request(self, path: str = "/", *fields: tuple[str, str], method: str = "GET", end_stream: bool = True) -> int:
        number = self.client.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "asgiri.test"), (":path", path), *fields]
        self.client.send_headers(number, head, end_stream=end_stream)
        return number

    def post(self, path: str = "/", body: bytes = b"", *fields: tuple[str, str]) -> int:
        """A request with a small body, at once."""
        number = self.request(path, *fields, method="POST", end_stream=False)
        self.client.send_data(number, body, end_stream=True)
        return number

    def cancel(self, number: int) -> None:
        self.client.reset_stream(number, ErrorCodes.CANCEL)

    def grant(self, size: int, *streams: int) -> None:
        """Open windows, of the streams or of the connection."""
        for number in streams or (None,):
            self.client.increment_flow_control_window(size, number)

    def eof(self) -> None:
        assert self.transport.is_reading()
        if not self.connection.eof_received():
            self.transport.close()

    # Time

    def passes(self, seconds: float) -> None:
        """Time goes by, and the server's sweep comes."""
        self.shared.now += seconds
        self.connection.check(self.shared.now)

    async def drip(self, seconds: float, step: float) -> None:
        """Time goes by in steps, with a sweep after each one and a turn of the loop for what it does."""
        for _ in range(round(seconds / step)):
            self.passes(step)
            await self.turn()

    async def end(self) -> None:
        """Take the connection away; nothing of it may stay with the server."""
        self.transport.lose()
        await settle()
        await settle()
        assert self.state() is State.CLOSED
        assert not self.connection.streams
        assert not self.shared.connections
        assert not self.shared.sessions


def pairs(headers: Any) -> H2Headers:
    return [(str(name), str(value)) for name, value in headers or ()]


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of the whole frames in ``data``."""
    found = []
    while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3]):
        size = int.from_bytes(data[:3])
        found.append((data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]))
        data = data[9 + size :]
    assert not data, "a frame that is not whole"
    return found
