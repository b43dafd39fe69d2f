"""The text of a file, or what is in the way."""

from __future__ import annotations

import os

# A real configuration is a few KiB; the limit keeps a wrong path (a disk image) from being read whole.
FILE_MOST = 1024 * 1024

# The byte order marks of UTF-16, which some editors and shells of Windows write.
_WIDE = (b"\xff\xfe", b"\xfe\xff")


class SourceError(ValueError):
    """A text cannot be had, or is no YAML; ``line`` and ``column`` count from 1, 0 when unknown."""

    def __init__(self, what: str, line: int = 0, column: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.column = column


def read_text(path: str | os.PathLike[str]) -> str:
    """The UTF-8 text of a file. Raises SourceError when it cannot be read, is over 1 MiB, or is not UTF-8."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MOST + 1)
    except OSError as error:
        raise SourceError(f'cannot read "{os.fspath(path)}": {error.strerror}') from error
    if len(data) > FILE_MOST:
        raise SourceError(f'"{os.fspath(path)}" is larger than 1MiB')
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        wide = ", as of UTF-16; save it as UTF-8" if data.startswith(_WIDE) else ""
        raise SourceError(f"not UTF-8: byte 0x{data[error.start]:02x}{wide}", line, column) from error
