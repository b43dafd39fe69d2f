"""A client of HTTP/2, sans-I/O, on the h2 library; whoever uses it moves the bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings


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


class Http2Client:
    """Sends requests, reads answers; ``feed`` takes the server's bytes, ``take`` gives those for the server."""

    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
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
        return value.decode("ascii") if isinstance(value, bytes) else value

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
                self.answers[event.stream_id].interim.append(int(dict(event.headers)[":status"]))
            case h2.events.ResponseReceived():
                answer = self.answers[event.stream_id]
                answer.headers = dict(event.headers)
                answer.status = int(answer.headers.pop(":status"))
            case h2.events.DataReceived():
                self.answers[event.stream_id].body += event.data
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                self.answers[event.stream_id].trailers = dict(event.headers)
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
