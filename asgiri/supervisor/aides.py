"""The master's side of children that are no workers: it runs what their policy, the sidecar's, commands."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct, field

from asgiri.config.schema import Config
from asgiri.link import Booted, BootFailed, ChildMain, Report
from asgiri.sockets.listener import Listener
from asgiri.supervisor.children import NOTHING_LENT, Child, Children, Lent, Role
from asgiri.supervisor.messages import Event, Stop, Tick
from asgiri.supervisor.messages import Report as Line
from asgiri.supervisor.sidecar import (
    ChildExited,
    ChildFailed,
    ChildPulse,
    ChildReady,
    ForkChild,
    KillChild,
    Sidecar,
    SidecarEvent,
    TellChild,
)

if TYPE_CHECKING:
    from asgiri.supervisor.plans import Plans

logger = logging.getLogger("asgiri.master")


class Outfit(Struct, frozen=True, eq=False):
    """What a child of some plan is given."""

    generation: int
    config: Config
    listeners: list[Listener] = field(default_factory=list)
    lent: Lent = NOTHING_LENT


class Aide:
    """One such child, or none. ``outfit`` says what a child of a plan is given.

    ``hear`` takes what it reports, but for that it cannot boot: what the fleet is to hear of that. One that has
    nothing to finish is killed where others are told to go: ``abrupt``. One that ``beats`` is replaced when it hangs.
    """

    def __init__(
        self,
        name: str,
        main: ChildMain,
        plans: Plans,
        children: Callable[[], Children],
        outfit: Callable[[int], Outfit],
        hear: Callable[[Report], Iterable[Event]] = lambda _report: (),
        *,
        abrupt: bool = False,
        beats: bool = False,
    ) -> None:
        self._main = main
        self._plans = plans
        self._children = children
        self._outfit = outfit
        self._hear = hear
        self._abrupt = abrupt
        self._beats = beats
        self._name = name
        self._policy = Sidecar(name)
        self._by_id: dict[int, Child] = {}
        self._pending: list[SidecarEvent] = []

    @property
    def plans(self) -> set[int]:
        """The plans that it still needs."""
        return self._policy.plans

    @property
    def is_gone(self) -> bool:
        return self._policy.is_gone

    def deadline(self) -> float | None:
        return self._policy.deadline()

    def owns(self, child: Child) -> bool:
        return self._by_id.get(child.role.id) is child

    def feed(self, event: SidecarEvent) -> None:
        """Give the policy an event and run what it commands, and what comes of that in turn."""
        self._pending.append(event)
        while self._pending:
            for command in self._policy.handle(self._pending.pop(0), time.monotonic()):
                match command:
                    case ForkChild(child_id, plan):
                        self._fork(child_id, plan)
                    case TellChild(child_id, reason):
                        if child := self._by_id.get(child_id):
                            child.kill(signal.SIGKILL) if self._abrupt else child.tell(reason)
                    case KillChild(child_id):
                        if child := self._by_id.get(child_id):
                            child.kill(signal.SIGKILL)
                    case Line(level, text):
                        logger.log(logging.getLevelNamesMapping()[level.upper()], text)

    def pulse(self, now_ns: int) -> None:
        """Once a second: see whether its loop turns."""
        if self._beats:
            for child_id, child in list(self._by_id.items()):
                self.feed(ChildPulse(child_id, child.slot.is_fresh(now_ns)))

    def kill(self) -> None:
        """It hangs: whatever it is, another one comes in its place."""
        for child in self._by_id.values():
            child.kill(signal.SIGKILL)

    def hear(self, child: Child) -> Iterator[Event]:
        """Its link has something to say. What one says that is replaced already is not passed on as the new one's."""
        for report in self._children().reports(child):
            match report:
                case Booted():
                    self.feed(ChildReady(child.role.id))
                    if child.role.id == max(self._by_id):
                        yield from self._hear(report)
                case BootFailed(message):
                    self.feed(ChildFailed(child.role.id, message))
                case _:
                    yield from self._hear(report)

    def note_exit(self, child: Child, how: str) -> None:
        """It was reaped."""
        self._by_id.pop(child.role.id, None)
        self.feed(ChildExited(child.role.id, how))

    def _fork(self, child_id: int, plan: int) -> None:
        outfit = self._outfit(plan)
        role = Role(self._main, child_id, 0, outfit.generation, self._name)
        try:
            self._by_id[child_id] = self._children().fork(
                role, outfit.config, outfit.listeners, self._plans.listeners, outfit.lent
            )
        except OSError as error:
            self._pending.append(ChildExited(child_id, f"could not be forked: {error.strerror}"))


class Aides:
    """All of them, as the master's loop and its stops see them."""

    def __init__(self) -> None:
        self._all: list[Aide] = []

    def add(self, aide: Aide) -> Aide:
        self._all.append(aide)
        return aide

    @property
    def is_gone(self) -> bool:
        return all(aide.is_gone for aide in self._all)

    def deadline(self) -> float | None:
        return min((at for aide in self._all if (at := aide.deadline()) is not None), default=None)

    def pulse(self, now_ns: int) -> None:
        for aide in self._all:
            aide.pulse(now_ns)

    def tick(self, now: float) -> None:
        for aide in self._all:
            if (at := aide.deadline()) is not None and at <= now:
                aide.feed(Tick())

    def stop(self) -> None:
        for aide in self._all:
            aide.feed(Stop())

    def hear(self, child: Child) -> Iterator[Event]:
        for aide in self._all:
            if aide.owns(child):
                yield from aide.hear(child)

    def note_exit(self, child: Child, how: str) -> None:
        for aide in self._all:
            if aide.owns(child):
                aide.note_exit(child, how)
