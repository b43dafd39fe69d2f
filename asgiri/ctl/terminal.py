"""A terminal that is ours alone for a while, and is given back as it was, whatever ends that.

A signal comes as a byte on a pipe, so that the one place that waits sees keys, signals and the clock.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
from contextlib import suppress
from enum import Enum, auto
from types import FrameType
from typing import Any, Final, Self

# The alternate screen, without a cursor; and the way back (xterm's control sequences, DECSET 1049 and 25).
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"

ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_HANDLED: Final = (*ENDS, signal.SIGWINCH, signal.SIGTSTP)
_QUIT_KEYS: Final = frozenset(b"qQ\x03\x04")


class Key(Enum):
    """What ends a wait."""

    QUIT = auto()
    NONE = auto()  # the time is over, or the picture is to be drawn anew


class Terminal:
    """Standard input and output, both a terminal, as a context. OSError or termios.error where they are not.

    A signal that ends the program ends it behind the way back, with its own status.
    """

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._modes: list[Any] = termios.tcgetattr(self._in)
        self._before: dict[signal.Signals, Any] = {}
        self._end: signal.Signals | None = None
        self._is_gone = False  # nobody has the other end any more
        self._is_entered = False

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        for fd in (self._read, self._write):
            os.set_blocking(fd, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _HANDLED:
            self._before[number] = signal.signal(number, _noted)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._wakeup)
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._read)
        os.close(self._write)
        if self._end not in (None, signal.SIGINT):
            signal.signal(self._end, signal.SIG_DFL)
            os.kill(os.getpid(), self._end)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 and 24 where the terminal does not know."""
        try:
            size = os.get_terminal_size(self._out)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def show(self, lines: list[str]) -> None:
        """The picture; each line is written over the one that stood there, so that nothing flickers."""
        try:
            self._say("\x1b[H" + "\r\n".join(f"{line}\x1b[0m\x1b[K" for line in lines) + "\x1b[J")
        except OSError:
            self._is_gone = True  # the HUP that tells so may be on its way, or have come to another process only

    def wait(self, seconds: float) -> Key:
        """Until a key or a signal says something, or so many seconds are over."""
        ready, _, _ = select.select([self._in, self._read], [], [], 0.0 if self._is_gone else max(0.0, seconds))
        if self._read in ready:
            for number in os.read(self._read, 4096):
                if number in ENDS:
                    self._end = signal.Signals(number)
                    return Key.QUIT
                if number == signal.SIGTSTP:
                    self._sleep()
        if self._in in ready:
            try:
                keys = os.read(self._in, 4096)
            except OSError:  # nobody has the other end any more
                keys = b""
            if not keys or not _QUIT_KEYS.isdisjoint(keys):
                return Key.QUIT
        return Key.QUIT if self._is_gone else Key.NONE

    def _sleep(self) -> None:
        """Ctrl-Z: the shell gets its terminal back until it brings us to the front again."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._modes = termios.tcgetattr(self._in)
        self._take()

    def _take(self) -> None:
        modes = termios.tcgetattr(self._in)
        modes[0] &= ~termios.IXON  # a Ctrl-S would stop us in the middle of a picture
        modes[3] &= ~(termios.ICANON | termios.ECHO)  # keys come one by one, and are not shown; Ctrl-C is a signal
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        self._is_entered = True
        termios.tcsetattr(self._in, termios.TCSANOW, modes)
        self._say(_ENTER)

    def _give_back(self) -> None:
        if self._is_entered:
            self._is_entered = False
            with suppress(OSError):
                self._say(_LEAVE)
            with suppress(termios.error):  # it is gone
                termios.tcsetattr(self._in, termios.TCSAFLUSH, self._modes)

    def _say(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._out, data) :]


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wakeup pipe has the number already."""
