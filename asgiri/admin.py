"""The admin child: tells whoever watches the service how it is, in a process and on a listener of its own.

All that it knows is on the scoreboard, so it answers when every worker is stuck. It never imports the application.

It ends by order of the master, or with it. TERM and QUIT do not end it: service managers and terminals send them to all
processes of a service at once (systemd's KillMode=control-group), and /readyz is to say 503 until the last worker is
done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from setproctitle import setproctitle

from asgiri.child import stacks
from asgiri.child.heart import Heart
from asgiri.child.logs import configure
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
from asgiri.types import Receive, Scope, Send

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
    timeouts=Timeouts(request_head=5.0, request_body=5.0, request=5.0, keep_alive=3.0, write=5.0),
    limits=Limits(header_size=16 * 1024, body_size=64 * 1024, connections=64),
    http2=Http2(initial_window=64 * 1024, max_header_list=16 * 1024),
)


@dataclass(frozen=True, slots=True)
class Page:
    """What a path answers with."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"


# The pages by path; each is made when it is asked for.
Routes = Mapping[str, Callable[[], Page]]

OK = Page(200, b"ok\n", b"text/plain; charset=utf-8")
NOT_FOUND = Page(404, b"not found\n", b"text/plain; charset=utf-8")
NOT_ALLOWED = Page(405, b"only GET and HEAD are answered\n", b"text/plain; charset=utf-8")


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
        become(boot)
        server = Server(Admin(routes(boot.board)), config=SETTINGS, listeners=boot.listeners)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(serve(server, boot, rotation))
    except AsgiriError as error:
        boot.link.report(BootFailed(str(error)))
        return error.exit_code
    return 0


async def serve(server: Server, boot: Boot, rotation: Rotation) -> None:
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
    await told.wait()
    heart.enter(State.DRAINING)
    await server.shutdown(window=RETIRE_SECONDS)
    heart.stop()
    hear_no_more()


def hear(boot: Boot, server: Server, told: asyncio.Event) -> None:
    """Take the orders that have come: each wants it to end, and all but RETIRE at once."""
    loop = asyncio.get_running_loop()
    orders = boot.link.read()
    if orders is None:
        loop.remove_reader(boot.link.fileno())
        logger.warning("the master is gone: exiting")
        end_by_alarm(STOP_SECONDS)
        orders = [Order.STOP]
    if Order.STOP in orders:
        loop.call_later(STOP_SECONDS, server.cut)
    if orders:
        told.set()


def routes(board: Scoreboard) -> Routes:
    """The pages of a service that has this board."""
    health = Health(board)
    return {"/livez": health.live, "/readyz": health.ready}


class Health:
    """The answers to the two questions of those who start, restart and balance."""

    def __init__(self, board: Scoreboard, clock_ns: Callable[[], int] = Scoreboard.now_ns) -> None:
        self._board = board
        self._clock_ns = clock_ns

    def live(self) -> Page:
        """Whether the master is at work: if not, a restart is what helps. Stuck workers are its to deal with."""
        master = self._board.master
        now = self._clock_ns()
        if master.is_fresh(now):
            return OK
        silence = (now - master.beat_ns) / 1e9
        return Page(503, encode({"live": False, "reason": f"the master has been silent for {silence:.1f}s"}))

    def ready(self) -> Page:
        """Whether requests are welcome: half of the workers are enough, as one may be on its way to be replaced.

        Half of those that there have been: more may have been asked for, and are on their way. When another master has
        taken over, its workers are on a board of its own, and what has come here is answered for it.
        """
        master = self._board.master
        now = self._clock_ns()
        wanted = master.wanted
        serving = sum(slot.state is State.SERVING and slot.is_fresh(now) for slot in self._board.workers())
        if not master.announced:
            reason = "the service is starting: its workers have not all been ready yet"
        elif master.draining:
            reason = "the service is draining"
        elif (not serving or 2 * serving < master.reached) and not master.handed_over:
            reason = "less than half of the workers are serving"
        else:
            return Page(200, encode({"ready": True, "workers": {"wanted": wanted, "serving": serving}}))
        return Page(503, encode({"ready": False, "reason": reason, "workers": {"wanted": wanted, "serving": serving}}))


def encode(what: object) -> bytes:
    return msgspec.json.encode(what) + b"\n"


class Admin:
    """The application: the pages by path, for GET and HEAD."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a WebSocket: there is none here, which is a 403
            await send({"type": "websocket.close"})
            return
        make = self._routes.get(scope["path"])
        if make is None:
            page = NOT_FOUND
        elif scope["method"] not in ("GET", "HEAD"):
            page = NOT_ALLOWED
        else:
            page = make()
        headers = [
            (b"content-type", page.content_type),
            (b"content-length", b"%d" % len(page.body)),
            (b"cache-control", b"no-store"),  # the answer of a moment ago is worth nothing
        ]
        if page is NOT_ALLOWED:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body})
