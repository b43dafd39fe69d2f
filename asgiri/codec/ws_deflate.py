"""permessage-deflate (RFC 7692): what is agreed on, and the two directions of it.

An idle WebSocket holds nothing of it: the compressors are made when the first message needs them, and where there is no
context takeover they are gone with it.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from asgiri.codec.contract import Deflate
from asgiri.codec.ws_rules import INVALID_DATA, FrameError

NAME: Final = b"permessage-deflate"

# The parameters of one offer, in its order; None where there is no value.
Offer = list[tuple[bytes, bytes | None]]

# What we ask for, in bits, where the client lets us: a window of 4 KiB. Of a message's like the last 4 KiB know nearly
# all that 32 KiB do, and a connection holds 32 KiB for deflating instead of 256 (zlib.h: 1 << bits + 2, and as much
# again for the hash chains, by MEMORY), and 12 KiB for inflating instead of 40.
WINDOW: Final = 12
# zlib has no window of 8 bits when it deflates.
LEAST_WINDOW: Final = 9
WINDOWS: Final = {str(bits).encode(): bits for bits in range(8, 16)}

# zlib's memLevel, and the level that gives most of what the highest one does for half of the time.
MEMORY: Final = 5
LEVEL: Final = 3
# Messages that are smaller, in bytes, fit a packet anyway, and are sent as they are.
SMALL: Final = 256
# RFC 7692 section 7.2.1: what an empty block without compression ends with. It is left out at the end of a message.
TRAILER: Final = b"\x00\x00\xff\xff"
# What an inflater is given at the end: the rest of that block, and one more. Where it is in the middle of another block
# it finds content in them, or a mistake, and so such messages are told from whole ones.
ENDING: Final = TRAILER + b"\x00" + TRAILER
SLICE: Final = 1 << 10


# Negotiation


def agree(offers: list[Offer]) -> Deflate | None:
    """The first of the offers that can be accepted (RFC 7692 section 5), as it is accepted; None for none of them."""
    for offer in offers:
        deflate = accepted(offer)
        if deflate is not None:
            return deflate
    return None


def accepted(offer: Offer) -> Deflate | None:
    """RFC 7692 section 7.1; None declines: a parameter that is unknown, there twice, or whose value is none of it."""
    given = dict(offer)
    if len(given) < len(offer):
        return None
    # Section 7.1.1.1: a promise that the client wants, and section 7.1.1.2: one that it gives. Neither has a value.
    server_alone = given.pop(b"server_no_context_takeover", b"")
    client_alone = given.pop(b"client_no_context_takeover", b"")
    if server_alone or client_alone:
        return None
    server = client = 15
    # Section 7.1.2.1: the client wants a window no larger than that. We may choose a smaller one unasked.
    bits = given.pop(b"server_max_window_bits", b"15")
    server = min(WINDOWS.get(bits or b"", 0), WINDOW)
    # Section 7.1.2.2: without it the client cannot be told anything; without a value it takes whatever it is told.
    if b"client_max_window_bits" in given:
        bits = given.pop(b"client_max_window_bits")
        client = WINDOW if bits is None else min(WINDOWS.get(bits, 0), WINDOW)
    if given or server < LEAST_WINDOW or not client:
        return None
    return Deflate(server_alone is None, client_alone is None, server, client)


def answer(deflate: Deflate) -> bytes:
    """The value of Sec-WebSocket-Extensions that says so."""
    parts = [NAME]
    if deflate.server_no_context_takeover:
        parts.append(b"server_no_context_takeover")
    if deflate.client_no_context_takeover:
        parts.append(b"client_no_context_takeover")
    if deflate.server_max_window_bits < 15:
        parts.append(b"server_max_window_bits=%d" % deflate.server_max_window_bits)
    if deflate.client_max_window_bits < 15:
        parts.append(b"client_max_window_bits=%d" % deflate.client_max_window_bits)
    return b"; ".join(parts)


# Both directions


class Deflater:
    """Compresses whole messages (RFC 7692 section 7.2.1)."""

    __slots__ = ("_alone", "_bits", "_zlib")

    def __init__(self, deflate: Deflate) -> None:
        self._alone = deflate.server_no_context_takeover
        self._bits = deflate.server_max_window_bits
        self._zlib: Any = None  # made by the first message, and kept for the next ones

    def deflate(self, data: bytes) -> bytes:
        """The payload of a compressed message; ``b""`` when it had better be sent as it is."""
        if len(data) < SMALL:  # RFC 7692 section 6: each message may be compressed or not
            return b""
        compressor = self._zlib
        if compressor is None:
            compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, -self._bits, MEMORY)
            if not self._alone:
                self._zlib = compressor
        packed: bytes = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        # With takeover it has to be sent now, whatever its size is: the next message may refer to it.
        if self._alone and len(packed) > len(data):
            return b""
        return packed[: -len(TRAILER)]


class Inflater:
    """Inflates messages piece by piece, and never further than it is told to (RFC 7692 section 7.2.2)."""

    __slots__ = ("_alone", "_begun", "_bits", "_zlib")

    def __init__(self, deflate: Deflate) -> None:
        self._alone = deflate.client_no_context_takeover
        self._bits = max(deflate.client_max_window_bits, LEAST_WINDOW)
        self._begun = False  # something has come of the message
        self._zlib: Any = None

    def inflate(self, data: bytes, room: int) -> bytes:
        """What the next piece of a message holds, up to ``room`` bytes, and one more where there are too many.

        Raises FrameError for what is no deflated data.
        """
        if not data:
            return b""
        self._begun = True
        try:
            if self._zlib is None or self._zlib.eof:
                self._zlib = zlib.decompressobj(-self._bits)
            out: bytes = self._zlib.decompress(data, room + 1)
            if self._zlib.eof and self._zlib.unused_data:
                out = b"".join([out, *self._behind_final(self._zlib.unused_data, room - len(out))])
        except zlib.error as error:
            raise broken() from error
        return out

    def _behind_final(self, data: bytes, room: int) -> list[bytes]:
        """Section 7.2.3.4: blocks may follow a final one. They refer to nothing before it, for it ends a stream."""
        pieces = []
        at = 0
        while at < len(data) and room >= 0:
            if self._zlib.eof:
                self._zlib = zlib.decompressobj(-self._bits)
            # In slices, for zlib makes a copy of all that is behind a final block, and there may be many.
            piece = data[at : at + SLICE]
            out = self._zlib.decompress(piece, room + 1)
            at += len(piece) - len(self._zlib.unused_data)
            room -= len(out)
            pieces.append(out)
        return pieces

    def end(self) -> None:
        """The message is complete. Raises FrameError if it ends in the middle of a block.

        A message that holds nothing at all is an empty one: zlib gives that when it is flushed twice.
        """
        if self._begun:
            self._begun = False
            try:
                # A final block that nothing follows ends a message as well.
                if not self._zlib.eof and (self._zlib.decompress(ENDING, 1) or self._zlib.eof):
                    raise broken()
            except zlib.error as error:
                raise broken() from error
        if self._alone:
            self._zlib = None


def broken() -> FrameError:
    """The frames are good, and what they hold is not what it should be: the code of RFC 6455 for that is 1007."""
    return FrameError("the compressed message is malformed", INVALID_DATA)
