"""What a session asks of its connection, whatever that one speaks."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.asgi.session import Session


class HttpStream(Protocol):
    """The way out of one or many sessions. No verb but ``send_file`` waits; ``drain`` tells when to."""

    def send_informational(self, session: Session, status: int, headers: Headers) -> None:
        """Send an interim answer at once. Raises LocalProtocolError when it cannot be sent."""

    def send_head(self, session: Session, status: int, headers: Headers) -> None:
        """Hold the head until the first ``send_body``. Raises LocalProtocolError when it cannot be sent."""

    def send_answer(self, session: Session, status: int, headers: Headers, data: bytes) -> None:
        """Send a whole answer, as ``send_head`` and a last ``send_body`` would; raises what they raise."""

    def send_body(self, session: Session, data: bytes, end_stream: bool) -> None: ...

    async def send_file(self, session: Session, fd: int, offset: int, count: int, end_stream: bool) -> None:
        """Send ``count`` bytes (one at least) of the open file as ``send_body`` would, at the pace of the peer.

        Returns early when the connection is lost, once the session knows it. Raises OSError when the file cannot be
        read that far; then, and when it is cancelled, the answer cannot be made whole any more.
        """

    def send_trailers(self, session: Session, trailers: Headers) -> None:
        """End the answer; with trailer fields where it can carry some. Raises LocalProtocolError for invalid ones."""

    def reset(self, session: Session) -> None:
        """The answer will never be whole: make sure that the peer cannot take it for one that is."""

    def drain(self, session: Session) -> Awaitable[object] | None:
        """None while the peer reads well enough; else what to await before more is sent."""

    def body_consumed(self, session: Session, size: int) -> None:
        """The app took ``size`` bytes of the request body: the peer may send as many more."""

    def finished(self, session: Session) -> None:
        """The application has returned, or failed; nothing more comes from this session."""


class WebSocketStream(Protocol):
    """The way out of one WebSocket's session. No verb waits; ``drain`` tells when to.

    Until one of ``accept``, ``deny`` and ``deny_head`` comes, nothing is answered.
    """

    def accept(self, subprotocol: str | None, headers: Headers) -> None:
        """Answer the handshake with success. Raises LocalProtocolError when it cannot be sent like that."""

    def deny(self, status: int, headers: Headers, data: bytes) -> None:
        """Answer the handshake with a whole HTTP answer (200 to 599). Raises LocalProtocolError as ``accept`` does."""

    def deny_head(self, status: int, headers: Headers) -> None:
        """The same in pieces: ``deny_body`` follows. Raises LocalProtocolError as ``accept`` does."""

    def deny_body(self, data: bytes, end_stream: bool) -> None: ...

    def send_text(self, text: str) -> None:
        """Send a message. Raises LocalProtocolError for a text with surrogates."""

    def send_binary(self, data: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. Raises LocalProtocolError for what no Close frame can say."""

    def reset(self) -> None:
        """The answer to the handshake will never be whole: make sure that the peer cannot take it for one that is."""

    def drain(self) -> Awaitable[object] | None:
        """None while the peer reads well enough; else what to await before more is sent."""

    def message_consumed(self) -> None:
        """The app took a message from the session: there is room for more."""

    def finished(self) -> None:
        """The application has returned, or failed; nothing more comes from this session."""
