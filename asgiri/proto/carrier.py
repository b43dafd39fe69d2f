"""What carries a protocol of its own: the byte stream below it, HTTP/1.1's after a 101 or a stream of HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

from asgiri.types import Headers

# Bytes that are given at once to a protocol that makes much of few. A DATA frame of HTTP/2 has no more, unless
# ``http2.max_frame_size`` lets it.
PORTION: Final = 16 << 10


class Carrier(Protocol):
    """A byte stream that begins with a request, and is one once that is accepted.

    :class:`asgiri.proto.http11_tunnel.Http11Tunnel` and :class:`asgiri.proto.http2_stream.HTTP2StreamTransport` are.
    No verb waits; what is asked of a carrier that is gone does nothing.
    """

    # The answer to the request: one of these

    def accept(self, headers: Headers) -> None:
        """Answer with success. Bytes of the peer's come once :meth:`resume_reading` is called.

        Raises LocalProtocolError, and nothing has happened, for fields that cannot be sent.
        """

    def deny(self, status: int, headers: Headers, data: bytes) -> None:
        """Answer with a whole HTTP answer, and be no carrier any more. Raises LocalProtocolError as ``accept`` does."""

    def deny_head(self, status: int, headers: Headers) -> None:
        """The same in pieces: :meth:`deny_body` follows. Raises LocalProtocolError as ``accept`` does."""

    def deny_body(self, data: bytes, end_stream: bool) -> None: ...

    def drain(self) -> Awaitable[object] | None:
        """What to await before more of such an answer; None: nothing, or ``pause_writing`` of the protocol tells."""

    # The bytes

    def write(self, data: bytes) -> None: ...

    def flush_soon(self, at_once: bool) -> None:
        """Have :meth:`Carried.push` called at the end of the loop's turn.

        ``at_once``: nothing more is likely to follow in this turn, so it may be called now where that serves better.
        """

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    @property
    def unsent(self) -> int:
        """Bytes written that the peer, or the kernel, has not taken."""

    # Its end

    def close(self) -> None:
        """End our side once what was written is out; what still comes is thrown away."""

    def linger(self) -> None:
        """The same for a peer that may go on sending: it gets time to read what was written."""

    def abort(self) -> None:
        """Cut it, whatever waits."""


class Carried(asyncio.Protocol):
    """A protocol on a carrier: told what asyncio protocols are told, and what the server's connections are.

    Told of the peer's end before the request is answered, it says that the carrier is to stay open, and is told again.
    """

    __slots__ = ()

    def push(self) -> None:
        """Write what waits."""

    def portion(self, data: bytes, at: int) -> int:
        """How many bytes from ``at`` on, which come next, may be given at once: :data:`PORTION` at least.

        It may pause behind them. More than there are: all.
        """
        return max(PORTION, len(data) - at)

    def check(self, now: float) -> None:
        """Act on what is overdue at ``now``, monotonic seconds. Called by each sweep."""

    def begin_drain(self) -> None:
        """The server drains from now on."""
