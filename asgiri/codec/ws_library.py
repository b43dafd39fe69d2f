"""The wsproto library as the reference WebSocket engine has it: its reader of frames, behind our verdicts.

wsproto judges the head of a frame once it is whole, knows no limit, and would inflate without one. So each head is
judged before wsproto sees it, and the inflating is ours.
"""

from __future__ import annotations

from wsproto.extensions import Extension
from wsproto.frame_protocol import Frame, FrameDecoder, FrameProtocol, MessageDecoder, Opcode, ParseFailed, RsvBits

from asgiri.codec import ws_rules as rules
from asgiri.codec.contract import Deflate
from asgiri.codec.ws_deflate import Deflater, Inflater
from asgiri.codec.ws_rules import INVALID_DATA, FrameError

Side = FrameDecoder | FrameProtocol


class Messages(Extension):
    """Where wsproto asks its extensions: which message a payload is of, how large it is by now, and inflating."""

    name = "asgiri"

    def __init__(self, most: int, deflate: Deflate | None) -> None:
        self.most = most
        self.size = 0  # of the message so far, inflated
        self.compressed = False
        self._control = False
        self._deflater = Deflater(deflate) if deflate is not None else None
        self._inflater = Inflater(deflate) if deflate is not None else None

    @property
    def deflates(self) -> bool:
        return self._inflater is not None

    @property
    def over(self) -> bool:
        return self.size > self.most

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(self, proto: Side, opcode: Opcode, rsv: RsvBits, payload_length: int) -> RsvBits:
        del proto, payload_length
        self._control = opcode.iscontrol()
        if opcode in (Opcode.TEXT, Opcode.BINARY):
            self.size = 0
            self.compressed = rsv.rsv1
        return rsv

    def frame_inbound_payload_data(self, proto: Side, data: bytes) -> bytes:
        del proto
        if self._control:
            return data
        if self.compressed and self._inflater is not None:
            data = self._inflater.inflate(data, self.most - self.size)
        self.size += len(data)
        return data

    def frame_inbound_complete(self, proto: Side, fin: bool) -> None:
        del proto
        if fin and self.compressed and not self._control and not self.over and self._inflater is not None:
            self._inflater.end()

    def frame_outbound(
        self, proto: Side, opcode: Opcode, rsv: RsvBits, data: bytes, fin: bool
    ) -> tuple[RsvBits, bytes]:
        del proto, fin
        if self._deflater is not None and not opcode.iscontrol():
            packed = self._deflater.deflate(data)
            if packed:
                return RsvBits(True, False, False), packed
        return rsv, data


class Reader(FrameDecoder):
    """Bytes to wsproto's frames: whole control frames, and pieces of messages, of which text is decoded."""

    def __init__(self, messages: Messages) -> None:
        super().__init__(False, [messages])
        self._messages = messages
        self._message = MessageDecoder()

    def ahead(self, data: bytes, at: int) -> int:
        held = len(self.buffer)
        if self.header is not None:
            return self.header.payload_len - self.payload_consumed - held
        begun = bytes(self.buffer.buffer) + data[at : at + rules.MOST_HEAD]
        within = self._message.opcode is not None
        return max(0, rules.frame_size(begun, 0, within, self._messages.deflates) - held)

    def parse_header(self) -> bool:
        within = self._message.opcode is not None
        head = rules.read_head(bytes(self.buffer.buffer[: rules.MOST_HEAD]), 0, within, self._messages.deflates)
        if head is None:
            return False
        first = self.buffer.buffer[0]
        if not first & rules.CONTROL and not (self._messages.compressed if within else first & rules.RSV1):
            rules.check_size(head[0], self._messages.size if within else 0, self._messages.most)
        return super().parse_header()

    def next_frame(self) -> tuple[Frame, int] | None:
        """The next one and how many bytes its payload had; None while there is none. Raises FrameError."""
        try:
            frame = self.process_buffer()
            if frame is None:
                return None
            size = len(frame.payload)
            if not frame.opcode.iscontrol():
                if self._messages.over:  # then it does not end where it is cut
                    frame = frame._replace(message_finished=False)
                frame = self._message.process_frame(frame)
                if self._message.decoder is not None:
                    rules.check_tail(self._message.decoder.getstate()[0])
                if self._messages.over:
                    raise rules.too_big()
        except ParseFailed as error:
            raise rules.bad_text() if error.code == INVALID_DATA else FrameError("a frame is malformed") from error
        return frame, size
