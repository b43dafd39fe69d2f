"""What the master and the fleet say to each other: events go in, commands come out. All of it is data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from asgiri.errors import ExitCode

if TYPE_CHECKING:
    from asgiri.config.schema import Config


class Policy(msgspec.Struct, frozen=True):
    """What the fleet needs of one generation's config, by the names of ``workers``. Times in seconds, sizes in bytes.

    A limit or a timeout of 0 is off. Raises ValueError when ``count`` is under 1.
    """

    count: int
    boot_timeout: float = 60.0
    heartbeat_timeout: float = 0.0
    drain_timeout: float = 30.0
    drain_delay: float = 0.0
    max_requests: int = 0
    max_requests_jitter: int = 0
    max_memory: int = 0
    max_lifetime: float = 0.0
    backoff_first: float = 0.1
    backoff_most: float = 10.0
    hold: bool = False  # under reload: requests wait for the newer code

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a fleet has at least one worker, not {self.count}")

    @classmethod
    def of(cls, config: Config) -> Policy:
        workers, reloads = config.workers, config.reload.enabled
        return cls(
            count=workers.processes,
            boot_timeout=workers.boot_timeout,
            heartbeat_timeout=0.0 if reloads else workers.heartbeat_timeout,  # a breakpoint is no hang
            drain_timeout=workers.drain_timeout,
            drain_delay=workers.drain_delay,
            # Who sees another process is to know that it is for a change of the code: nothing wears.
            max_requests=0 if reloads else workers.max_requests,
            max_requests_jitter=workers.max_requests_jitter,
            max_memory=0 if reloads else workers.max_memory,
            max_lifetime=0.0 if reloads else workers.max_lifetime,
            backoff_first=workers.respawn_backoff.first,
            backoff_most=workers.respawn_backoff.most,
            hold=reloads,
        )

    def scaled(self, by: int) -> Policy:
        return self.sized(self.count + by)

    def sized(self, count: int) -> Policy:
        return msgspec.structs.replace(self, count=max(1, count))


class DrainReason(Enum):
    RETIRE = auto()  # replaced or one too many: the others go on serving
    STOP = auto()  # the whole service goes


class KillHow(Enum):
    TERM = auto()
    QUIT = auto()
    ABRT = auto()  # leaves a core file where those are wanted
    KILL = auto()


class Ending(Enum):
    """How a worker ended, as far as that says something about its code."""

    CLEAN = auto()  # status 0
    FAILED = auto()  # another status, or a signal that programs bring on themselves
    KILLED = auto()  # KILL or TERM: somebody else wanted it
    UNFORKED = auto()  # it never began: there was no process to be had


class Vitals(msgspec.Struct, frozen=True):
    """What a worker's slot tells: when it was last heard (monotonic seconds), requests served, resident bytes.

    ``drains``: it has begun to, whoever has asked it.
    """

    heard: float
    served: int = 0
    memory: int = 0
    drains: bool = False


# Events: what the master tells the fleet.


class Start(msgspec.Struct, frozen=True):
    """Fork the first workers."""


class Ready(msgspec.Struct, frozen=True):
    """The worker has booted and serves."""

    worker_id: int


class Failed(msgspec.Struct, frozen=True):
    """The worker says that it cannot boot (no app, lifespan failed); its exit follows."""

    worker_id: int
    why: str


class Exited(msgspec.Struct, frozen=True):
    """The worker was reaped, or could not be forked. ``how`` is a verb phrase: "was killed by SIGKILL"."""

    worker_id: int
    how: str
    ending: Ending = Ending.FAILED
    served: int = 0


class Reload(msgspec.Struct, frozen=True):
    """A config that was checked shall become the next generation."""

    policy: Policy


class Scale(msgspec.Struct, frozen=True):
    """So many workers more (or fewer), never under one."""

    by: int


class Resize(msgspec.Struct, frozen=True):
    """So many workers, never under one."""

    count: int


class Recycle(msgspec.Struct, frozen=True):
    """Replace all that serve, one by one."""


class Pulse(msgspec.Struct, frozen=True):
    """What the workers' slots tell, by worker id: once in ``PULSE_EVERY`` seconds, and before each Tick.

    A worker that is missing was not heard.
    """

    vitals: Mapping[int, Vitals]


class HandOver(msgspec.Struct, frozen=True):
    """Another master serves on the same sockets: let the workers finish, then exit."""


class Stop(msgspec.Struct, frozen=True):
    """Let the workers finish, then exit."""


class QuickStop(msgspec.Struct, frozen=True):
    """Exit without waiting for requests."""


class Tick(msgspec.Struct, frozen=True):
    """``deadline()`` has come. Only this makes a worker overdue: feed it after the other news of a wake."""


Event: TypeAlias = (
    Start | Ready | Failed | Exited | Reload | Scale | Resize | Recycle | Pulse | HandOver | Stop | QuickStop | Tick
)


# Commands: what the fleet tells the master.


class Fork(msgspec.Struct, frozen=True):
    """Start a worker. If that fails, answer with ``Exited``."""

    worker_id: int
    number: int
    generation: int


class Drain(msgspec.Struct, frozen=True):
    """Ask the worker to finish; again with STOP when it was retiring already."""

    worker_id: int
    reason: DrainReason


class Hold(msgspec.Struct, frozen=True):
    """Under reload: have the worker accept nothing, for newer code boots, or serves already."""

    worker_id: int


class Resume(msgspec.Struct, frozen=True):
    """Have a worker that was held go on: the candidate has failed, or the service stops."""

    worker_id: int


class Kill(msgspec.Struct, frozen=True):
    """Send the signal."""

    worker_id: int
    how: KillHow


class AskStacks(msgspec.Struct, frozen=True):
    """Have the worker write down where it is; a Report with ``stacks`` fetches it."""

    worker_id: int


class Commit(msgspec.Struct, frozen=True):
    """A worker of the candidate generation is READY: it is the current one from here on."""

    generation: int


class Abandon(msgspec.Struct, frozen=True):
    """The reload failed, for ``why``; the current generation goes on as it was."""

    generation: int
    why: str


class Settled(msgspec.Struct, frozen=True):
    """No worker of an older generation is left: what only they used can be closed."""

    generation: int


class Announce(msgspec.Struct, frozen=True):
    """All first workers are READY. Given once."""


Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class Report(msgspec.Struct, frozen=True):
    """One line for the log; where it is about a worker, with that one's numbers, and if wanted with its stacks."""

    level: Level
    text: str
    worker_id: int = 0
    number: int = 0
    generation: int = 0
    stacks: bool = False


class Gone(msgspec.Struct, frozen=True):
    """A worker has ended, for the metrics: ``reason`` is one of :data:`asgiri.metrics.catalogue.EXITS`."""

    reason: str


class Exit(msgspec.Struct, frozen=True):
    """The last command: all workers are reaped, the master exits with this code."""

    code: ExitCode


Command: TypeAlias = (
    Fork | Drain | Hold | Resume | Kill | AskStacks | Commit | Abandon | Settled | Announce | Report | Gone | Exit
)
