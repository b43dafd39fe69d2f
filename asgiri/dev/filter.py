"""Which files and folders matter, and when enough has been heard of them: pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Final

# Never looked into, besides hidden folders and virtual environments: caches, and packages of other languages.
IGNORED: Final = frozenset({"__pycache__", "node_modules", "__pypackages__", "site-packages"})

# What a virtual environment has at its top (PEP 405).
VENV_FILE: Final = "pyvenv.cfg"

# A file that changes alone was saved by somebody who waits: a fifth of the delay is enough to hear of a second one.
ALONE: Final = 0.2
# Changes without end are told after so many seconds.
MOST_SECONDS: Final = 1.0


class Filter:
    """``dirs`` are absolute. ``files`` matter always, wherever they are.

    A glob without a slash is about the name, one with a slash about the path below the watched folder; ``*`` and ``?``
    do not match a slash, ``**`` is any number of folders. What ``exclude`` matches is out, a folder with all in it.
    """

    def __init__(
        self, dirs: Iterable[str], include: Iterable[str], exclude: Iterable[str] = (), files: Iterable[str] = ()
    ) -> None:
        self.dirs = tuple(dict.fromkeys(dirs))
        self.files = frozenset(files)
        self._include = tuple(include)
        self._exclude = tuple(exclude)

    def matters(self, path: str) -> bool:
        """Whether a change of this file is news; its folder is one that is looked into."""
        if path in self.files:
            return True
        name = os.path.basename(path)
        below = self._below(path)
        if below is None or name.startswith("."):
            return False
        return _any_matches(self._include, name, below) and not _any_matches(self._exclude, name, below)

    def enters(self, folder: str) -> bool:
        """Whether a folder below a watched one is looked into. That it is no virtual environment the caller sees."""
        name = os.path.basename(folder)
        below = self._below(folder)
        if below is None or name.startswith(".") or name in IGNORED:
            return False
        return not _any_matches(self._exclude, name, below)

    def _below(self, path: str) -> str | None:
        """The path as seen from the watched folder that it is in; None when it is in none."""
        for folder in self.dirs:
            top = folder.rstrip("/") + "/"
            if path.startswith(top):
                return path[len(top) :]
        return None


def _any_matches(patterns: Iterable[str], name: str, below: str) -> bool:
    return any(_compiled(one).fullmatch(below if "/" in one.rstrip("/") else name) for one in patterns)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = pattern.removeprefix("./").strip("/").split("/")
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:[^/]+/)*"
        else:
            text += _segment(part) + ("" if last else "/")
    return re.compile(text, re.DOTALL)


def _segment(part: str) -> str:
    """One name of a glob as a regular expression."""
    text, at = "", 0
    while at < len(part):
        letter = part[at]
        at += 1
        end = part.find("]", at + 1) if letter == "[" else -1
        if letter == "*":
            text += "[^/]*"
        elif letter == "?":
            text += "[^/]"
        elif end > 0:
            inside = part[at:end].replace("\\", "\\\\").replace("[", "\\[")
            text += f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
            at = end + 1
        else:
            text += re.escape(letter)
    return text


class Gatherer:
    """Collects what has changed until it has been quiet for ``quiet`` seconds, so that a storm of saves is one.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, quiet: float) -> None:
        self._quiet = quiet
        self._paths: dict[str, None] = {}
        self._first = 0.0
        self._last = 0.0
        self._is_gone = False

    def note(self, path: str, now: float, *, is_gone: bool = False) -> None:
        """A file has changed. One that is gone may be about to come again: there is no hurry."""
        if not self._paths:
            self._first = now
        self._paths[path] = None
        self._last = now
        self._is_gone = is_gone

    def due(self) -> float | None:
        """When to tell; None: there is nothing to."""
        if not self._paths:
            return None
        quiet = self._quiet * ALONE if len(self._paths) == 1 and not self._is_gone else self._quiet
        return min(self._last + quiet, self._first + max(MOST_SECONDS, self._quiet))

    def take(self) -> list[str]:
        """What has changed, in the order of its coming; nothing is left."""
        paths, self._paths = list(self._paths), {}
        return paths
