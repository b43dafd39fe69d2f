"""Compiled code that Python would take for that of a file which has changed.

It compares size and whole seconds of the modification time (PEP 552): who saves twice within a second and keeps the
size would get the code of the first save.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from contextlib import suppress

_HEADER = 16  # bytes of a .pyc: magic number, flags, time, size


def forget_compiled(paths: Iterable[str]) -> None:
    """Remove the compiled files that would be taken for these sources as they are now."""
    for path in paths:
        if path.endswith(".py"):
            with suppress(OSError, NotImplementedError):
                _forget(path, importlib.util.cache_from_source(path))


def _forget(path: str, compiled: str) -> None:
    found = os.stat(path)
    with open(compiled, "rb") as file:
        header = file.read(_HEADER)
    flags, seconds, size = (int.from_bytes(header[at : at + 4], "little") for at in (4, 8, 12))
    if flags == 0 and (seconds, size) == (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF):
        os.unlink(compiled)
