"""What the workers are told of the newest code: a file in memory, shared by all that are forked after it was made.

Under reload only. The master posts, and has each worker read it (``Order.NEWS``).
"""

from __future__ import annotations

import os

import msgspec
from msgspec import Struct

from asgiri.tracebacks import Trouble


class Bulletin(Struct, frozen=True):
    """``number`` counts what was posted; ``trouble`` is why the newest code does not serve, None: it does."""

    number: int = 0
    trouble: Trouble | None = None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Bulletin)


class Board:
    """The master's hand on it."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("asgiri-bulletin", os.MFD_CLOEXEC)
        self._posted = Bulletin()

    def fileno(self) -> int:
        return self._fd

    @property
    def trouble(self) -> Trouble | None:
        """What is up."""
        return self._posted.trouble

    def post(self, trouble: Trouble | None) -> bool:
        """Put it up; whether that is news."""
        if trouble == self._posted.trouble:
            return False
        self._posted = Bulletin(self._posted.number + 1, trouble)
        data = _encode(self._posted)
        # Longer or shorter than before, a reader sees a whole one: the length goes in front, and is written last.
        os.pwrite(self._fd, data, 8)
        os.pwrite(self._fd, len(data).to_bytes(8, "big"), 0)
        return True

    def close(self) -> None:
        os.close(self._fd)


def read(fd: int) -> Bulletin:
    """What is posted; what makes no sense is as nothing: any worker may write there."""
    try:
        size = int.from_bytes(os.pread(fd, 8, 0), "big")
        return _decoder.decode(os.pread(fd, min(size, 16 << 20), 8)) if size else Bulletin()
    except (OSError, ValueError):
        return Bulletin()
