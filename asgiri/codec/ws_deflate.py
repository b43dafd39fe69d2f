"""permessage-deflate (RFC 7692): what is agreed on, and the two directions of it.

An idle WebSocket holds nothing of it: the compressors are made when the first message needs them, and where there is no
context takeover they are gone with it.
"""

from __future__ import annotations

from typing import Final

from asgiri.codec.contract import Deflate

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
