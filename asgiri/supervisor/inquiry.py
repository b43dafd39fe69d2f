"""Stacks that somebody wants to see now: the workers are asked at once, and the answer follows when it is whole.

Nothing here waits. The master comes back each LOOK_EVERY seconds, and when PATIENCE is over what there is by then is
the answer: a worker that is stuck in C has told of its threads, and cannot tell of its tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from asgiri.supervisor.stacks import ASK, MOST
from asgiri.supervisor.verbs import WorkerStacks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asgiri.supervisor.children import Child
    from asgiri.supervisor.control import Call

LOOK_EVERY: Final = 0.02  # seconds
PATIENCE: Final = 1.0  # seconds
ALL_MOST: Final = 4 << 20  # bytes of one answer, which its workers share


class _Inquiry(Struct, eq=False):
    call: Call
    until: float
    most: int  # bytes of each worker
    waits: dict[int, Child]  # by pid
    told: list[WorkerStacks] = field(default_factory=list)

    def tell(self, child: Child, note: str = "") -> None:
        role, text = child.role, child.stacks.read(self.most)
        whole = "\n\n".join(part for part in (text, note) if part)
        self.told.append(WorkerStacks(role.number, role.generation, child.pid, whole))
        self.waits.pop(child.pid, None)

    def answer(self) -> None:
        told = sorted(self.told, key=lambda one: (one.number, one.generation, one.pid))
        self.call.reply({"workers": told})


class Inquiries:
    """Those that are under way. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._all: list[_Inquiry] = []

    def begin(self, children: Iterable[Child], call: Call, now: float) -> None:
        """Answer the call with the stacks of these children."""
        asked = list(children)
        inquiry = _Inquiry(call, now + PATIENCE, min(MOST, ALL_MOST // max(1, len(asked))), {})
        for child in asked:
            # Who is asked already is not asked again: what it has written for the other one would be lost.
            if self._is_asked(child) or child.stacks.ask(child.pid):
                inquiry.waits[child.pid] = child
            else:
                inquiry.tell(child, f"(not asked: {ASK.name} would end it, the application has reset its handler)")
        self._all.append(inquiry)

    def _is_asked(self, child: Child) -> bool:
        return any(child.pid in inquiry.waits for inquiry in self._all)

    def deadline(self, now: float) -> float | None:
        """When to look again; None when nobody waits."""
        return now + LOOK_EVERY if self._all else None

    def look(self, now: float) -> None:
        """Take what is whole, or overdue, and answer who has waited for it."""
        for inquiry in self._all:
            for child in list(inquiry.waits.values()):
                if child.stacks.is_whole:
                    inquiry.tell(child)
                elif now >= inquiry.until:
                    inquiry.tell(child, _excuse(child))
        done = [inquiry for inquiry in self._all if not inquiry.waits]
        self._all = [inquiry for inquiry in self._all if inquiry.waits]
        for inquiry in done:
            inquiry.answer()

    def note_end(self, child: Child) -> None:
        """It is reaped, and its stacks are about to be closed."""
        for inquiry in self._all:
            if child.pid in inquiry.waits:
                inquiry.tell(child, "(it has ended meanwhile)")


def _excuse(child: Child) -> str:
    """Why a text is not whole."""
    if child.is_stopped:
        return "(it is stopped, by a signal or a debugger)"
    if child.stacks.read(1):
        return f"(no asyncio tasks: its main thread has not been back in Python for {PATIENCE:g}s)"
    return f"(it has written nothing within {PATIENCE:g}s)"
