"""What a connection knows of an exchange with the application, be it a request's or a WebSocket's."""

from __future__ import annotations

import asyncio
from http import HTTPStatus


class Session:
    """Runs the application for one exchange. The connection feeds it; it drives the connection's stream.

    A base class and no Protocol: compiled, its methods are a few times as quick to call.
    """

    buffered = 0  # bytes that the app has not taken yet
    task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Call the application and answer for it when it fails. Raises only CancelledError."""
        raise NotImplementedError

    def body_received(self, data: bytes) -> None:
        """A piece of the request's content has come."""
        raise NotImplementedError

    def body_ended(self) -> None:
        """The request is whole."""
        raise NotImplementedError

    def peer_ended(self) -> None:
        """The peer sends nothing more, though it may still read."""
        raise NotImplementedError

    def lost(self) -> None:
        """The connection is gone, or no answer can be sent any more."""
        raise NotImplementedError

    def answer(self, status: HTTPStatus, reason: str = "", *fields: tuple[bytes, bytes]) -> None:
        """Answer in the application's place; what it sends later is refused as if the peer had gone."""
        raise NotImplementedError

    @property
    def unanswered(self) -> bool:
        """Nothing of the answer is on the wire yet."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """The request as a log line shows it: no byte of the peer's unescaped."""
        raise NotImplementedError

    @property
    def number(self) -> int:
        """The request's number on its connection."""
        raise NotImplementedError
