"""The master's side of the admin child: runs the commands of its policy, :mod:`asgiri.supervisor.sidecar`."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable

from asgiri.link import Booted, BootFailed, ChildMain
from asgiri.supervisor.children import Child, Children, Role
from asgiri.supervisor.messages import Report
from asgiri.supervisor.plans import Plans
from asgiri.supervisor.sidecar import (
    ChildExited,
    ChildFailed,
    ChildReady,
    ForkChild,
    KillChild,
    Sidecar,
    SidecarEvent,
    TellChild,
)

logger = logging.getLogger("asgiri.master")


class Admin:
    """The admin child, or none; its plans are the generations whose config it has."""

    def __init__(self, main: ChildMain, plans: Plans, children: Callable[[], Children]) -> None:
        self._main = main
        self._plans = plans
        self._children = children
        self._policy = Sidecar("admin")
        self._by_id: dict[int, Child] = {}
        self._pending: list[SidecarEvent] = []

    @property
    def plans(self) -> set[int]:
        """The generations whose plan it still needs."""
        return self._policy.plans

    @property
    def is_gone(self) -> bool:
        return self._policy.is_gone

    def deadline(self) -> float | None:
        return self._policy.deadline()

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
                            child.tell(reason)
                    case KillChild(child_id):
                        if child := self._by_id.get(child_id):
                            child.kill(signal.SIGKILL)
                    case Report(level, text):
                        logger.log(logging.getLevelNamesMapping()[level.upper()], text)

    def hear(self, child: Child) -> None:
        """Its link has something to say."""
        for report in self._children().reports(child):
            match report:
                case Booted():
                    self.feed(ChildReady(child.role.id))
                case BootFailed(message):
                    self.feed(ChildFailed(child.role.id, message))

    def note_exit(self, child: Child, how: str) -> None:
        """It was reaped."""
        self._by_id.pop(child.role.id, None)
        self.feed(ChildExited(child.role.id, how))

    def _fork(self, child_id: int, generation: int) -> None:
        plan = self._plans[generation]
        role = Role(self._main, child_id, 0, generation)
        try:
            self._by_id[child_id] = self._children().fork(role, plan.config, plan.admin, self._plans.listeners)
        except OSError as error:
            self._pending.append(ChildExited(child_id, f"could not be forked: {error.strerror}"))
