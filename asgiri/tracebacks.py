"""What a failing application is told: its own frames, without the server's and the import machinery's."""

from __future__ import annotations

import importlib
import os
from itertools import chain
from linecache import checkcache, getlines
from traceback import StackSummary, TracebackException, walk_tb
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Of a Trouble: the innermost frames, lines of source on either side of the one that failed, and characters of the
# traceback's end, of a text, and of one line or name.
FRAMES_MOST = 30
SOURCE_AROUND = 4
TRACE_MOST = 64 << 10
TEXT_MOST = 8 << 10
LINE_MOST = 240

NO_TEXT = "<its text cannot be had>"


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


def trouble_of(error: BaseException, message: str) -> Trouble:
    """``error`` as data. ``message`` is the sentence about it, as that of an AppError.

    Of a group it is the first member that counts, and of an error that no code of the application has a part in its
    cause: what a person must see first. All texts are bounded, and can be encoded.
    """
    first = _first(error)
    frames = [_frame(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in _user_frames(first)]
    if isinstance(first, SyntaxError) and first.filename and first.lineno:  # the place has no frame
        frames.append(_frame(first.filename, first.lineno, ""))
    return Trouble(
        encodable(message, TEXT_MOST),
        encodable(type(first).__name__, LINE_MOST),
        encodable(_text(first), TEXT_MOST),
        encodable(user_traceback(error), -TRACE_MOST),
        tuple(frames[-FRAMES_MOST:]),
    )


def encodable(text: str, most: int) -> str:
    """The first ``most`` characters of a text, or the last ones if that is negative, so that UTF-8 can carry them."""
    part = text[:most] if most >= 0 else text[most:]
    return part.encode("utf-8", "backslashreplace").decode("utf-8")


def _first(error: BaseException) -> BaseException:
    """What a person must see of an error, its causes and its members."""
    seen = set()
    while id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif not has_user_frames(error) and not isinstance(error, SyntaxError):
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__) or error
    return error


def _text(error: BaseException) -> str:
    try:
        return str(error.msg if isinstance(error, SyntaxError) else error).strip()
    except Exception:  # the application's own __str__
        return NO_TEXT


def _user_frames(error: BaseException) -> list[tuple[FrameType, int]]:
    """Those of the application, which may be as many as its recursion is deep; the innermost last."""
    return [found for found in walk_tb(error.__traceback__) if _is_users(found[0].f_code.co_filename)][-FRAMES_MOST:]


def _frame(file: str, line: int, function: str) -> Frame:
    checkcache(file)  # it may have been read when it was another
    first = max(1, line - SOURCE_AROUND)
    lines = getlines(file)[first - 1 : line + SOURCE_AROUND]
    source = tuple(encodable(one.rstrip("\r\n"), LINE_MOST) for one in lines)
    return Frame(encodable(file, LINE_MOST), line, encodable(function, LINE_MOST), first if source else 0, source)


def has_user_frames(error: BaseException) -> bool:
    """Whether ``error`` itself, not its causes, passed through code other than asgiri's and importlib's."""
    return any(_is_users(frame.f_code.co_filename) for frame, _ in walk_tb(error.__traceback__))


def describe(error: BaseException) -> str:
    """``error`` in one line, as it ends a traceback: ``ValueError: no such colour``. Raises nothing."""
    name = type(error).__name__
    try:
        text = str(error).strip()
    except Exception:  # the application's own __str__
        text = NO_TEXT
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
