"""The drain of a server: nothing new is accepted, what runs is finished, and what takes too long is cut.

run: acceptors close, what the loop knows of is read, connections are told
  -> window: idle ones are kept, for what their clients have sent already     until all is quiet, or it is over
  -> rest: answers are finished; under reload, streams are cut after a second until all is quiet, or the time is up
  -> what is left is cut off, and logged
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from asgiri.config.schema import Config
from asgiri.proto.accept import Intake
from asgiri.proto.connection import Shared

if TYPE_CHECKING:
    from asgiri.proto.transfer import Giver

logger = logging.getLogger("asgiri.server")

# How long idle keep-alive connections are kept for one more request, in seconds. On a stop, nobody will take over:
# the window only has to cover what is on its way. On a retirement, it covers clients that come back now and then.
STOP_WINDOW = 1.0
RETIRE_WINDOW = 5.0
# How long to go on accepting until nobody waits to be: with other processes on a busy socket, somebody always does.
TAKE_OVER_SECONDS = 0.5
# How long cancelled applications may take to clean up, in seconds.
CUT_SECONDS = 0.5
# Under reload, how long a drain lets streams and WebSockets be, in seconds: nobody waits for the end of those.
STREAM_SECONDS = 1.0
# Turns of the loop in which it reads what it knows of.
TURNS = 4

# Close codes of WebSockets (RFC 6455 section 7.4.1, and 1012 in IANA's registry).
GOING_AWAY = 1001
SERVICE_RESTART = 1012


class Drain:
    """The one drain of a server. It may be cut before it begins: then it waits for nothing."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._deadline: float | None = None  # in the loop's time
        self._loop: asyncio.AbstractEventLoop | None = None  # there once it has begun
        self._cut = asyncio.Event()  # a quick stop was asked for
        self._window_over = asyncio.Event()  # idle connections are kept no longer

    @property
    def is_cut(self) -> bool:
        """A quick stop was asked for."""
        return self._cut.is_set()

    def cut(self) -> None:
        """Do not wait for what is running any more."""
        self._window_over.set()
        self._cut.set()

    def end_window(self) -> None:
        """Keep idle connections no longer."""
        self._window_over.set()

    async def run(self, shared: Shared, intake: Intake, window: float, giver: Giver | None, *, retiring: bool) -> None:
        """Drain; idle connections are kept ``window`` seconds.

        ``giver`` is there where they are handed over instead; ``retiring``: another worker takes over.
        """
        config = self._config
        loop = self._loop = shared.loop
        timeout = config.workers.drain_timeout
        self._deadline = loop.time() + timeout if timeout else None
        await intake.close(min(TAKE_OVER_SECONDS, timeout or TAKE_OVER_SECONDS))
        shared.draining = True
        shared.drain_code = SERVICE_RESTART if retiring else GOING_AWAY
        open_now = len(shared.connections) + shared.arriving
        logger.log(config.routine, "draining (connections: %d, requests: %d)", open_now, len(shared.sessions))
        if giver is not None:
            await self._hand_over(shared, giver)
            window = STOP_WINDOW if giver.kept else 0.0
        for _ in range(TURNS):  # what the loop knows of by now is read
            await asyncio.sleep(0)
        for connection in list(shared.connections):
            connection.begin_drain()
        left = self.left()
        loop.call_later(window if left is None else min(window, left), self.end_window)
        await self._quiet(shared, self._window_over, None)
        for connection in list(shared.connections):
            connection.close_idle()
        intake.cut()
        # An answer that began before the drain did not say close: its connection gets a window of its own after it.
        shared.times = replace(shared.times, keep_alive=min(shared.times.keep_alive or window, max(window, 0.001)))
        if config.reload.enabled:
            left = self.left()
            await self._quiet(shared, self._cut, STREAM_SECONDS if left is None else min(STREAM_SECONDS, left))
            self._cut_streams(shared)
        await self._quiet(shared, self._cut, self.left())
        await self._cut_off(shared)

    async def _hand_over(self, shared: Shared, giver: Giver) -> None:
        """Give away what is idle, and from here on what becomes so."""
        shared.on_idle = giver.offer
        for connection in list(shared.connections):
            giver.offer(connection)
        await giver.done()
        if giver.given:
            logger.debug("handed over: %d connections", giver.given)

    def _cut_streams(self, shared: Shared) -> None:
        """Under reload: end what may have no end of its own. What comes instead of it is there already."""
        for session in list(shared.sessions):
            if session.is_stream:
                logger.debug("cut off: %s", session.summary)
                shared.cancel(session)
        for connection in list(shared.connections):
            connection.cut_stream()

    def left(self, least: float = 0.0) -> float | None:
        """Seconds until the drain must be over, ``least`` at least; None without a limit."""
        if self._deadline is None or self._loop is None:
            return None
        return max(least, self._deadline - self._loop.time())

    async def _quiet(self, shared: Shared, until: asyncio.Event, timeout: float | None) -> None:
        """Wait until no connection and no application is left, until ``until``, or for ``timeout`` seconds."""
        quiet = asyncio.Event()
        shared.on_quiet = quiet.set
        if not shared.quiet:
            waits = {asyncio.ensure_future(quiet.wait()), asyncio.ensure_future(until.wait())}
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _cut_off(self, shared: Shared) -> None:
        """End what the drain could not, and say what it was."""
        for session in list(shared.sessions):
            logger.warning("cut off while stopping: %s", session.summary)
            shared.cancel(session)
        for connection in list(shared.connections):
            connection.abort()
        await self._quiet(shared, asyncio.Event(), CUT_SECONDS)
