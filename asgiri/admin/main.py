"""The admin child's life, from the fork to the exit.

It ends by order of the master, or with it. TERM and QUIT do not end it: service managers and terminals send them to all
processes of a service at once (systemd's KillMode=control-group), and /readyz is to say 503 until the last worker is
done.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from asgiri.admin import document
from asgiri.admin.families import Families
from asgiri.admin.health import Health
from asgiri.admin.history import History
from asgiri.admin.hosts import Hosts
from asgiri.admin.pages import Admin, Page, Question, Routes
from asgiri.admin.status import Reporter
from asgiri.child import stacks
from asgiri.child.heart import Heart
from asgiri.child.logs import adopt_level, configure
from asgiri.child.privileges import become
from asgiri.child.rotation import Rotation
from asgiri.child.ties import end_by_alarm, hear_no_more, limit_orphan, tie_to_master
from asgiri.config.nodes import printable
from asgiri.config.schema import Config, Http2, Limits, Timeouts, Workers
from asgiri.errors import AsgiriError
from asgiri.link import Boot, Booted, BootFailed, Order
from asgiri.log import setup as log
from asgiri.server import Server
from asgiri.supervisor.scoreboard import Scoreboard, State

if TYPE_CHECKING:
    from asgiri.admin.statsd import Pusher

logger = logging.getLogger("asgiri.admin")

# How long connections are kept for what is on its way, in seconds, when another child takes over; and when the service
# stops. With what cutting them takes, less than the master waits for it.
RETIRE_SECONDS = 2.0
STOP_SECONDS = 0.25

# Nothing here is for users to set: it must answer whatever they have set for their application.
SETTINGS = Config(
    listen=(),  # a listener that the master has bound is all there is
    lifespan="off",
    loop="asyncio",
    workers=Workers(drain_timeout=RETIRE_SECONDS),
    # Idle connections go before probes in their usual rhythms of 5s and more come back: none meets one that closes.
    # A head is a line or two, and comes at once: who is slower holds a place that a probe may need.
    timeouts=Timeouts(request_head=2.0, request_body=5.0, request=5.0, keep_alive=3.0, write=5.0),
    limits=Limits(header_size=16 * 1024, body_size=64 * 1024, connections=512),
    http2=Http2(initial_window=64 * 1024, max_header_list=16 * 1024),
)


def main(boot: Boot) -> int:
    """Be the admin child; the exit status. What keeps it from serving is told to the master."""
    tie_to_master(boot.master_pid)
    limit_orphan(boot.master_pid, STOP_SECONDS)
    boot.slot.introduce(os.getpid(), boot.number, boot.generation)
    stacks.register(boot.stacks)
    config = boot.config
    setproctitle(printable(f"{config.process.title}: admin"))
    rotation = Rotation()
    try:
        configure(config, "admin")
        adopt_level(boot)
        complete(boot)
        become(boot)
        history = History(boot.board)
        admin = Admin(routes(boot.board, config, history), Hosts.of(boot.listeners))
        server = Server(admin, config=SETTINGS, listeners=boot.listeners)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(serve(server, boot, rotation, history))
    except AsgiriError as error:
        boot.link.report(BootFailed(str(error)))
        return error.exit_code
    return 0


async def serve(server: Server, boot: Boot, rotation: Rotation, history: History) -> None:
    """Start, say so, serve until told to stop or the master is gone."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    heart = Heart(boot.slot, lambda: server.counts)
    heart.start()

    def take_signals() -> None:
        loop.add_signal_handler(signal.SIGQUIT, lambda: None)
        loop.add_signal_handler(signal.SIGUSR1, log.reopen)
        if rotation.came:
            log.reopen()

    await server.start(take_signals)
    heart.enter(State.SERVING)
    loop.add_reader(boot.link.fileno(), hear, boot, server, told)
    boot.link.report(Booted())
    clock = Clock(history.sample)
    clock.start()
    pusher = start_pusher(boot)
    await told.wait()
    heart.enter(State.DRAINING)
    await server.shutdown(window=RETIRE_SECONDS)
    clock.stop()
    if pusher is not None:
        pusher.stop()
    heart.stop()
    hear_no_more()


def hear(boot: Boot, server: Server, told: asyncio.Event) -> None:
    """Take the orders that have come: but for one about its log, each wants it to end, and all but RETIRE at once."""
    loop = asyncio.get_running_loop()
    orders = boot.link.read()
    if orders is None:
        loop.remove_reader(boot.link.fileno())
        logger.warning("the master is gone: exiting")
        end_by_alarm(STOP_SECONDS)
        orders = [Order.STOP]
    if Order.LOOK in orders:
        adopt_level(boot)
        orders = [order for order in orders if order is not Order.LOOK]
    if Order.STOP in orders:
        loop.call_later(STOP_SECONDS, server.cut)
    if orders:
        told.set()


class Clock:
    """Does something each second, a little after the second has begun, from :meth:`start` to :meth:`stop`."""

    def __init__(self, what: Callable[[], None]) -> None:
        self._what = what
        self._next: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """In the running loop."""
        self._tick(asyncio.get_running_loop())

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next = loop.call_at(math.floor(loop.time()) + 1.05, self._tick, loop)
        self._what()


def complete(boot: Boot) -> None:
    """Have all that will be needed, while it is of this release, and may be read: the user may be another one later."""
    if boot.listeners:
        import asgiri.admin.exposition

        document.document()
    if boot.config.metrics.statsd.address is not None:
        import asgiri.admin.statsd  # noqa: F401


def start_pusher(boot: Boot) -> Pusher | None:
    """What pushes metrics, where the config wants that."""
    statsd = boot.config.metrics.statsd
    if statsd.address is None or not statsd.interval:
        return None
    from asgiri.admin.statsd import Pusher

    pusher = Pusher(statsd, Families(boot.board, boot.config))
    pusher.start()
    return pusher


def routes(board: Scoreboard, config: Config, history: History) -> Routes:
    """The pages of a service that has this board and config."""
    health = Health(board)
    reporter = Reporter(board, config, history)
    families = Families(board, config)

    def metrics(question: Question) -> Page:
        from asgiri.admin.exposition import Exposition  # a service without an admin child pays nothing for it

        return Exposition(families).page(question)

    return {
        "/": document.page,
        "/livez": lambda _question: health.live(),
        "/readyz": lambda _question: health.ready(),
        "/metrics": metrics,
        "/status": reporter.status_page,
        "/history": reporter.history_page,
    }
