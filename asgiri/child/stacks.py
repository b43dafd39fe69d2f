"""The stacks of this process, written where its master reads them, when SIGUSR2 asks for them.

First those of its threads, by faulthandler: in C, within the signal's handler, whatever the process is stuck in. Then,
in Python's own handler, which waits for the main thread to come back to Python, the asyncio tasks: what blocks a loop
is on the first list, what merely hangs is on the second.
"""

from __future__ import annotations

import asyncio
import faulthandler
import heapq
import linecache
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, Final

ASK: Final = signal.SIGUSR2  # as supervisor.stacks has it
END: Final = b"\0"  # written last, as supervisor.stacks has it

# How many tasks are told of, frames of the stack that runs and of each one that waits, and characters of a line.
MOST_TASKS: Final = 100
MOST_FRAMES_RUNNING: Final = 30
MOST_FRAMES: Final = 8
MOST_CHARACTERS: Final = 200

# How many coroutines that wait for each other are followed, from the outermost one on.
_DEPTH: Final = 1000

# A place in the code, as (file, line, function).
Place = tuple[str, int, str]


def register(fd: int) -> None:
    """Write the stacks to ``fd`` whenever they are asked for. For the main thread, as early as can be."""

    def tasks(_number: int, frame: FrameType | None) -> None:
        signal.siginterrupt(ASK, False)  # faulthandler has set up its handler anew, and without
        text = in_edge(frame)
        with suppress(OSError):
            os.write(fd, text.replace("\0", "\\0").encode("utf-8", "backslashreplace") + END)

    def forget() -> None:  # what the application forks is not this process; what it executes keeps neither anyway
        faulthandler.unregister(ASK)
        signal.signal(ASK, signal.SIG_DFL)
        with suppress(OSError):
            os.close(fd)

    signal.signal(ASK, tasks)
    faulthandler.register(ASK, file=fd, all_threads=True, chain=True)
    signal.siginterrupt(ASK, False)  # C code of others, which may not know EINTR, goes on as if nothing was
    os.register_at_fork(after_in_child=forget)


def in_edge(frame: FrameType | None) -> str:
    """:func:`describe_tasks`, in a signal handler: an error there would come out in the middle of the application."""
    try:
        return describe_tasks(frame)
    except Exception as error:
        return f"\nThe asyncio tasks cannot be told: {type(error).__name__}\n"


def describe_tasks(frame: FrameType | None) -> str:
    """The tasks of the loop that runs in this thread: the one that ``frame`` was interrupted in, and those that wait.

    Frames are listed as faulthandler does, the innermost first.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _stack("\nNo asyncio loop runs; the main thread is here", list(_frames(frame)), MOST_FRAMES_RUNNING)
    running = asyncio.current_task(loop)
    waiting = asyncio.all_tasks(loop) - {running}
    shown = heapq.nsmallest(MOST_TASKS, waiting, key=_by_name)
    parts = [f"\nasyncio tasks: {len(waiting) + (running is not None)} (most recent call first)\n"]
    place = "In no task" if running is None else f"{_title(running)} runs"
    parts.append(_stack(place, list(_frames(frame)), MOST_FRAMES_RUNNING))
    parts += [_stack(f"{_title(task)} waits", list(_awaits(task))[::-1], MOST_FRAMES) for task in shown]
    if len(shown) < len(waiting):
        parts.append(f"and {len(waiting) - len(shown)} more\n")
    return "".join(parts)


def _by_name(task: asyncio.Task[Any]) -> tuple[int, str]:
    """Task-2 before Task-10: about the order in which they were made."""
    name = task.get_name()
    return len(name), name


def _title(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    name = getattr(coroutine, "__qualname__", type(coroutine).__name__)
    return f'Task "{task.get_name()}" ({name})'


def _frames(frame: FrameType | None) -> Iterator[Place]:
    """The frames of a stack that runs, the innermost first; those of who was forked are left out."""
    forked = ("asgiri.supervisor.", "asgiri.dev.zygote")
    while frame is not None and not frame.f_globals.get("__name__", "").startswith(forked):
        yield _place(frame)
        frame = frame.f_back


def _awaits(task: asyncio.Task[Any]) -> Iterator[Place]:
    """Where a task waits: the coroutines that wait for each other, the outermost first."""
    waiter: Any = task.get_coro()
    for _ in range(_DEPTH):
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiter, f"{kind}_frame")), None)
        if kind is None:  # a future, or a coroutine that was compiled
            return
        frame = getattr(waiter, f"{kind}_frame")
        if frame is not None:
            yield _place(frame)
        waiter = getattr(waiter, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def _place(frame: FrameType) -> Place:
    return frame.f_code.co_filename, frame.f_lineno or 0, frame.f_code.co_name


def _stack(title: str, places: list[Place], most: int) -> str:
    """A title, and below it the ``most`` innermost places with their lines of source."""
    lines = [f"{title}:"]
    for file, number, function in places[:most]:
        source = linecache.getline(file, number).strip()
        lines.append(f'  File "{file}", line {number} in {function}' + (f": {source}" if source else ""))
    if len(places) > most:
        lines.append(f"  and {len(places) - most} frames more")
    return "".join(f"{line[:MOST_CHARACTERS]}\n" for line in lines)
