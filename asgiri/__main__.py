"""``python -m asgiri``, and the ``asgiri`` command: the same.

Before anything else, and that is a tenth of a second of imports, it takes the signals that end it. For INT Python's own
handler would show a traceback; and the kernel drops what PID 1 of a container has no handler for (pid_namespaces(7)):
a TERM of the first moments would be lost. The master's queue (asgiri.supervisor.signals) takes over from it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

# Who asks for these wants an answer, and none is not a good one. A service that was told to stop has stopped.
QUESTIONS = {"--check-config", "--print-config", "--schema"}


def main() -> NoReturn:
    # Nearly all that is imported stays: looking for garbage in it is a tenth of a start. The master enables it again.
    gc.disable()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) and shells have it
            signal.signal(number, leave)
    from asgiri.cli.command import main

    main()


def leave(number: int, _frame: FrameType | None) -> None:
    """End at once, and quietly: there is nothing yet to finish. An exception could get lost in somebody's import."""
    os._exit(128 + number if QUESTIONS & set(sys.argv) else 0)


if __name__ == "__main__":
    main()
