"""Our own WebSocket engine. What is whole in one read is read without a copy too many, for that is what most are.

HEAD     before or within the head of a frame; a control frame waits there until it is whole
PAYLOAD  within the payload of a data frame, of which each piece is unmasked, inflated and checked as it comes

A head --not whole--> it waits in _rest      --control--> its event     --data--> PAYLOAD, where _left says how much
PAYLOAD --all of it--> HEAD, and with the last frame of a message its event
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import Final

from asgiri.codec import ws_rules as rules
from asgiri.codec.contract import Deflate, WebSocketCodec
from asgiri.codec.events import Binary, Close, Failure, Ping, Pong, Text, WebSocketEvent
from asgiri.codec.ws_deflate import Deflater, Inflater
from asgiri.codec.ws_mask import unmask
from asgiri.codec.ws_rules import CLOSED, CLOSING, ENDLESS, LENGTH_16, OPEN, FrameError

# The first byte of a whole message, and both bytes of the head of a small one. (No small one is compressed.)
WHOLE_TEXT: Final = rules.FIN | rules.TEXT
WHOLE_BINARY: Final = rules.FIN | rules.BINARY
TEXT_HEADS: Final = tuple(bytes((WHOLE_TEXT, size)) for size in range(LENGTH_16))
BINARY_HEADS: Final = tuple(bytes((WHOLE_BINARY, size)) for size in range(LENGTH_16))
# What the second byte of a masked frame is at least.
MASKED: Final = rules.MASK
# Where the payload of a small frame begins.
SMALL_HEAD: Final = 6
# Pieces from this size on, in bytes, are kept as they are; the copy of a larger one costs more than a view of it.
LARGE: Final = 4 << 10


class Message:
    """A message of which not all is here yet, or which has to be inflated."""

    __slots__ = ("_inflater", "_most", "_opcode", "_pieces", "_tail", "size")

    def __init__(self, opcode: int, most: int, inflater: Inflater | None) -> None:
        self.size = 0
        self._opcode = opcode
        self._most = most
        self._inflater = inflater
        self._pieces: list[bytes | bytearray] = []
        self._tail = b""  # a character of the text that is not whole yet

    def add(self, data: bytes, last: bool) -> None:
        """Take the next piece. Raises FrameError at the first byte that is wrong."""
        inflater = self._inflater
        if inflater is not None:
            data = inflater.inflate(data, self._most - self.size)
        self.size += len(data)
        over = self.size > self._most
        if self._opcode == rules.TEXT:
            self._check_text(data, last and not over)
        if inflater is not None:  # of other frames the head has told the size
            if over:
                raise rules.too_big()
            if last:
                inflater.end()
        if len(data) >= LARGE:
            self._pieces.append(data)
            return
        # Small pieces become one, or each would take several times its size.
        end = self._pieces[-1] if self._pieces else None
        if isinstance(end, bytearray):
            end += data
        else:
            self._pieces.append(bytearray(data))

    def check_size(self, size: int) -> None:
        """Judge the size of the next frame; compressed ones show theirs as they are inflated."""
        if self._inflater is None:
            rules.check_size(size, self.size, self._most)

    def _check_text(self, data: bytes, last: bool) -> None:
        if self._tail:
            data = self._tail + data
        try:
            _, used = utf_8_decode(data, "strict", last)
        except UnicodeDecodeError as error:
            raise rules.bad_text() from error
        self._tail = data[used:]
        if self._tail:
            rules.check_tail(self._tail)

    def event(self) -> WebSocketEvent:
        data = b"".join(self._pieces)
        return Text(data.decode("utf-8"), self.size) if self._opcode == rules.TEXT else Binary(data)


class NativeWebSocketCodec(WebSocketCodec):
    """The server side of one WebSocket (RFC 6455 sections 5 to 7), between its opening handshake and its end."""

    __slots__ = ("_deflater", "_first", "_inflater", "_key", "_left", "_life", "_message", "_most", "_out", "_rest")

    def __init__(self, max_message: int, deflate: Deflate | None = None) -> None:
        self._most = max_message or ENDLESS
        self._deflater = Deflater(deflate) if deflate is not None else None
        self._inflater = Inflater(deflate) if deflate is not None else None
        self._life = OPEN
        self._rest = b""  # the head of a frame that is not whole, or a control frame
        self._message: Message | None = None  # what has begun and is not whole
        self._first = 0  # the first byte of the data frame
        self._left = 0  # how much of its payload is still to come
        self._key = b""
        self._out: list[bytes] = []

    # Bytes in

    def receive(self, data: bytes) -> list[WebSocketEvent]:
        events: list[WebSocketEvent] = []
        life = self._life
        if life is CLOSED or not data:
            return events
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at = 0
        end = len(data)
        try:
            while at < end:
                if self._message is None:
                    if end - at >= SMALL_HEAD:
                        # A small message in one frame, which most are.
                        first = data[at]
                        size = data[at + 1] - MASKED
                        begin = at + SMALL_HEAD
                        stop = begin + size
                        if (
                            (first == WHOLE_TEXT or first == WHOLE_BINARY)  # noqa: SIM109
                            and 0 <= size < LENGTH_16
                            and stop <= end
                            and size <= self._most
                        ):
                            payload = unmask(data[begin:stop], data[at + 2 : begin])
                            if first == WHOLE_TEXT:
                                events.append(Text(payload.decode("utf-8"), size))
                            else:
                                events.append(Binary(payload))
                            at = stop
                            continue
                elif self._left:
                    at = self._read_payload(data, at, events)
                    continue
                stop = self._read_frame(data, at, events)
                if stop < 0:
                    self._rest = data[at:]
                    break
                at = stop
                if self._life is CLOSED:
                    break
        except FrameError as error:
            self._fail(error, events)
        except UnicodeDecodeError:
            self._fail(rules.bad_text(), events)
        return events

    def ahead(self, data: bytes, at: int) -> int:
        if self._life is CLOSED:
            return 0
        if self._left:
            return self._left
        within, deflates = self._message is not None, self._inflater is not None
        rest = self._rest
        if not rest:
            return rules.frame_size(data, at, within, deflates)
        return max(0, rules.frame_size(rest + data[at : at + rules.MOST_HEAD], 0, within, deflates) - len(rest))

    def _read_frame(self, data: bytes, at: int, events: list[WebSocketEvent]) -> int:
        """Read the frame, or of a data frame as much as is here. Where it ends; -1 to wait for more of its head."""
        message = self._message
        head = rules.read_head(data, at, message is not None, self._inflater is not None)
        if head is None:
            return -1
        size, key = head
        begin = key + rules.KEY_SIZE
        stop = begin + size
        first = data[at]
        if first & rules.CONTROL:
            if stop > len(data):
                return -1
            self._take_control(first & rules.OPCODE, unmask(data[begin:stop], data[key:begin]), events)
            return stop
        if message is None:
            if first & ~rules.OPCODE == rules.FIN and stop <= len(data):  # whole, and not compressed
                rules.check_size(size, 0, self._most)
                payload = unmask(memoryview(data)[begin:stop], data[key:begin])
                events.append(Binary(payload) if first == WHOLE_BINARY else Text(payload.decode("utf-8"), size))
                return stop
            message = Message(first & rules.OPCODE, self._most, self._inflater if first & rules.RSV1 else None)
        message.check_size(size)
        if begin > len(data):
            return -1
        self._message = message
        self._first = first
        self._left = size
        self._key = data[key:begin]
        return self._read_payload(data, begin, events)

    def _read_payload(self, data: bytes, at: int, events: list[WebSocketEvent]) -> int:
        """Take what is here of the payload of a data frame; where that ends."""
        message = self._message
        assert message is not None
        taken = min(self._left, len(data) - at)
        stop = at + taken
        piece: bytes | memoryview = data
        if taken < len(data):  # compiled, a slice is a copy even of all of it
            piece = memoryview(data)[at:stop] if taken >= LARGE else data[at:stop]
        payload = unmask(piece, self._key)
        self._left -= taken
        if self._left:
            turn = taken & 3
            self._key = self._key[turn:] + self._key[:turn]
        last = not self._left and self._first & rules.FIN != 0
        message.add(payload, last)
        if last:
            events.append(message.event())
            self._message = None
        return stop

    def _take_control(self, opcode: int, payload: bytes, events: list[WebSocketEvent]) -> None:
        if opcode == rules.PING:
            if self._life is OPEN:
                self._send_frame(rules.FIN | rules.PONG, payload)
            events.append(Ping(payload))
        elif opcode == rules.PONG:
            events.append(Pong(payload))
        else:
            code, reason = rules.read_close(payload)
            self.send_close(code)  # section 5.5.1: the answer has the same code
            self._end()
            events.append(Close(code, reason))

    def _fail(self, error: FrameError, events: list[WebSocketEvent]) -> None:
        self.send_close(error.code, error.reason)
        self._end()
        events.append(Failure(0, error.reason, error.code))

    def _end(self) -> None:
        self._life = CLOSED
        self._message = None
        self._left = 0

    # Sends

    def send_text(self, text: str) -> None:
        if self._life is not OPEN:
            return
        data = rules.encoded(text)
        size = len(data)
        if size < LENGTH_16:
            self._out.append(TEXT_HEADS[size] + data)
        else:
            self._send_message(WHOLE_TEXT, data)

    def send_binary(self, data: bytes) -> None:
        if self._life is not OPEN:
            return
        size = len(data)
        if size < LENGTH_16:
            self._out.append(BINARY_HEADS[size] + data)
        else:
            self._send_message(WHOLE_BINARY, data)

    def _send_message(self, first: int, data: bytes) -> None:
        if self._deflater is not None:
            packed = self._deflater.deflate(data)
            if packed:
                first |= rules.RSV1
                data = packed
        self._send_frame(first, data)

    def send_ping(self, data: bytes) -> None:
        rules.check_ping(data)
        if self._life is OPEN:
            self._send_frame(rules.FIN | rules.PING, data)

    def send_close(self, code: int, reason: str = "") -> None:
        payload = rules.close_payload(code, reason)
        if self._life is OPEN:
            self._send_frame(rules.FIN | rules.CLOSE, payload)
            self._life = CLOSING

    def _send_frame(self, first: int, payload: bytes) -> None:
        """A frame of ours, which is not masked (section 5.1)."""
        size = len(payload)
        if size < LENGTH_16:
            self._out.append(bytes((first, size)) + payload)
        elif size < 1 << 16:
            self._out.append(bytes((first, LENGTH_16)) + size.to_bytes(2, "big"))
            self._out.append(payload)
        else:
            self._out.append(bytes((first, rules.LENGTH_64)) + size.to_bytes(8, "big"))
            self._out.append(payload)

    # Bytes out

    def take(self) -> bytes:
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # Questions

    @property
    def closing(self) -> bool:
        return self._life is not OPEN
