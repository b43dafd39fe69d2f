"""A table of which one test takes many rows.

Each row has a test of its own where it is fed whole and cut. What else must hold of all of them is asked of many rows
in one test: a test costs about as much as the work on a row, and there are thousands of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pytest

MANY = 100


class Named(Protocol):
    """A row, as far as this file knows it."""

    @property
    def name(self) -> str: ...


def in_parts(rows: Sequence[Named]) -> pytest.MarkDecorator:
    """The test gets ``rows``, so many at a time."""
    parts = [rows[i : i + MANY] for i in range(0, len(rows), MANY)]
    return pytest.mark.parametrize("rows", parts, ids=[f"from {part[0].name[:60]}" for part in parts])


@contextmanager
def about(row: Named) -> Iterator[None]:
    """What fails in here tells which row it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"the row: {row.name}")
        raise
