"""WebSocket on wsproto: the reference engine."""

from __future__ import annotations

from io import BytesIO, StringIO
from typing import Any

from wsproto.frame_protocol import FrameProtocol

from asgiri.codec import ws_rules as rules
from asgiri.codec.contract import Deflate, WebSocketCodec
from asgiri.codec.events import Binary, Close, Failure, Ping, Pong, Text, WebSocketEvent
from asgiri.codec.ws_library import Messages, Reader
from asgiri.codec.ws_rules import CLOSED, CLOSING, ENDLESS, OPEN, FrameError


class WsprotoCodec(WebSocketCodec):
    """The server side of one WebSocket (RFC 6455 sections 5 to 7), between its opening handshake and its end."""

    __slots__ = ("_life", "_out", "_pieces", "_reader", "_size", "_writer")

    def __init__(self, max_message: int, deflate: Deflate | None = None) -> None:
        messages = Messages(max_message or ENDLESS, deflate)
        self._reader = Reader(messages)
        self._writer = FrameProtocol(False, [messages])
        self._life = OPEN
        self._pieces: StringIO | BytesIO | None = None  # of the message that has begun
        self._size = 0
        self._out: list[bytes] = []

    # Bytes in

    def receive(self, data: bytes) -> list[WebSocketEvent]:
        events: list[WebSocketEvent] = []
        life = self._life
        if life is CLOSED or not data:
            return events
        self._reader.receive_bytes(data)
        try:
            while (found := self._reader.next_frame()) is not None:
                frame, size = found
                payload: Any = frame.payload
                if frame.opcode.iscontrol():
                    self._take_control(int(frame.opcode), payload, events)
                    if self._life is CLOSED:
                        break
                else:
                    self._take_piece(payload, size, frame.message_finished, events)
        except FrameError as error:
            self.send_close(error.code, error.reason)
            self._end()
            events.append(Failure(0, error.reason, error.code))
        return events

    def ahead(self, data: bytes, at: int) -> int:
        return 0 if self._life is CLOSED else self._reader.ahead(data, at)

    def _take_control(self, opcode: int, payload: bytes, events: list[WebSocketEvent]) -> None:
        if opcode == rules.PING:
            if self._life is OPEN:
                self._out.append(bytes(self._writer.pong(payload)))
            events.append(Ping(payload))
        elif opcode == rules.PONG:
            events.append(Pong(payload))
        else:
            code, reason = rules.read_close(payload)
            self.send_close(code)  # section 5.5.1: the answer has the same code
            self._end()
            events.append(Close(code, reason))

    def _take_piece(self, piece: Any, size: int, last: bool, events: list[WebSocketEvent]) -> None:
        """A piece of a message, a str or bytes; ``size`` is its size in bytes."""
        pieces: Any = self._pieces
        if pieces is None:
            self._pieces = pieces = StringIO(newline="") if isinstance(piece, str) else BytesIO()
        pieces.write(piece)
        self._size += size
        if last:
            whole = pieces.getvalue()
            events.append(Text(whole, self._size) if isinstance(whole, str) else Binary(whole))
            self._pieces = None
            self._size = 0

    def _end(self) -> None:
        self._life = CLOSED
        self._pieces = None

    # Sends

    def send_text(self, text: str) -> None:
        if self._life is OPEN:
            rules.encoded(text)  # wsproto does it again, with an error of its own
            self._out.append(bytes(self._writer.send_data(text)))

    def send_binary(self, data: bytes) -> None:
        if self._life is OPEN:
            self._out.append(bytes(self._writer.send_data(data)))

    def send_ping(self, data: bytes) -> None:
        rules.check_ping(data)
        if self._life is OPEN:
            self._out.append(bytes(self._writer.ping(data)))

    def send_close(self, code: int, reason: str = "") -> None:
        payload = rules.close_payload(code, reason)
        if self._life is OPEN:
            close = self._writer.close(code, reason) if payload else self._writer.close()
            self._out.append(bytes(close))
            self._life = CLOSING

    # Bytes out

    def take(self) -> bytes:
        data = b"".join(self._out)
        self._out.clear()
        return data

    # Questions

    @property
    def closing(self) -> bool:
        return self._life is not OPEN
