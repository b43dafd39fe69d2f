"""The lifespan protocol (ASGI lifespan 2.0): the app's start-up and shutdown, once a worker.

NEW --startup--> STARTING --complete--> UP --shutdown--> STOPPING --complete--> DOWN
                    |  failed, or raised with ``on``: AppError
                    +- raised, or returned, with ``auto``: UNSUPPORTED
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Any

from asgiri.asgi.scope import ASGI_VERSION, LIFESPAN_SPEC_VERSION
from asgiri.errors import AppError
from asgiri.tracebacks import user_traceback
from asgiri.types import ASGIApp, Message

logger = logging.getLogger("asgiri.lifespan")


# How long the app's task may take to return by itself once it has answered, in seconds.
END_SECONDS = 0.3


class LifespanState(Enum):
    NEW = "new"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    DOWN = "down"
    UNSUPPORTED = "unsupported"


class Lifespan:
    """Runs one application's lifespan. ``mode`` is ``auto``, ``on`` or ``off``; ``state`` is the app's namespace."""

    def __init__(self, app: ASGIApp, mode: str = "auto") -> None:
        self._app = app
        self._mode = mode
        self._task: asyncio.Task[None] | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._answered = asyncio.Event()
        self._heard = False  # the app has asked for the startup message
        self._limit: asyncio.Timeout | None = None  # of the shutdown in progress
        self._failure: str | None = None  # the app's own words, from *.failed
        self.phase = LifespanState.NEW
        self.state: dict[str, Any] = {}

    @property
    def is_up(self) -> bool:
        """The app has started and has not been told to stop."""
        return self.phase is LifespanState.UP

    async def startup(self) -> None:
        """Wait until the app has started. AppError when it says, or shows, that it cannot."""
        if self._mode == "off":
            self.phase = LifespanState.UNSUPPORTED
            return
        self.phase = LifespanState.STARTING
        self._task = asyncio.create_task(self._run(), name="asgiri-lifespan")
        self._inbox.put_nowait({"type": "lifespan.startup"})
        try:
            await self._answer()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._failure is not None:
            await self._end()
            reason, trace = self._words()
            raise AppError(f"the application's startup failed: {reason}", trace) from self._exception()
        if not self.is_up:
            self._unsupported(self._task)

    def _unsupported(self, task: asyncio.Task[None]) -> None:
        """The app ended without an answer: for ``auto`` that is an app without a lifespan."""
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        trace = self._error()
        if self._mode == "on":
            how = f"raised {type(error).__name__}" if error else "returned"
            raise AppError(
                f"the application {how} before lifespan.startup was complete (lifespan: on)", trace
            ) from error
        self.phase = LifespanState.UNSUPPORTED
        if error is not None and self._heard:
            # The spec says to go on; an app that was in the middle of starting up deserves to be heard all the same.
            logger.warning(
                "the application raised %s while it handled lifespan.startup; it is taken for one without a "
                "lifespan (lifespan: on makes this an error)",
                type(error).__name__,
                extra={"trace": trace},
            )

    async def shutdown(self, timeout: float | None = None) -> None:
        """Tell the app to shut down and wait for it, ``timeout`` seconds at most. Failures are logged, not raised."""
        if not self.is_up or self._task is None:
            return
        self.phase = LifespanState.STOPPING
        self._answered.clear()
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        try:
            async with asyncio.timeout(timeout) as self._limit:
                await self._answer()
        except TimeoutError:
            logger.error("the application did not finish its lifespan.shutdown in time; it is cut off")
            self._task.cancel()
        self._limit = None
        await self._end()
        if self._failure is not None:
            reason, trace = self._words()
            logger.error("the application's shutdown failed: %s", reason, extra={"trace": trace})
        elif trace := self._error():
            logger.error("the application raised during its shutdown", extra={"trace": trace})
        self.phase = LifespanState.DOWN

    def hurry(self, timeout: float) -> None:
        """Give a shutdown that is in progress ``timeout`` seconds more, and no longer."""
        if self.phase is LifespanState.STOPPING and self._limit is not None:
            end = asyncio.get_running_loop().time() + timeout
            due = self._limit.when()
            self._limit.reschedule(end if due is None else min(due, end))

    async def _answer(self) -> None:
        """Wait until the app has answered or ended, whichever comes first."""
        assert self._task is not None
        answered = asyncio.create_task(self._answered.wait())
        try:
            await asyncio.wait({answered, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()

    async def _end(self) -> None:
        """Let the app's task finish, or make it."""
        task = self._task
        if task is None:
            return
        if not task.done():
            await asyncio.wait({task}, timeout=END_SECONDS)
            task.cancel()
        _, stuck = await asyncio.wait({task}, timeout=END_SECONDS)
        if stuck:
            logger.error("the application's lifespan task does not end, not even when it is cancelled")

    def _words(self) -> tuple[str, str]:
        """The failure in one line, and a traceback: frameworks send a whole one as the failure's message."""
        message = (self._failure or "").strip()
        lines = message.splitlines()
        if len(lines) > 1:
            return lines[-1], self._error() or message
        return message or "it gave no reason", self._error()

    def _error(self) -> str:
        """The traceback of an app that has ended with an error; empty otherwise."""
        error = self._exception()
        return user_traceback(error) if error else ""

    def _exception(self) -> BaseException | None:
        task = self._task
        return None if task is None or not task.done() or task.cancelled() else task.exception()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": ASGI_VERSION, "spec_version": LIFESPAN_SPEC_VERSION},
            "state": self.state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except SystemExit as error:  # asyncio would end the whole process with it, and nobody would know why
            self._failure = f"it called sys.exit({error.code!r})"
            self._answered.set()

    async def _receive(self) -> Message:
        self._heard = True
        return await self._inbox.get()

    async def _send(self, message: Message) -> None:
        match self.phase, message["type"]:
            case LifespanState.STARTING, "lifespan.startup.complete":
                self.phase = LifespanState.UP
            case LifespanState.STARTING, "lifespan.startup.failed":
                self._failure = str(message.get("message", ""))
            case LifespanState.STOPPING, "lifespan.shutdown.complete":
                pass
            case LifespanState.STOPPING, "lifespan.shutdown.failed":
                self._failure = str(message.get("message", ""))
            case phase, kind:
                raise RuntimeError(f"message type {kind!r} does not belong here: the lifespan is {phase.value}")
        self._answered.set()
