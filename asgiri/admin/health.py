"""The answers to the two questions of those who start, restart and balance."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from asgiri.admin.pages import OK, Page, encode
from asgiri.supervisor.scoreboard import Scoreboard, State


class Verdict(Struct, frozen=True):
    """Whether requests are welcome; if not, ``reason`` is why. So many workers are ``wanted``, and so many serve."""

    ready: bool
    reason: str
    wanted: int
    serving: int


class Health:
    """What the board says to them."""

    def __init__(self, board: Scoreboard, clock_ns: Callable[[], int] = Scoreboard.now_ns) -> None:
        self._board = board
        self._clock_ns = clock_ns

    def live(self) -> Page:
        """Whether the master is at work: if not, a restart is what helps. Stuck workers are its to deal with."""
        silence = self.master_silence()
        if silence is None:
            return OK
        return Page(503, encode({"live": False, "reason": f"the master has been silent for {silence:.1f}s"}))

    def ready(self) -> Page:
        """Whether requests are welcome."""
        verdict = self.verdict()
        workers = {"wanted": verdict.wanted, "serving": verdict.serving}
        if verdict.ready:
            return Page(200, encode({"ready": True, "workers": workers}))
        return Page(503, encode({"ready": False, "reason": verdict.reason, "workers": workers}))

    def master_silence(self) -> float | None:
        """How long the master has been silent, in seconds; None while it is at work."""
        master = self._board.master
        now = self._clock_ns()
        return None if master.is_fresh(now) else (now - master.beat_ns) / 1e9

    def verdict(self) -> Verdict:
        """Half of the workers are enough, as one may be on its way to be replaced.

        Half of those that there have been: more may have been asked for, and are on their way. When another master has
        taken over, its workers are on a board of its own, and what has come here is answered for it.
        """
        master = self._board.master
        now = self._clock_ns()
        serving = sum(slot.state is State.SERVING and slot.is_fresh(now) for slot in self._board.workers())
        if not master.announced:
            reason = "the service is starting: its workers have not all been ready yet"
        elif master.draining:
            reason = "the service is draining"
        elif (not serving or 2 * serving < master.reached) and not master.handed_over:
            reason = "less than half of the workers are serving"
        else:
            reason = ""
        return Verdict(not reason, reason, master.wanted, serving)
