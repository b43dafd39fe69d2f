"""What a session asks of its connection, whatever that one speaks."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

from asgiri.types import Headers

if TYPE_CHECKING:
    from asgiri.asgi.http import HttpSession


class HttpStream(Protocol):
    """The way out of one or many sessions. No verb but ``send_file`` waits; ``drain`` tells when to."""

    def send_informational(self, session: HttpSession, status: int, headers: Headers) -> None:
        """Send an interim answer at once. Raises LocalProtocolError when it cannot be sent."""

    def send_head(self, session: HttpSession, status: int, headers: Headers) -> None:
        """Hold the head until the first ``send_body``. Raises LocalProtocolError when it cannot be sent."""

    def send_answer(self, session: HttpSession, status: int, headers: Headers, data: bytes) -> None:
        """Send a whole answer, as ``send_head`` and a last ``send_body`` would; raises what they raise."""

    def send_body(self, session: HttpSession, data: bytes, end_stream: bool) -> None: ...

    async def send_file(self, session: HttpSession, fd: int, offset: int, count: int, end_stream: bool) -> None:
        """Send ``count`` bytes (one at least) of the open file as ``send_body`` would, at the pace of the peer.

        Returns early when the connection is lost, once the session knows it. Raises OSError when the file cannot be
        read that far; then, and when it is cancelled, the answer cannot be made whole any more.
        """

    def send_trailers(self, session: HttpSession, trailers: Headers) -> None:
        """End the answer; with trailer fields where it can carry some. Raises LocalProtocolError for invalid ones."""

    def reset(self, session: HttpSession) -> None:
        """The answer will never be whole: make sure that the peer cannot take it for one that is."""

    def drain(self, session: HttpSession) -> Awaitable[object] | None:
        """None while the peer reads well enough; else what to await before more is sent."""

    def body_consumed(self, session: HttpSession, size: int) -> None:
        """The app took ``size`` bytes of the request body: the peer may send as many more."""

    def request_id(self, session: HttpSession) -> str:
        """What the logs call this request."""

    def finished(self, session: HttpSession) -> None:
        """The application has returned, or failed; nothing more comes from this session."""
