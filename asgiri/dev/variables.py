"""Which variables of the environment the application has set itself: what a package from elsewhere sets is its own.

A package that is imported in the zygote sets its variables there. They must not be there before, for it may look.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

from asgiri.dev.modules import absolute, is_outside, tops

StrOrBytes = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Variables:
    """Looks, from when it is made until it is asked, at who sets what."""

    def __init__(self, own: tuple[str, ...]) -> None:
        self._folders = tops(own)
        self._before = dict(os.environ)
        self._foreign: set[str] = set()
        self._putenv = os.putenv
        os.putenv = self._note  # os.environ looks for it here

    def _note(self, name: StrOrBytes, value: StrOrBytes, /) -> None:
        self._putenv(name, value)
        key = os.fsdecode(name)
        if self._is_foreign():
            self._foreign.add(key)
        else:
            self._foreign.discard(key)

    def _is_foreign(self) -> bool:
        """Whether the module that is being imported, if one is, is not the application's."""
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_name != "<module>":
            frame = frame.f_back
        return frame is not None and is_outside(absolute(frame.f_code.co_filename), self._folders)

    def take(self) -> dict[str, str]:
        """What the application has set, or set anew."""
        os.putenv = self._putenv
        now = os.environ.items()
        return {name: value for name, value in now if name not in self._foreign and self._before.get(name) != value}
