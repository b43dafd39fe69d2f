"""A worker's share of the connections: what the others have, and a little more.

The kernel wakes whoever waits first, or all at once, and the quickest gets the connection. With long-lived ones that
ends with one worker that has most of them. So a worker that is over its share lets the others go first, for a moment.
"""

from __future__ import annotations

import sys
from typing import Final

from asgiri.supervisor.scoreboard import Scoreboard, Slot

# What a worker may have more than the mean: a part of it, and some. How many depends on how many come and go: where
# connections are short, one that is over soon is not worth the pause, nor the change to another process.
TOLERANCE: Final = 1.05
LEAST_SLACK: Final = 2
MOST_SLACK: Final = 16


class BoardShare:
    """The share of the worker with this slot on the board."""

    def __init__(self, board: Scoreboard, slot: Slot) -> None:
        self._board = board
        self._slot = slot
        self._peers: list[Slot] = []
        self._connections = 0
        self._gone = 0  # connections, since the last beat
        self._gone_before = 0  # between the last two
        self._slack = LEAST_SLACK

    def refresh(self, now_ns: int) -> None:
        """Each beat: look who else serves.

        Who has not shown lately that it does is not counted on. It will take nothing, and all would wait for it.
        """
        self._slot.connections = self._connections  # somebody may have written over it
        self._gone_before, self._gone = self._gone, 0
        self._slack = min(MOST_SLACK, LEAST_SLACK + self._gone_before)
        self._peers = [peer for peer in self._board.workers() if peer is not self._slot and peer.is_fresh(now_ns)]

    def room(self) -> int:
        """How many connections this worker may take now; alone, any number."""
        if not self._peers:
            return sys.maxsize
        if self._connections < self._slack:  # whatever the others have
            return self._slack - self._connections
        counts = [self._connections]
        counts += [peer.connections for peer in self._peers if peer.is_serving]
        if len(counts) == 1:
            return sys.maxsize
        return int(TOLERANCE * sum(counts) / len(counts)) + self._slack - self._connections

    def tell(self, connections: int) -> None:
        if connections < self._connections:
            self._gone += self._connections - connections
            self._slack = min(MOST_SLACK, LEAST_SLACK + self._gone + self._gone_before)
        self._connections = self._slot.connections = connections
