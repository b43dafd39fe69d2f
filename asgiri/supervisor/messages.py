"""What the master and the fleet say to each other: events go in, commands come out. All of it is data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, TypeAlias

from asgiri.errors import ExitCode

if TYPE_CHECKING:
    from asgiri.config.schema import Workers


@dataclass(frozen=True, slots=True)
class Policy:
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

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a fleet has at least one worker, not {self.count}")

    @classmethod
    def of(cls, workers: Workers) -> Policy:
        return cls(
            count=workers.processes,
            boot_timeout=workers.boot_timeout,
            heartbeat_timeout=workers.heartbeat_timeout,
            drain_timeout=workers.drain_timeout,
            drain_delay=workers.drain_delay,
            max_requests=workers.max_requests,
            max_requests_jitter=workers.max_requests_jitter,
            max_memory=workers.max_memory,
            max_lifetime=workers.max_lifetime,
            backoff_first=workers.respawn_backoff.first,
            backoff_most=workers.respawn_backoff.most,
        )

    def scaled(self, by: int) -> Policy:
        return self.sized(self.count + by)

    def sized(self, count: int) -> Policy:
        return replace(self, count=max(1, count))


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


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a worker's slot tells: when it was last heard (monotonic seconds), requests served, resident bytes."""

    heard: float
    served: int = 0
    memory: int = 0


# Events: what the master tells the fleet.


@dataclass(frozen=True, slots=True)
class Start:
    """Fork the first workers."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has booted and serves."""

    worker_id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker says that it cannot boot (no app, lifespan failed); its exit follows."""

    worker_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The worker was reaped, or could not be forked. ``how`` is a verb phrase: "was killed by SIGKILL"."""

    worker_id: int
    how: str
    ending: Ending = Ending.FAILED
    served: int = 0


@dataclass(frozen=True, slots=True)
class Reload:
    """A config that was checked shall become the next generation."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Scale:
    """So many workers more (or fewer), never under one."""

    by: int


@dataclass(frozen=True, slots=True)
class Resize:
    """So many workers, never under one."""

    count: int


@dataclass(frozen=True, slots=True)
class Recycle:
    """Replace all that serve, one by one."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the workers' slots tell, by worker id: once in ``PULSE_EVERY`` seconds, and before each Tick.

    A worker that is missing was not heard.
    """

    vitals: Mapping[int, Vitals]


@dataclass(frozen=True, slots=True)
class HandOver:
    """Another master serves on the same sockets: let the workers finish, then exit."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Let the workers finish, then exit."""


@dataclass(frozen=True, slots=True)
class QuickStop:
    """Exit without waiting for requests."""


@dataclass(frozen=True, slots=True)
class Tick:
    """``deadline()`` has come. Only this makes a worker overdue: feed it after the other news of a wake."""


Event: TypeAlias = (
    Start | Ready | Failed | Exited | Reload | Scale | Resize | Recycle | Pulse | HandOver | Stop | QuickStop | Tick
)


# Commands: what the fleet tells the master.


@dataclass(frozen=True, slots=True)
class Fork:
    """Start a worker. If that fails, answer with ``Exited``."""

    worker_id: int
    number: int
    generation: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the worker to finish; again with STOP when it was retiring already."""

    worker_id: int
    reason: DrainReason


@dataclass(frozen=True, slots=True)
class Kill:
    """Send the signal."""

    worker_id: int
    how: KillHow


@dataclass(frozen=True, slots=True)
class AskStacks:
    """Have the worker write down where it is; a Report with ``stacks`` fetches it."""

    worker_id: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A worker of the candidate generation is READY: it is the current one from here on."""

    generation: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """The reload failed, for ``why``; the current generation goes on as it was."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Settled:
    """No worker of an older generation is left: what only they used can be closed."""

    generation: int


@dataclass(frozen=True, slots=True)
class Announce:
    """All first workers are READY. Given once."""


Level: TypeAlias = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Report:
    """One line for the log; where it is about a worker, with that one's numbers, and if wanted with its stacks."""

    level: Level
    text: str
    worker_id: int = 0
    number: int = 0
    generation: int = 0
    stacks: bool = False


@dataclass(frozen=True, slots=True)
class Exit:
    """The last command: all workers are reaped, the master exits with this code."""

    code: ExitCode


Command: TypeAlias = Fork | Drain | Kill | AskStacks | Commit | Abandon | Settled | Announce | Report | Exit
