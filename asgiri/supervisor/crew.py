"""One worker as the fleet sees it: its state, its deadlines, and what wears it out. Pure."""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct

from asgiri.units import format_duration

if TYPE_CHECKING:
    from asgiri.supervisor.messages import KillHow, Policy, Vitals

HEALTHY_AFTER = 10.0  # seconds of READY after which a worker counts as healthy
SPREAD = 0.1  # the part of a limit that chance may take away, so that workers of one age do not go together


class WorkerState(Enum):
    BOOTING = auto()  # forked, not yet READY
    READY = auto()  # serving
    HUNG = auto()  # was serving and is silent; its stacks are awaited
    STUCK = auto()  # was not READY in time; its stacks are awaited
    DRAINING = auto()  # asked to finish
    FAILED = auto()  # said itself that it cannot boot; exit awaited
    KILLED = auto()  # signal sent; exit awaited


class Limits(Struct, frozen=True):
    """What one worker may come to before it is recycled: requests, bytes, seconds. 0 is any."""

    requests: int
    memory: int
    lifetime: float

    @classmethod
    def of(cls, policy: Policy, spread: float) -> Limits:
        """A worker's own limits; ``spread``, from 0 to 1, is its lot."""
        requests = policy.max_requests
        return cls(
            requests=requests and requests + round(policy.max_requests_jitter * spread),
            memory=math.ceil(policy.max_memory * (1 - SPREAD * spread)),  # up: 0 is no limit
            lifetime=policy.max_lifetime * (1 - SPREAD * spread),
        )


class Worker(Struct):
    """The parent's view of one worker: in ``state`` since ``since``, forked at ``born``."""

    id: int  # unique as long as the fleet lives
    number: int  # what people see; an old worker and its replacement share one
    generation: int
    policy: Policy  # the one it was forked under
    limits: Limits
    state: WorkerState
    since: float
    born: float
    deadline: float | None = None  # when it is overdue in this state
    sent: KillHow | None = None  # the last signal
    heard: float = 0.0  # when its event loop last turned, moved on by what the master itself was late
    worn: str = ""  # why it is to be recycled
    worn_by: str = ""  # the same by the metrics' name
    reason: str = ""  # why it goes, by the metrics' names; empty: nobody has wanted it to
    trouble: str = ""  # what its stacks are told with
    held: bool = False  # it is told to leave what comes to newer code

    def __str__(self) -> str:
        return f"worker {self.number} gen {self.generation}"

    def is_young(self, now: float) -> bool:
        """It has not been in its state for long enough to be called healthy."""
        return now - self.since < HEALTHY_AFTER

    def age(self, now: float) -> str:
        return format_duration(round(now - self.born, 1))

    def goes_for(self, reason: str) -> None:
        """What makes it go; what comes on top of that changes nothing."""
        self.reason = self.reason or reason

    @property
    def ended_for(self) -> str:
        """Now that it is reaped: why, by the metrics' names (:data:`asgiri.metrics.catalogue.EXITS`)."""
        return self.reason or ("boot" if self.state is WorkerState.BOOTING else "crashed")

    def wear(self, vitals: Vitals, now: float) -> tuple[str, str]:
        """Why it is to be recycled, by the metrics' name and as a sentence about it; both empty when it is not."""
        limits = self.limits
        if limits.requests and vitals.served >= limits.requests:
            return "max_requests", f"it has served {vitals.served} requests"
        # One that is over its size from the start would be replaced in a circle: as slowly as that is healthy.
        if limits.memory and vitals.memory >= limits.memory and not self.is_young(now):
            return "max_memory", f"it has grown to {vitals.memory >> 20}MiB"
        if limits.lifetime and now - self.born >= limits.lifetime:
            return "max_lifetime", f"it has lived for {self.age(now)}"
        return "", ""
