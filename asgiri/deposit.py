"""What a master leaves for one of its workers, who may not read TLS files: what is in them, in a file in memory.

Each worker has one of its own, made before the fork: what it writes there reaches nobody else. Whoever reads while the
master writes sees that it is no whole one, and is told again when there is.
"""

from __future__ import annotations

import os
import sys
import time
from binascii import crc32
from typing import Final

import msgspec

_HEAD: Final = 12  # bytes: the length, and a checksum
_MOST: Final = 1 << 30

# How often who needs it at once looks whether the master is done, and how long it waits between, in seconds.
_LOOKS: Final = 200
_PAUSE: Final = 0.005

# What is in the files of each listener of a config, in their order (asgiri.tls_files.Material); None: it has no TLS.
Materials = list[dict[str, dict[str, bytes]] | None]

encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Materials] = msgspec.msgpack.Decoder(Materials)


class Deposit:
    """The master's hand on it. OSError when no descriptor, or no memory, is left."""

    def __init__(self, data: bytes) -> None:
        if sys.platform == "linux":
            self._fd = os.memfd_create("asgiri-deposit", os.MFD_CLOEXEC)
        else:
            import tempfile  # which costs a megabyte

            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
        try:
            self.put(data)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def put(self, data: bytes) -> None:
        """Leave this, encoded :data:`Materials`, in the place of what was there."""
        os.pwrite(self._fd, bytes(_HEAD), 0)
        at, left = _HEAD, memoryview(data)
        while left:
            written = os.pwrite(self._fd, left, at)
            at, left = at + written, left[written:]
        os.ftruncate(self._fd, at)
        os.pwrite(self._fd, len(data).to_bytes(8, "big") + crc32(data).to_bytes(4, "big"), 0)

    def close(self) -> None:
        os.close(self._fd)


def read(fd: int) -> Materials | None:
    """What was left there; None when it is not whole. OSError, and ValueError when it makes no sense."""
    head = os.pread(fd, _HEAD, 0)
    size = int.from_bytes(head[:8], "big")
    data = os.pread(fd, min(size, _MOST), _HEAD)
    if not size or len(data) != size or crc32(data) != int.from_bytes(head[8:], "big"):
        return None
    return _decoder.decode(data)


def wait_for(fd: int) -> Materials | None:
    """The same for a worker that boots; None when the master does not get done within a second.

    The order that comes then would be too late: it would boot with the files, which may be half of a pair.
    """
    for _ in range(_LOOKS):
        if (found := read(fd)) is not None:
            return found
        time.sleep(_PAUSE)
    return None
