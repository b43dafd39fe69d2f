"""A worker: what happens in the child, from the fork to the exit.

boot      signals have their default effect; logs, keys and the environment are read, the user is changed, then come the
          application and its lifespan; once there is a loop, it beats
serving   TERM, or an order, begins the drain; QUIT cuts it short; under reload it may be held, and go on
end       the application's exit handlers run
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from traceback import format_exception
from typing import TYPE_CHECKING

from setproctitle import setproctitle

from asgiri import deposit
from asgiri.child import privileges, stacks
from asgiri.child.heart import Heart
from asgiri.child.logs import adopt_level, configure, label
from asgiri.child.rotation import Rotation
from asgiri.child.ties import end_by_alarm, hear_no_more, limit_orphan, tie_to_master
from asgiri.config.envfile import read_env_file
from asgiri.config.nodes import printable
from asgiri.config.schema import Config
from asgiri.equip import load_engines, loop_factory, ways_of
from asgiri.errors import AppError, AsgiriError, ConfigError, ExitCode
from asgiri.link import Boot, Booted, BootFailed, Order
from asgiri.loader import load_app
from asgiri.log import setup as log
from asgiri.log.access import AccessLog, open_access_log, this_process
from asgiri.log.request import noting
from asgiri.metrics.meter import Meter
from asgiri.proto.drain import RETIRE_WINDOW, STOP_WINDOW
from asgiri.server import Counts, Identity, Post, Server
from asgiri.supervisor.scoreboard import State
from asgiri.tracebacks import Trouble, describe
from asgiri.worker.share import BoardShare

if TYPE_CHECKING:
    from asgiri.deposit import Materials
    from asgiri.dev.quiet import QuietLog
    from asgiri.proto.detect import Way
    from asgiri.types import ASGIApp
    from asgiri.worker.development import Development

logger = logging.getLogger("asgiri.worker")

# How much of the heap is kept, and used again, while it is free, in bytes; blocks of up to half of that are part of it.
HEAP_SLACK = 8 << 20

# When a worker that serves imports the engines that it has not needed so far, in seconds: not while a start is timed.
LEFT_OUT_SECONDS = 1.0


def main(boot: Boot) -> int:
    """Be a worker; the exit status. Everything that keeps it from serving is told to the master."""
    config = boot.config
    boot.slot.introduce(os.getpid(), boot.number, boot.generation)
    tie_to_master(boot.master_pid)
    stacks.register(boot.stacks)  # before anything that could hang
    name_process(boot)
    keep_heap()
    rotation = Rotation()
    try:
        configure(config, f"worker {boot.number} gen {boot.generation}", runs_app=True)
        adopt_level(boot)
        with access_log(boot) as access:
            # What may be for root's eyes only; the application gets none of root's power.
            ways = ways_of(config, boot.listeners, materials=materials_of(boot))
            variables = read_environment(config)
            privileges.become(boot)
            os.environ.update(variables)
            worker = Worker(boot, ways, access, rotation)
            worker.load()
            with asyncio.Runner(loop_factory=loop_factory(config.loop)) as runner:
                runner.run(worker.serve())
    except AppError as error:
        boot.link.report(BootFailed(str(error), error.trace, trouble_with(error, config)))
        return ExitCode.APP
    except AsgiriError as error:
        boot.link.report(BootFailed(str(error)))
        return error.exit_code
    except BaseException as error:  # the application may raise KeyboardInterrupt and what else is no Exception
        if boot.slot.state is not State.BOOTING:
            raise
        boot.link.report(BootFailed(f"it crashed: {describe(error)}", "".join(format_exception(error))))
        return ExitCode.FAILED
    return 0


def trouble_with(error: AppError, config: Config) -> Trouble | None:
    """The failure as data; under reload only."""
    if not config.reload.enabled:
        return None
    from asgiri.worker import development

    return development.trouble_with(error)


def keep_heap() -> None:
    """Have the C library keep what large messages have used for the next ones.

    glibc gives the end of the heap back once 128 KiB of it are free, and the next message takes it again page by page:
    up to half of the time of an echo of 64 KiB. The freeing of one large block tells it that such come and go
    (mallopt(3), M_MMAP_THRESHOLD: "dynamic"). Where the user has set MALLOC_TRIM_THRESHOLD_, that holds.
    """
    bytes(HEAP_SLACK // 2)


@contextmanager
def access_log(boot: Boot) -> Iterator[AccessLog | None]:
    """This worker's access log, if the config wants one: written out and closed at the end."""
    config = boot.config.log.access
    if not config.enabled:
        yield None
        return
    access = open_access_log(
        config.file, config.format, this_process(boot.number, boot.generation), call_later, label(boot.config)
    )
    try:
        yield access
    finally:
        access.close()


def call_later(seconds: float, callback: Callable[[], None]) -> None:
    """The timer of the loop that runs, for who was made before the loop was."""
    asyncio.get_running_loop().call_later(seconds, callback)


class Worker:
    """What serves, from the application's import to the end of its drain."""

    def __init__(self, boot: Boot, ways: Sequence[Way], access: AccessLog | None, rotation: Rotation) -> None:
        self._boot = boot
        self._access = access
        self._rotation = rotation
        share = BoardShare(boot.board, boot.slot)
        self._meter = Meter(boot.slot.cells) if boot.config.metrics.enabled else None
        self._ways = ways
        self._post = Post(Identity(boot.number, boot.generation), ways, share, boot.transfer, self._meter)
        self._server: Server | None = None
        self._heart = Heart(boot.slot, self._counts, partial(self._on_beat, share), self._meter)
        self._orders: asyncio.Queue[Order] = asyncio.Queue()  # to finish
        self._dev = self._development()

    def _development(self) -> Development | None:
        if not self._boot.config.reload.enabled:
            return None
        from asgiri.worker.development import Development

        return Development(self._boot)

    def load(self) -> None:
        """Import the application. AppError when that cannot be; under reload an error page may be served."""
        config, dev = self._boot.config, self._dev
        try:
            app = load_app(config.target, app_dir=config.app_dir, factory=config.factory, interface=config.interface)
        except AppError as error:
            if dev is None or not dev.stands_in:
                raise
            app = dev.error_page(error)
        log.enable()  # it may have configured logging
        self._server = self._serving(app)

    def _serving(self, app: ASGIApp) -> Server:
        boot, dev = self._boot, self._dev
        if boot.config.log.capture:
            app = noting(app)
        access: AccessLog | QuietLog | None = self._access
        if dev is not None:
            app, access = dev.wrapped(app), dev.quiet(self._access)
        return Server(app, config=boot.config, listeners=boot.listeners, access_log=access, post=self._post)

    def _on_beat(self, share: BoardShare, now: int) -> None:
        share.refresh(now)
        if self._meter is not None and self._access is not None:
            self._meter.reached("access_log_lines_lost", self._access.lost)

    def _counts(self) -> Counts:
        return Counts() if self._server is None else self._server.counts

    async def serve(self) -> None:
        """Start, say so, serve until told to stop, drain."""
        boot, orders = self._boot, self._orders
        self._heart.start()
        server = await self._started()
        asyncio.get_running_loop().add_reader(boot.link.fileno(), self._hear, server)
        gc.collect()
        gc.freeze()  # what start-up made stays: no later collection needs to look at it
        self._heart.enter(State.SERVING)
        boot.link.report(Booted() if self._dev is None else self._dev.booted())
        asyncio.get_running_loop().call_later(LEFT_OUT_SECONDS, self._load_left_out)
        order = await orders.get()
        self._heart.enter(State.DRAINING)
        if self._dev is not None:
            self._dev.leave()
        draining = asyncio.create_task(
            server.shutdown(window=self._window(order), retiring=order is Order.RETIRE),
        )
        while not draining.done():
            again = asyncio.create_task(orders.get())
            await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
            if again.done():  # retiring, and now the whole service stops: only the window can get shorter
                server.shorten(self._window(again.result()))
            again.cancel()
        await draining
        self._heart.stop()
        hear_no_more()

    def _load_left_out(self) -> None:
        """What a quick start has left out (asgiri.equip), before an installation of another release could change it."""
        try:
            load_engines(self._boot.config)
        except (OSError, ConfigError):  # no descriptor is left; of what is compiled, nothing seems to be installed then
            asyncio.get_running_loop().call_later(LEFT_OUT_SECONDS, self._load_left_out)

    async def _started(self) -> Server:
        """The server, once it serves. AppError when the application's startup fails; or what stands in for that one."""
        assert self._server is not None
        try:
            await self._server.start(self._take_signals)
        except AppError as error:
            if self._dev is None or not self._dev.stands_in:
                raise
            self._server = self._serving(self._dev.error_page(error))
            await self._server.start(self._take_signals)
        log.enable()
        return self._server

    def _take_signals(self) -> None:
        """From here on there may be requests, which a signal must not cut."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._orders.put_nowait, Order.STOP)
        limit_orphan(self._boot.master_pid, self._boot.config.workers.drain_timeout)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)
        loop.add_signal_handler(signal.SIGUSR1, reopen_logs, self._access)
        if self._rotation.came:
            reopen_logs(self._access)

    def _quit(self) -> None:
        if self._server is not None:
            self._server.cut()
        self._orders.put_nowait(Order.STOP)

    def _hear(self, server: Server) -> None:
        """Take the orders that have come; a master that is gone has no more, and leaves nobody to serve for."""
        boot = self._boot
        read = boot.link.read()
        if read is None:
            asyncio.get_running_loop().remove_reader(boot.link.fileno())
            logger.warning("the master is gone: draining")
            end_by_alarm(boot.config.workers.drain_timeout)
            read = [Order.STOP]
        for order in read:
            match order:
                case Order.HOLD:
                    server.hold()
                case Order.RESUME:
                    server.release()
                case Order.RENEW:
                    self._renew(server)
                case Order.LOOK:
                    adopt_level(boot)
                case Order.NEWS:
                    if self._dev is not None:
                        self._dev.hear_news()
                case _:
                    self._orders.put_nowait(order)

    def _renew(self, server: Server) -> None:
        """TLS files have changed."""
        from asgiri.worker.renewal import renewed  # nobody without TLS needs it

        self._ways = renewed(self._boot, server, self._ways)

    def _window(self, order: Order) -> float:
        """How long idle connections are kept, in seconds. At a stop in development, nobody is to be waited for."""
        if order is Order.RETIRE:
            return RETIRE_WINDOW
        return STOP_WINDOW if self._dev is None else 0.0


def materials_of(boot: Boot) -> Materials | None:
    """What is in the TLS files, from the master; None where there are none."""
    return deposit.wait_for(boot.deposit) if boot.deposit >= 0 else None


def reopen_logs(access: AccessLog | None) -> None:
    log.reopen()
    if access is not None:
        access.reopen()


def name_process(boot: Boot) -> None:
    config = boot.config
    setproctitle(printable(f"{config.process.title}: worker {boot.number} gen {boot.generation} [{config.target}]"))


def read_environment(config: Config) -> dict[str, str]:
    """The variables that the application is to see: those of ``env_file``, and over them those of ``env``."""
    return {**(read_env_file(config.env_file) if config.env_file is not None else {}), **config.env}
