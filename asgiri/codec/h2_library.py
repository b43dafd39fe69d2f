"""The h2 library as the reference HTTP/2 engine has it: its streams and windows, with what it does not do itself.

Where the client's bytes are: the PREFACE, then SETTINGS, the frame that must follow it, then FRAMES, or a BLOCK of
headers that only CONTINUATION may follow; CLOSED is behind an error or the peer's end.

    PREFACE --all of it--> SETTINGS --SETTINGS--> FRAMES --HEADERS without END_HEADERS--> BLOCK --END_HEADERS--> FRAMES

Where a stream is (RFC 9113 section 5.1) is told by its request and by its answer:

    Input   OPEN --a refusal--> DEAF    OPEN, DEAF --END_STREAM--> WHOLE
    Output  NONE --the head--> BEGUN --all of the content is given--> DONE

It is over once its request is WHOLE and its answer is out, or a reset has gone either way.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from asgiri.codec.events import Event
from asgiri.codec.h2_budget import Budget
from asgiri.codec.h2_sending import Outgoing, Sender
from asgiri.codec.h2_wire import (
    DEFAULT_WINDOW,
    HEAD_SIZE,
    MOST_STREAM_ID,
    PREFACE,
    ConnectionFault,
    ErrorCode,
    Http2Options,
    rst_stream,
    settings_frame,
    window_update,
)

# Of h2's own, in bytes.
GOAWAY_SIZE: Final = HEAD_SIZE + 8
# Streams that we have reset and still know.
MOST_RESET: Final = 1024
# What h2 gives no credit for is credited in pieces of so many bytes.
WORTH_CREDIT: Final = 16 << 10


class Phase(Enum):
    PREFACE = "preface"
    SETTINGS = "settings"
    FRAMES = "frames"
    BLOCK = "block"
    CLOSED = "closed"


class Input(Enum):
    OPEN = "open"
    DEAF = "deaf"
    WHOLE = "whole"


class Output(Enum):
    NONE = "none"
    BEGUN = "begun"
    DONE = "done"


class Stream(Outgoing):
    """One stream that is not over."""

    def __init__(self, stream_id: int, window: int, end_stream: bool) -> None:
        super().__init__(stream_id, window)
        self.input = Input.WHOLE if end_stream else Input.OPEN
        self.output = Output.NONE
        self.method = ""
        self.left: int | None = None  # bytes of body that Content-Length lets come
        self.size = 0  # bytes of body so far
        self.debt = 0  # bytes of body that the application has not taken
        self.silent = False  # its answer may have no content
        self.tunnel = False  # an extended CONNECT: its halves end each by itself


class Block:
    """A header block that is not complete."""

    def __init__(self, stream_id: int, end_stream: bool) -> None:
        self.stream_id = stream_id
        self.end_stream = end_stream
        self.pieces: list[bytes] = []
        self.size = 0
        self.continuations = -1


class Connection(H2Connection):
    MAX_CLOSED_STREAMS = MOST_RESET


def connection(options: Http2Options) -> H2Connection:
    """h2 behind both prefaces, and what it would write: credit for the connection."""
    h2 = Connection(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    # RFC 9113 section 6.5.3: a smaller window binds the peer once it has acknowledged it.
    first_window = max(options.initial_window, DEFAULT_WINDOW)
    h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = MOST_STREAM_ID  # they are counted here
    h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = first_window
    h2.local_settings[SettingCodes.MAX_FRAME_SIZE] = h2.max_inbound_frame_size = options.max_frame_size
    h2.local_settings.acknowledge()
    if options.initial_window < first_window:
        h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = options.initial_window
    h2.decoder.max_header_list_size = options.most_decoded
    h2.initiate_connection()
    h2.receive_data(PREFACE)
    h2.clear_outbound_data_buffer()  # our SETTINGS are not h2's
    if options.connection_window > DEFAULT_WINDOW:
        h2.increment_flow_control_window(options.connection_window - DEFAULT_WINDOW)
    return h2


class Library:
    """One connection's h2, its streams, and what waits to be written."""

    def __init__(self, options: Http2Options) -> None:
        self._options = options
        self._h2 = connection(options)
        self._out = [settings_frame(options.settings()), self._h2.data_to_send()]
        self._unread = 0  # bytes of frames that the peer has called for and that were not taken
        self._budget = Budget()
        self._sender = Sender(self._budget)
        self._phase = Phase.PREFACE
        self._rest = bytearray()  # of a frame, or of the preface, that is not all here
        self._block: Block | None = None
        self._events: list[Event] = []
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the highest stream that the peer has begun
        self._refuse_above = MOST_STREAM_ID  # by our GOAWAY
        self._ended = 0  # answers that are complete and not taken: the peer cannot know yet that their streams are over
        self._reset: dict[int, None] = {}  # streams that we have reset, the oldest first: what comes of them is dropped
        self._gaps: list[range] = []  # numbers of streams that the peer has left out
        self._priorities: dict[int, tuple[int, bool]] = {}  # of streams that are to come
        self._pings = 0  # of ours, not answered yet
        self._unseen = 0  # bytes of DATA that h2 did not see: the connection's window has not got them back
        self._spent = 0  # bytes of DATA that it saw, and gives no credit for

    # What h2 is told

    def _feed(self, approved: bytes) -> None:
        try:
            self._h2.receive_data(approved)
        except ProtocolError as error:
            self._out.append(self._h2.data_to_send()[:-GOAWAY_SIZE])  # ours follows
            raise ConnectionFault(ErrorCode(error.error_code), "the h2 library refuses a frame") from error

    def _is_idle(self, stream_id: int) -> bool:
        return stream_id > self._last or not stream_id & 1

    def _check_begun(self, stream_id: int) -> None:
        if self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame is on a stream that was not begun")

    def _refuse(self, stream_id: int, code: int) -> None:
        """Reset a stream that h2 does not know, or not any more."""
        self._gather()
        self._out.append(rst_stream(stream_id, code))
        self._called_for()
        self._remember(stream_id)

    def _reset_stream(self, stream: Stream, code: int) -> None:
        self._h2.reset_stream(stream.stream_id, code)
        self._called_for()
        self._forget(stream)
        self._remember(stream.stream_id)

    def _remember(self, stream_id: int) -> None:
        self._reset[stream_id] = None
        if len(self._reset) > MOST_RESET:
            del self._reset[next(iter(self._reset))]

    def _forget(self, stream: Stream) -> None:
        """The stream is over, in h2 too. What nobody has taken of its body goes back to the connection's window."""
        del self._streams[stream.stream_id]
        self._sender.drop(stream)
        self._give_back(stream.debt)
        stream.debt = 0

    def _credit(self, stream: Stream, size: int, is_whole: bool) -> None:
        """DATA that h2 has seen is taken: credit for both windows, as far as anything still comes."""
        if is_whole:
            self._give_back(size)
        elif self._phase is not Phase.CLOSED:
            self._h2.acknowledge_received_data(size, stream.stream_id)

    def _give_back(self, size: int) -> None:
        """DATA that h2 has seen: credit for the connection alone, which h2 does not know to give."""
        self._spent += size
        if self._spent >= self._worth_credit and self._phase is not Phase.CLOSED:
            self._h2.increment_flow_control_window(self._spent)
            self._spent = 0

    def _drop_data(self, size: int) -> None:
        """DATA that h2 does not see: it counts for the connection's window all the same (section 5.1)."""
        self._unseen += size
        if self._unseen >= self._worth_credit:
            self._gather()
            self._out.append(window_update(0, self._unseen))
            self._called_for()
            self._unseen = 0

    @property
    def _worth_credit(self) -> int:
        return min(WORTH_CREDIT, self._options.connection_window // 2)

    # What is written

    def _called_for(self) -> None:
        """The peer has made us write a frame; ``receive`` stops when it does not read what it calls for."""
        self._unread += HEAD_SIZE + 4

    def _gather(self) -> None:
        """What h2 has made goes before what comes."""
        made = self._h2.data_to_send()
        if made:
            self._out.append(made)

    @property
    def last_stream_id(self) -> int:
        return min(self._last, self._refuse_above)
