"""What a master has under reload only: what its workers share of it, and what it tells them of the newest code."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from asgiri.link import Order
from asgiri.supervisor.bulletin import Board
from asgiri.supervisor.children import Child, Lent
from asgiri.tracebacks import Trouble


class Workshop:
    """The bulletin, the way on which idle connections are handed over, and the troubles that are not posted yet."""

    def __init__(self) -> None:
        self._board = Board()
        # Whoever has a message takes a whole one, and who gives learns that the queue is full.
        self._transfer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self._transfer:
            end.setblocking(False)
        self._troubles: dict[int, Trouble] = {}  # by generation

    def lent(self, *, first: bool) -> Lent:
        """What a worker gets of it. ``first``: nobody serves, so it is to show what is wrong rather than to fail."""
        return Lent(self._board.fileno(), self._transfer, first)

    def note_trouble(self, generation: int, trouble: Trouble | None) -> None:
        """A worker of this generation has said what keeps it from serving."""
        if trouble is not None:
            self._troubles[generation] = trouble

    def post_failure(self, generation: int, why: str, trace: str, workers: Iterable[Child]) -> None:
        """The generation came to nothing."""
        self.post(self._troubles.pop(generation, None) or Trouble(why, trace=trace), workers)

    def post(self, trouble: Trouble | None, workers: Iterable[Child]) -> bool:
        """Tell the workers why the newest code does not serve, or that it does; whether that is news."""
        if trouble is None:
            self._troubles.clear()
        if not self._board.post(trouble):
            return False
        for worker in workers:
            worker.link.send(Order.NEWS)
        return True

    def close(self) -> None:
        self._board.close()
        for end in self._transfer:
            end.close()
