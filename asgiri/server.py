"""One server in one process: what a worker runs, and what tests and embedders import.

NEW --start--> STARTING --listening--> SERVING --shutdown--> DRAINING --> STOPPED
                   |                   hold |  ^ release        ^
                   |                        v  |                |
                   |                        HELD --shutdown-----+
                   +- a failing app, a taken address: to STOPPED, and the error is raised
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from asgiri import __version__
from asgiri.asgi.lifespan import Lifespan
from asgiri.asgi.scope import HTTP_EXTENSIONS, AppContext
from asgiri.config.schema import Config, HttpVersion, Tls
from asgiri.equip import loop_factory, response_headers, shared_of, ways_of, with_address
from asgiri.errors import ConfigError, Problem
from asgiri.log.access import this_process
from asgiri.proto.accept import Intake, Share
from asgiri.proto.connection import Connection, ExchangeLog, Shared
from asgiri.proto.detect import Way
from asgiri.proto.drain import STOP_WINDOW, Drain
from asgiri.proto.survey import survey
from asgiri.sockets.bind import bind_all
from asgiri.sockets.listener import Listener
from asgiri.types import ASGIApp

if TYPE_CHECKING:
    from asgiri.metrics.meter import Meter
    from asgiri.proto.transfer import Giver

logger = logging.getLogger("asgiri.server")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# How long the app's shutdown may take in a quick stop, or after a drain that took all of its time, in seconds. With
# what the drain's cancelled applications may take, it is less than the grace after which a master kills.
QUICK_SHUTDOWN = 1.0

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class HttpProtocolVersion(Enum):
    """What a server speaks on all its listeners. AUTO is what each one's ``http`` says: both, unless it says otherwise.

    HTTP_2 without certificates is HTTP/2 by prior knowledge (RFC 9113 section 3.3).
    """

    AUTO = "auto"
    HTTP_1_1 = "http/1.1"
    HTTP_2 = "h2"


VERSIONS: dict[HttpProtocolVersion, tuple[HttpVersion, ...]] = {
    HttpProtocolVersion.AUTO: (),
    HttpProtocolVersion.HTTP_1_1: ("http/1.1",),
    HttpProtocolVersion.HTTP_2: ("h2",),
}


class ServerState(Enum):
    NEW = "new"
    STARTING = "starting"
    SERVING = "serving"
    HELD = "held"
    DRAINING = "draining"
    STOPPED = "stopped"


class Identity(Struct, frozen=True):
    """Which worker of which generation this server is; apps see it in ``scope["extensions"]["asgiri"]``."""

    worker: int = 1
    generation: int = 1


class Post(Struct, frozen=True):
    """What a server is told of its place among others.

    ``ways`` is what :func:`ways_of` made of its listeners, where their files were to be read before its start;
    ``share`` is its part of the connections, without which it takes all that it can. ``transfer`` are the two ends, to
    give and to take, on which connections are handed over under reload: a pair of SOCK_SEQPACKET, not blocking, which
    several servers share. ``meter`` counts and measures, without one nobody does; the server has it all to itself.
    """

    identity: Identity = Identity()
    ways: Sequence[Way] | None = None
    share: Share | None = None
    transfer: tuple[socket.socket, socket.socket] | None = None
    meter: Meter | None = None


class Counts(Struct, frozen=True):
    """How busy a server is: open ``connections`` and running ``requests``, and how many it ``accepted`` and ``served``.

    A WebSocket is a request, and served when it is over.
    """

    connections: int = 0
    requests: int = 0
    accepted: int = 0
    served: int = 0


class Server:
    """Serves one ASGI application on an asyncio loop.

    ``app`` is an ASGI 3 callable. ``host`` and ``port`` (0: any free one) say where to listen when the config's
    ``listen`` is not to be used; ``config`` is a :class:`asgiri.config.schema.Config`. ``certfile`` and ``keyfile``
    (None: it is in ``certfile``) put TLS on every listener that has none. ``listeners`` are bound ones to take instead
    of all these; their binder goes on to own their files. ``access_log`` is told of each exchange, and
    closed by who made it. ``post`` is for one of several processes. Raises ConfigError for what it cannot do.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str | None = None,
        port: int | None = None,
        http_version: HttpProtocolVersion = HttpProtocolVersion.AUTO,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
        config: Config | None = None,
        listeners: Sequence[Listener] | None = None,
        access_log: ExchangeLog | None = None,
        post: Post | None = None,
    ) -> None:
        if config is None or host is not None or port is not None:
            config = with_address(config or Config(), host, port)
        self._tls: Tls | None = None  # of listeners that have none of their own
        if certfile is not None:
            self._tls = Tls(certfile=os.fspath(certfile), keyfile=None if keyfile is None else os.fspath(keyfile))
            config = config.secured(self._tls)
        elif keyfile is not None:
            raise ConfigError([Problem("Server", "keyfile", "there is no certfile for it")])
        self._http = VERSIONS[http_version]
        if self._http:
            config = config.speaking(*self._http)
        self.config = config
        self.state = ServerState.NEW
        self._given = list(listeners) if listeners is not None else None
        self._own: list[Listener] = []
        self._post = post or Post()
        self._access_log = access_log
        self._lifespan = Lifespan(app, config.lifespan)
        self._context = AppContext(app=app, root_path=config.root_path, extensions=extensions(self._post.identity))
        self._shared: Shared | None = None
        self._headers = response_headers(config)
        self._intake: Intake | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._swept_at = 0.0  # in the loop's time
        self._exit = asyncio.Event()
        self._drain = Drain(config)
        self._stopped = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.sockets: list[socket.socket] = []  # what it listens on; ``getsockname()`` tells the port of port 0

    # Ways to run it

    def run(self) -> None:
        """Serve until TERM or INT comes, in this process and on a loop of its own. A second INT, or QUIT, is quick."""
        with asyncio.Runner(loop_factory=loop_factory(self.config.loop)) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # which alone can have signal handlers
            await self.serve()
            return
        serving = asyncio.ensure_future(self.serve())
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number, serving)
        try:
            await asyncio.wait({serving})
            if not (serving.cancelled() and self._exit.is_set()):
                await serving
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int, serving: asyncio.Future[None]) -> None:
        if number == signal.SIGQUIT or (number == signal.SIGINT and self._exit.is_set()):
            self.cut()
        self._exit.set()
        if self.state is ServerState.STARTING:  # nothing is served yet, so there is nothing to finish
            serving.cancel()

    async def serve(self) -> None:
        """Serve in the running loop until :attr:`should_exit` is set or :meth:`shutdown` is called."""
        await self.start()
        try:
            await self._exit.wait()
        finally:
            await self.shutdown()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    @property
    def should_exit(self) -> bool:
        """Set it, from any thread, to make :meth:`serve` drain and return."""
        return self._exit.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if not value:
            raise ValueError("should_exit can be set to True only: a server that stops cannot be held back")
        if self._loop is None:
            self._exit.set()
            return
        try:
            self._loop.call_soon_threadsafe(self._exit.set)
        except RuntimeError:  # the loop is closed: it has exited
            self._exit.set()

    # Start

    async def start(self, before_listening: Callable[[], None] | None = None) -> None:
        """Run the app's startup, then listen. Raises ConfigError, AppError or BindError; then nothing is left open.

        ``before_listening`` is called in between: what must be in place before the first connection is accepted.
        """
        if self.state is not ServerState.NEW:
            raise RuntimeError(f"a server starts once, and this one is {self.state.value}")
        self.state = ServerState.STARTING
        self._loop = asyncio.get_running_loop()
        try:
            ways = self._post.ways
            if ways is None:
                ways = ways_of(self.config, self._given, tls=self._tls, http=self._http)
            await self._lifespan.startup()
            self._context.state = self._lifespan.state
            meter = self._post.meter
            self._shared = shared_of(self.config, self._context, self._loop, self._access_log, self._id_prefix(), meter)
            self._swept_at = self._shared.now
            self._sweep()
            if before_listening is not None:
                before_listening()
            self._listen(self._shared, ways)
        except BaseException:
            await self._close_all()
            raise
        self.state = ServerState.SERVING

    def _listen(self, shared: Shared, ways: Sequence[Way]) -> None:
        listeners = self._given if self._given is not None else bind_all(self.config.listen)
        self._own = [] if self._given is not None else listeners
        self._intake = Intake(shared, self.config.limits.connections, self._post.share)
        for listener, way in zip(listeners, ways, strict=True):
            self._intake.open(listener.sock, listener.url, way.maker(shared), way.secure, way.proxies)
            self.sockets.append(listener.sock)
        if self._post.transfer is not None:
            from asgiri.proto.transfer import Taker  # development alone has it

            self._intake.add(Taker(self._intake, self._post.transfer[1], Way(("http/1.1",)).maker(shared)))

    def swap(self, ways: Sequence[Way]) -> None:
        """Speak this on the listeners from here on, in their order: other certificates, mostly.

        Connections that are open, or within their handshakes, go on as they began.
        """
        if self._intake is None or self._shared is None:
            raise RuntimeError(
                f"only a server that listens can speak in other ways, and this one is {self.state.value}"
            )
        for acceptor, way in zip(self._intake.acceptors, ways, strict=False):  # a Taker is behind those of listeners
            self._intake.swap(acceptor, way.maker(self._shared), way.secure)

    def _id_prefix(self) -> str:
        """What the ids of requests begin with, and those of no other process."""
        return f"{this_process(self._post.identity.worker, self._post.identity.generation).prefix}-"

    @property
    def counts(self) -> Counts:
        """How busy it is, also while it starts and when it has stopped."""
        shared = self._shared
        if shared is None:
            return Counts()
        connections = len(shared.connections) + shared.arriving
        return Counts(connections, len(shared.sessions), shared.accepted, shared.served)

    # The sweep

    def _sweep(self) -> None:
        """Once an interval: read the clock, refresh the date, and ask each connection whether it is overdue."""
        shared = self._shared
        assert shared is not None
        # First of all: a defect in a check is loud, but the timeouts of all the others must outlive it.
        interval = shared.times.sweep_interval()
        self._sweeping = shared.loop.call_later(interval, self._sweep)
        # An application that blocks the loop stops the clock: what arrives meanwhile waits for us, not we for its peer.
        swept_at, self._swept_at = self._swept_at, shared.loop.time()
        shared.now += min(self._swept_at - swept_at, 2 * interval)
        now = shared.now
        self._refresh_headers()
        for connection in list(shared.connections):
            connection.check(now)
        self._measure()

    def _measure(self) -> None:
        """Have the meter, where there is one, count what there is to count."""
        if self._shared is not None and self._shared.meter is not None:
            survey(self._shared, self._shared.meter)

    def _refresh_headers(self) -> None:
        date = [(b"date", http_date(time.time()))] if self.config.date_header else []
        self._context.set_default_headers([*self._headers, *date])

    # Hold

    def hold(self) -> None:
        """Leave what comes to newer code: accept nothing, and read nothing from a connection that is, or becomes, idle.

        What runs goes on. Until :meth:`release`, or a :meth:`shutdown`; when it does not serve, this does nothing.
        """
        if self.state is ServerState.SERVING and self._shared is not None and self._intake is not None:
            self.state = ServerState.HELD
            self._intake.hold()
            self._shared.on_idle = hold
            for connection in list(self._shared.connections):
                connection.hold()

    def release(self) -> None:
        """There is no newer code: take what has come."""
        if self.state is ServerState.HELD and self._shared is not None and self._intake is not None:
            self.state = ServerState.SERVING
            self._shared.on_idle = None
            for connection in list(self._shared.connections):
                connection.release()
            self._intake.release()

    # Stop

    async def shutdown(self, *, window: float = STOP_WINDOW, retiring: bool = False) -> None:
        """Drain and stop: accept no more, finish what is running, then run the app's shutdown.

        Idle connections are kept ``window`` seconds, for what their clients have sent already. What is not finished
        after ``workers.drain_timeout`` is cut and logged. WebSockets are closed at once: with 1012 where another worker
        takes over (``retiring``), else with 1001. Safe to call again: who comes second waits for the first.

        One that is held and retires hands its idle connections over, and keeps none.
        """
        self.should_exit = True
        if self.state is ServerState.HELD and not (retiring and self._post.transfer is not None):
            self.release()
        if self.state in (ServerState.SERVING, ServerState.HELD):
            giver = self._giver() if self.state is ServerState.HELD else None
            self.state = ServerState.DRAINING
            try:
                assert self._shared is not None
                assert self._intake is not None
                await self._drain.run(self._shared, self._intake, window, giver, retiring=retiring)
            finally:
                if giver is not None:
                    giver.close()
                await self._close_all()
                self._stopped.set()
        elif self.state is ServerState.DRAINING:
            self.shorten(window)
            await self._stopped.wait()

    def shorten(self, window: float) -> None:
        """While draining: keep idle connections ``window`` seconds more, and not longer."""
        if self._loop is not None:
            self._loop.call_later(window, self._drain.end_window)

    def _giver(self) -> Giver:
        from asgiri.proto.transfer import Giver  # development alone has it

        assert self._shared is not None
        assert self._post.transfer is not None
        return Giver(self._shared.loop, self._post.transfer[0])

    def cut(self) -> None:
        """Do not wait for what is running any more: the quick stop."""
        self._drain.cut()
        self._lifespan.hurry(QUICK_SHUTDOWN)

    async def _close_all(self) -> None:
        """Leave nothing open, whichever state the start had come to."""
        if self._intake is not None:
            self._intake.abort()
            self._intake.cut()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._lifespan.shutdown(QUICK_SHUTDOWN if self._drain.is_cut else self._drain.left(QUICK_SHUTDOWN))
        for listener in self._own:
            listener.close()
        self._measure()
        self.state = ServerState.STOPPED


def hold(connection: Connection) -> None:
    connection.hold()


def http_date(seconds: float) -> bytes:
    """A moment of Unix time as an IMF-fixdate (RFC 9110 section 5.6.7)."""
    at = time.gmtime(seconds)
    day, month = _DAYS[at.tm_wday], _MONTHS[at.tm_mon - 1]
    return f"{day}, {at.tm_mday:02} {month} {at.tm_year} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT".encode()


def extensions(identity: Identity) -> dict[str, dict[str, Any]]:
    """The scope's extensions that every request of this server has."""
    return HTTP_EXTENSIONS | {
        "asgiri": {
            "worker": identity.worker,
            "generation": identity.generation,
            "pid": os.getpid(),
            "version": __version__,
        }
    }
