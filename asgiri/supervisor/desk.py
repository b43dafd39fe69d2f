"""The desk: what is asked over the control socket, as events for the fleet, and the answers.

Who asks for a reload and waits is answered when that is decided: with its generation, or with what has failed. A reload
that another one replaces before it has begun is decided by that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from asgiri.supervisor.messages import Event, Recycle, Resize
from asgiri.supervisor.verbs import (
    AskDrain,
    AskRecycle,
    AskReload,
    AskScale,
    AskStatus,
    AskStop,
    Request,
    ServiceStatus,
)

if TYPE_CHECKING:
    from asgiri.config.changes import Change
    from asgiri.supervisor.control import Call


class Desk:
    """``reload`` begins one, and returns why not, and events; ``stop``, ``drain`` and ``status`` do what they say.

    Once ``is_stopping``, nothing can be asked that a service which goes would not do, or would look well again by.
    """

    def __init__(
        self,
        *,
        reload: Callable[[str], tuple[str, list[Event]]],
        stop: Callable[[str], list[Event]],
        drain: Callable[[bool], None],
        status: Callable[[], ServiceStatus],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._reload = reload
        self._stop = stop
        self._drain = drain
        self._status = status
        self._is_stopping = is_stopping
        self._submitted: list[Call] = []  # they wait for a reload that has no number yet
        self._begun: dict[int, list[Call]] = {}  # by generation

    def answer(self, request: Request, call: Call) -> Iterable[Event]:
        match request:
            case AskStatus():
                call.reply(self._status())
            case AskReload(wait):
                return self._answer_reload(call, wait)
            case AskScale() | AskRecycle() | AskDrain() if self._is_stopping():
                call.fail("the service stops")
            case AskScale(count):
                call.reply({"count": count})
                return [Resize(count)]
            case AskRecycle():
                call.reply({})
                return [Recycle()]
            case AskDrain(off):
                self._drain(not off)
                call.reply({"draining": not off})
            case AskStop():
                call.reply({})
                return self._stop("asgirictl")
        return []

    def _answer_reload(self, call: Call, wait: bool) -> list[Event]:
        refused, events = self._reload("asgirictl")
        if refused:
            call.fail(refused)
        elif wait:
            self._submitted.append(call)
        else:
            call.reply({})
        return events

    def note_begun(self, generation: int) -> None:
        """The newest reload has this number."""
        if self._submitted:
            self._begun[generation] = self._submitted
            self._submitted = []

    def note_failed(self, generation: int, why: str, trace: str) -> None:
        for call in self._begun.pop(generation, []):
            call.fail(f"the reload failed: {why}", trace)

    def note_settled(self, generation: int, changes: Sequence[Change]) -> None:
        """A generation serves; ``changes`` are those of its config."""
        changed = [str(change) for change in changes if not change.stays]
        stays = [str(change) for change in changes if change.stays]
        for number in [number for number in self._begun if number <= generation]:
            for call in self._begun.pop(number):
                call.reply({"generation": generation, "changed": changed, "stays": stays})

    def note_stop(self) -> None:
        """No reload will be decided any more."""
        for call in [*self._submitted, *(call for calls in self._begun.values() for call in calls)]:
            call.fail("the service stops")
        self._submitted, self._begun = [], {}
