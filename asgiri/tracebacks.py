"""What a failing application is told: its own frames, without the server's and the import machinery's."""

from __future__ import annotations

import importlib
import os
from itertools import chain
from traceback import StackSummary, TracebackException, walk_tb
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator


class Frame(Struct, frozen=True):
    """One frame of the application's: ``source`` are lines around ``line``, and begin with line ``first``; from 1."""

    file: str
    line: int
    function: str
    first: int = 0
    source: tuple[str, ...] = ()


class Trouble(Struct, frozen=True):
    """Why an application cannot be started, as data.

    ``message`` is one sentence, ``kind`` and ``text`` name the exception and what it says, ``trace`` is its traceback
    as :func:`user_traceback` gives it, and ``frames`` are those of the application, the innermost last.
    """

    message: str
    kind: str = ""
    text: str = ""
    trace: str = ""
    frames: tuple[Frame, ...] = ()


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# Compiled modules name their files as the build saw them, from the root of the checkout on.
_COMPILED = os.path.join("asgiri", "")
# The demo is an application that happens to live here: its frames are what somebody looks for when it fails.
_DEMO = os.path.join(_PACKAGE, "demo", "")
_IMPORT_MACHINERY = ("<frozen importlib", os.path.dirname(os.path.abspath(importlib.__file__)) + os.sep)


def user_traceback(error: BaseException) -> str:
    """The traceback of ``error`` as text, without the frames of asgiri and of importlib.

    Causes, contexts and the members of exception groups are kept and filtered likewise. The text ends with a
    newline and is never empty: where no frame is left, it is the line that names the exception.
    """
    report = TracebackException.from_exception(error)
    for part in _parts(report):
        part.stack = StackSummary.from_list([frame for frame in part.stack if _is_users(frame.filename)])
    return "".join(report.format()) if _shows_a_place(report) else "".join(report.format_exception_only())


def has_user_frames(error: BaseException) -> bool:
    """Whether ``error`` itself, not its causes, passed through code other than asgiri's and importlib's."""
    return any(_is_users(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__))


def describe(error: BaseException) -> str:
    """``error`` in one line, as it ends a traceback: ``ValueError: no such colour``. Raises nothing."""
    name = type(error).__name__
    try:
        text = str(error).strip()
    except Exception:  # the application's own __str__
        text = "<its text cannot be had>"
    return f"{name}: {text.splitlines()[0]}" if text else name


def _is_users(filename: str) -> bool:
    if filename.startswith(_IMPORT_MACHINERY):
        return False
    return filename.startswith(_DEMO) or not filename.startswith((_PACKAGE, _COMPILED))


def _parts(report: TracebackException) -> Iterator[TracebackException]:
    """The report and all that it is chained to."""
    waiting = [report]
    while waiting:
        part = waiting.pop()
        yield part
        linked = chain((part.__cause__, part.__context__), part.exceptions or ())
        waiting.extend(other for other in linked if other is not None)


def _shows_a_place(report: TracebackException) -> bool:
    """Whether anything is worth the words "Traceback (most recent call last)".

    Only the report of a SyntaxError has a ``lineno``: it names its place without a frame.
    """
    return any(part.stack or part.exceptions or hasattr(part, "lineno") for part in _parts(report))
