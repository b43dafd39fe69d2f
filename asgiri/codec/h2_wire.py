"""What HTTP/2 looks like on the wire (RFC 9113 sections 4, 6 and 7), and whose error is whose. Nothing here acts."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from asgiri.codec.rules import HttpLimits

# RFC 9113 section 3.4: what a client begins with, before its SETTINGS frame.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE: Final = 9  # of a frame, section 4.1

# Flags, section 6. ACK is of SETTINGS and PING.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

# Section 6.9.1: no window is larger; stream identifiers have as many bits (section 4.1).
MOST_WINDOW: Final = (1 << 31) - 1
MOST_STREAM_ID: Final = (1 << 31) - 1
# Section 6.9.2: both windows, until somebody says otherwise.
DEFAULT_WINDOW: Final = 65_535
# Section 4.2: what everybody must take, and the most that anybody may ask for, in bytes of payload.
LEAST_FRAME: Final = 1 << 14
MOST_FRAME: Final = (1 << 24) - 1
# RFC 7541 section 4.2 with RFC 9113 section 6.5.2: the size of both dynamic tables until somebody says otherwise.
DEFAULT_TABLE: Final = 4096
# A header list for which there is no limit must end somewhere, in bytes.
ENDLESS: Final = 1 << 20


class FrameType(IntEnum):
    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10  # RFC 9218 section 7.1


class ErrorCode(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """RFC 9113 section 6.5.2, RFC 8441 section 3, RFC 9218 section 2.1."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    ENABLE_CONNECT_PROTOCOL = 0x8
    NO_RFC7540_PRIORITIES = 0x9


class ConnectionFault(Exception):  # noqa: N818 - Python has a ConnectionError already
    """The peer broke the connection: GOAWAY with ``code``, then its end (RFC 9113 section 5.4.1)."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):  # noqa: N818 - as the other
    """The peer broke one stream: RST_STREAM with ``code``, and the others go on (RFC 9113 section 5.4.2)."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Http2Options:
    """What this side allows a peer; sizes in bytes. ``max_header_list`` 0 is no limit of its own (1 MiB then)."""

    limits: HttpLimits = field(default_factory=HttpLimits)
    max_concurrent_streams: int = 128
    initial_window: int = 1 << 20
    max_frame_size: int = LEAST_FRAME
    max_header_list: int = 64 << 10
    connect_protocol: bool = True

    @property
    def connection_window(self) -> int:
        """The receive window of the whole connection: what a peer can make us hold whose requests nobody reads.

        That of four streams, so that one upload that its application does not read does not stop the others; no
        more, for each connection may take so much memory.
        """
        return max(DEFAULT_WINDOW, min(self.initial_window * min(self.max_concurrent_streams, 4), MOST_WINDOW))

    @property
    def header_list(self) -> int:
        """The most that a header list may have, in HPACK's count (RFC 7541 section 4.1), to be served at all."""
        return self.max_header_list or ENDLESS

    @property
    def most_block(self) -> int:
        """A header block that is longer than this ends the connection: reading on would only feed it.

        Twice what is served: up to there the block is decoded, so that its request gets a 431.
        """
        return 2 * self.header_list

    @property
    def most_decoded(self) -> int:
        """A header list that is larger than this, in HPACK's count, is a bomb, and ends the connection."""
        return 16 * self.header_list

    def settings(self) -> list[tuple[Setting, int]]:
        """What the server's preface says (RFC 9113 section 3.4)."""
        settings = [
            (Setting.MAX_CONCURRENT_STREAMS, self.max_concurrent_streams),
            (Setting.INITIAL_WINDOW_SIZE, self.initial_window),
            (Setting.MAX_FRAME_SIZE, self.max_frame_size),
            (Setting.NO_RFC7540_PRIORITIES, 1),
        ]
        if self.max_header_list:
            settings.append((Setting.MAX_HEADER_LIST_SIZE, self.max_header_list))
        if self.connect_protocol:
            settings.append((Setting.ENABLE_CONNECT_PROTOCOL, 1))
        return settings


pack_head = struct.Struct(">IBI").pack  # of size << 8 | type, flags, stream: the nine bytes of section 4.1
pack_setting = struct.Struct(">HI").pack
pack_u32 = struct.Struct(">I").pack


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return pack_head(len(payload) << 8 | kind, flags, stream_id) + payload


def settings_frame(settings: list[tuple[Setting, int]]) -> bytes:
    return frame(FrameType.SETTINGS, 0, 0, b"".join([pack_setting(*setting) for setting in settings]))


def window_update(stream_id: int, size: int) -> bytes:
    """``stream_id`` 0 is the connection."""
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, pack_u32(size))


def rst_stream(stream_id: int, code: int) -> bytes:
    return frame(FrameType.RST_STREAM, 0, stream_id, pack_u32(code))


def goaway(last_stream_id: int, code: int) -> bytes:
    return frame(FrameType.GOAWAY, 0, 0, pack_u32(last_stream_id) + pack_u32(code))


def header_frames(stream_id: int, block: bytes, end_stream: bool, size: int) -> bytes:
    """HEADERS, and CONTINUATION frames where the block is longer than ``size``, the peer's largest payload."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= size:
        return frame(FrameType.HEADERS, flags | END_HEADERS, stream_id, block)
    frames = [frame(FrameType.HEADERS, flags, stream_id, block[:size])]
    for begin in range(size, len(block), size):
        last = END_HEADERS if begin + size >= len(block) else 0
        frames.append(frame(FrameType.CONTINUATION, last, stream_id, block[begin : begin + size]))
    return b"".join(frames)
