"""What every HTTP engine can do. Four kinds of method: bytes in, sends, bytes out, and questions."""

from __future__ import annotations

from typing import Protocol

from asgiri.codec.events import Event
from asgiri.types import Headers


class HttpCodec(Protocol):
    """One connection's HTTP, sans-I/O.

    The ``send_*`` verbs raise LocalProtocolError, and leave the codec as it was, when the head cannot be sent as
    it is (a field with CR, LF or NUL, a status that is none). What they make waits until :meth:`take`.
    """

    def receive(self, data: bytes) -> list[Event]:
        """Events that ``data`` completes; ``b""`` is the peer's end of file. Never raises for a peer's bytes."""
        ...

    sent: int  # bytes of content of the present answer so far, without its framing

    def send_informational(self, stream_id: int, status: int, headers: Headers) -> None:
        """An interim answer, 100 to 199 (RFC 9110 section 15.2)."""
        ...

    def send_head(self, stream_id: int, status: int, headers: Headers) -> None:
        """The head of the final answer; the engine chooses the framing from its fields."""
        ...

    def send_body(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """A piece of the answer's content; dropped where the answer may have none (HEAD, 204, 304)."""
        ...

    def begin_raw(self, stream_id: int, size: int) -> bool:
        """Announce ``size`` bytes of content that the connection writes itself, behind what :meth:`take` gives now.

        False when there is nothing to write: the answer may have no content, or ``size`` is 0.
        """
        ...

    def end_raw(self, stream_id: int, end_stream: bool) -> None:
        """These bytes are written; called only when :meth:`begin_raw` said True."""
        ...

    def send_trailers(self, stream_id: int, trailers: Headers) -> None:
        """End the answer with trailer fields; they are dropped where the framing has no place for them.

        Raises LocalProtocolError for fields that may not be any (RFC 9110 section 6.5.1).
        """
        ...

    def take(self) -> bytes:
        """The bytes to write that gathered since the last call."""
        ...


class Http1Codec(HttpCodec, Protocol):
    """HTTP/1.1 has one exchange at a time, so it adds the step from one to the next."""

    @property
    def reusable(self) -> bool:
        """The exchange is over on both sides and another may follow (RFC 9112 section 9.3)."""
        ...

    @property
    def closing(self) -> bool:
        """The answer is complete and has said, or implied, that the connection ends with it."""
        ...

    @property
    def pending(self) -> bool:
        """Bytes beyond the present request have come and wait for :meth:`next_request`."""
        ...

    rest: bytes  # what has come and was not read yet; behind a whole request, what is of the next ones

    def renew(self) -> bool:
        """Leave the exchange when it is over and nothing of the next one has come; whether that was so."""
        ...

    def answer(self, stream_id: int, status: int, headers: Headers, data: bytes) -> bytes:
        """A whole answer at once: what ``send_head``, ``send_body`` and :meth:`take` give, for less."""
        ...

    def next_request(self) -> list[Event]:
        """Leave the exchange that is over; events of the next one, as far as its bytes are here."""
        ...
