"""USR1 that comes while a child boots: its log files are open, and no loop is there yet to open them anew."""

from __future__ import annotations

import signal
from types import FrameType


class Rotation:
    """Made before the log files are opened; tells whether an USR1 has come since."""

    def __init__(self) -> None:
        self.came = False
        signal.signal(signal.SIGUSR1, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
