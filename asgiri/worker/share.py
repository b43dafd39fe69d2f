"""A worker's share of the connections: no more than the others have, and a little.

The kernel wakes whoever waits first, or all at once, and the quickest gets the connection. With long-lived ones that
ends with one worker that has most of them. So a worker that is over its share lets the others go first, for a moment.
"""

from __future__ import annotations

import sys
from typing import Final

from asgiri.supervisor.scoreboard import Scoreboard, Slot, State

# What a worker may have more than the mean: a part of it, and a number, so that a handful of short connections is not
# handed about from worker to worker.
TOLERANCE: Final = 1.05
SLACK: Final = 4


class BoardShare:
    """The share of the worker with this slot on the board."""

    def __init__(self, board: Scoreboard, slot: Slot) -> None:
        self._board = board
        self._slot = slot
        self._peers: list[Slot] = []

    def refresh(self, now_ns: int) -> None:
        """Look who else serves. Who has not shown for long that it does is not counted on: it will accept nothing."""
        self._peers = [peer for peer in self._board.workers() if peer is not self._slot and peer.is_fresh(now_ns)]

    def room(self) -> int:
        """How many connections this worker may take now; alone, any number."""
        total = ours = self._slot.connections
        count = 1
        for peer in self._peers:
            if peer.state is State.SERVING:
                total += peer.connections
                count += 1
        if count == 1:
            return sys.maxsize
        return int(TOLERANCE * total / count) + SLACK - ours

    def tell(self, connections: int) -> None:
        self._slot.connections = connections
