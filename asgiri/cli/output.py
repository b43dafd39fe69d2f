"""What is printed to be read by other programs: whole, or told not to be."""

from __future__ import annotations

import sys

from asgiri.errors import AsgiriError


def emit(text: str) -> None:
    """Write to the standard output, in UTF-8 whatever the locale. AsgiriError (exit code 1) when it cannot be had."""
    if sys.stdout is None:  # it was closed at the start, and its descriptor may be another file by now
        raise AsgiriError("cannot write to the standard output: it is closed")
    try:
        sys.stdout.flush()
        with open(1, "wb", closefd=False) as file:
            file.write(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise AsgiriError(f"cannot write to the standard output: {error.strerror}") from error
