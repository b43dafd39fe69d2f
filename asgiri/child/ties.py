"""The tie between the lives of a master and its child: whoever dies, the other gets to know."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

# What a drain may overrun when nobody is left to kill the child, in seconds; as the master's own grace.
ALARM_GRACE = 2.0


def tie_to_master(master_pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Die with the master, whatever it dies of. The kernel's help is Linux's own; the link's end of file is not."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != master_pid:  # it died between the fork and here
        os._exit(1)


def limit_orphan(master_pid: int, drain_timeout: float) -> None:
    """Let the TERM that tells of the master's death also set an alarm.

    Python runs this handler where an application blocks the loop, too; the loop's own part it does not touch, for
    that hangs on the wakeup descriptor.
    """

    def on_term(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != master_pid:
            end_by_alarm(drain_timeout)

    signal.signal(signal.SIGTERM, on_term)


def hear_no_more() -> None:
    """The loop is about to go, and its wakeup descriptor with it: a signal in between would find that closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})


def end_by_alarm(drain_timeout: float) -> None:
    """End for certain, now that no master does it: the kernel ends what is not done when a drain must be."""
    if drain_timeout:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, drain_timeout + ALARM_GRACE)
