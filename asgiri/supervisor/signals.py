"""Signals as a queue: the handlers only queue, the master reads them where it waits for everything else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
VERBS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
HANDLED = (*STOPS, *VERBS, signal.SIGCHLD)


class SignalQueue:
    """The signals that came, in order, behind one file descriptor that is readable when there are any.

    The interpreter's own C-level handler writes the number of each signal into the pipe (``set_wakeup_fd``), so
    that nothing of ours runs in a handler.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _noted)

    def fileno(self) -> int:
        return self._read

    def read(self) -> list[signal.Signals]:
        try:
            return [signal.Signals(number) for number in os.read(self._read, 4096)]
        except BlockingIOError:
            return []

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Around a fork: a signal that comes meanwhile waits, so that a child never takes one for the master."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def leave_in_child(self) -> None:
        """In a fresh child, with the signals still held back: default effects, and no queue of the master's."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL)
        # A Ctrl-C and a hang-up reach the whole terminal group; what they and the master's own verbs mean is the
        # master's to say. A handler, and not SIG_IGN, because programs that the application starts would inherit that.
        for number in (*VERBS, signal.SIGINT):
            signal.signal(number, _noted)
        # A worker that boots has nothing to finish; the default effect would leave a core file behind.
        signal.signal(signal.SIGQUIT, _leave)
        os.close(self._read)
        os.close(self._write)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)

    def close(self) -> None:
        """Hear nothing any more. The process is about to exit, and one TERM too many must not take its exit code."""
        for number in (*STOPS, *VERBS):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def _noted(number: int, frame: FrameType | None) -> None:
    """Where there is a wakeup pipe, it has the number already."""


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process at once."""
    del frame
    os._exit(128 + number)
