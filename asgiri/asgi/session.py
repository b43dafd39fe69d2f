"""What a connection knows of an exchange with the application, be it a request's or a WebSocket's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

from asgiri.asgi.calls import run
from asgiri.asgi.scope import AppContext
from asgiri.codec.events import Request
from asgiri.tracebacks import user_traceback
from asgiri.types import Message, Scope

logger = logging.getLogger("asgiri.app")

# How long an application may send without a wait until everybody else gets a turn (seconds): a peer that reads as fast
# as it sends asks for no wait. The clock is looked at once in so many times.
LONGEST_BREATH: Final = 0.002
LOOK_EVERY: Final = 8


class Session:
    """Runs the application for one exchange. The connection feeds it; it drives the connection's stream.

    A base class and no Protocol: compiled, its methods are a few times as quick to call.
    """

    buffered = 0  # bytes that the app has not taken yet
    task: asyncio.Task[None] | None = None

    _sends = 0  # since it has last taken a message
    _turn_at = 0.0

    _request: Request
    _scope: Scope
    _context: AppContext

    def run(self) -> Coroutine[Any, Any, None]:
        """Call the application and answer for it when it fails: a coroutine, which raises only CancelledError."""
        return run(self, self._context.app, self._scope)

    # What the application asks for; the coroutines that it calls are in calls.py

    def next_message(self) -> Message | None:
        """The next event for the application; None: there is none, and :meth:`news` is to be awaited."""
        raise NotImplementedError

    def news(self) -> Awaitable[object]:
        """What brings the next event, maybe."""
        raise NotImplementedError

    def take(self, message: Message) -> Awaitable[object] | None:
        """Take one event of the application's; gives what is to be awaited before it goes on, if there is anything.

        Raises ClientDisconnectedError (an OSError) once the peer is gone, RuntimeError for a message that does not
        belong here, TypeError and ValueError for ill-formed ones.
        """
        raise NotImplementedError

    def breath(self) -> Awaitable[object] | None:
        """What an application that sends on and on awaits before the next time, if it has had its time."""
        self._sends += 1
        if self._sends % LOOK_EVERY:
            return None
        now = monotonic()
        if self._sends == LOOK_EVERY:
            self._turn_at = now
        elif now - self._turn_at >= LONGEST_BREATH:
            self._turn_at = now
            return asyncio.sleep(0)
        return None

    @property
    def has_listener(self) -> bool:
        """Somebody may be waiting for :meth:`news`, and is to hear of a disconnect before a send fails."""
        return False

    def check_connected(self) -> None:
        """Raise ClientDisconnectedError when the peer has gone during a wait."""
        raise NotImplementedError

    # What becomes of an application that is through

    def ended(self, error: BaseException | None) -> None:
        """It has returned, or raised ``error``."""
        try:
            if error is None:
                self._returned()
            elif self._was_told(error):
                self._give_up()
            else:
                self._fail(f"failed: {type(error).__name__}", user_traceback(error))
        finally:
            self._finished()

    def cancelled(self) -> None:
        """It was cancelled."""
        try:
            self._give_up()
        finally:
            self._finished()

    def _fail(self, what: str, trace: str) -> None:
        about = {"request_id": self._request.id}
        logger.error("the application %s (%s)", what, self.summary, extra={"trace": trace, "about": about})
        self._give_up()

    def _returned(self) -> None:
        raise NotImplementedError

    def _was_told(self, error: BaseException) -> bool:
        """Whether the application was told that the peer has gone, and let the news pass through: nothing is wrong."""
        raise NotImplementedError

    def _give_up(self) -> None:
        """End what the application has not ended."""
        raise NotImplementedError

    def _finished(self) -> None:
        """Tell the stream that the application is through."""
        raise NotImplementedError

    # What the connection tells, and asks

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
    def is_stream(self) -> bool:
        """What it sends may have no end of its own: it is a WebSocket, or an answer that has begun and is not whole."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """The request as a log line shows it: no byte of the peer's unescaped."""
        raise NotImplementedError

    @property
    def number(self) -> int:
        """The request's number on its connection."""
        raise NotImplementedError
