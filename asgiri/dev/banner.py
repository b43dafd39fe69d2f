"""What a developer sees first: where the service is, what it is, and what is watched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from asgiri import __version__
from asgiri.config.nodes import printable

if TYPE_CHECKING:
    from asgiri.config.schema import Config

_BOLD, _DIM, _GREEN, _CYAN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[36m", "\x1b[0m"
_NAMES = {"http/1.1": "HTTP/1.1", "h2": "HTTP/2"}
# How many folders are named, and characters of each line's text.
_FOLDERS = 3
_WIDE = 100


def banner(config: Config, urls: Sequence[str], files: Sequence[str], *, colours: bool) -> str:
    """The lines, with a newline at the end. ``urls`` are where it listens; ``files`` are watched besides folders."""
    protocols = [*dict.fromkeys(_NAMES[one] for listen in config.listen for one in reversed(listen.http)), "WebSocket"]
    count = config.workers.processes
    rows = [
        ("app", config.target + ("" if config.app else " (the demo: no application is named)")),
        ("workers", f"{count}"),
        ("speaks", ", ".join(protocols)),
        ("watches", watched(config, files)),
    ]
    paint = _paint if colours else _plain
    lines = ["", f"  {paint('asgiri', _BOLD, _GREEN)} {paint(__version__, _DIM)}", ""]
    lines += [f"  {paint('->', _GREEN)}  {paint(printable(url), _BOLD, _CYAN)}" for url in urls]
    lines += [f"      {paint(f'{name:8}', _DIM)} {printable(text)[:_WIDE]}" for name, text in rows]
    return "\n".join([*lines, f"      {paint('Ctrl-C stops it', _DIM)}", "", ""])


def watched(config: Config, files: Sequence[str]) -> str:
    """What is watched, in words: ``. (*.py), asgiri.yaml``."""
    reload = config.reload
    folders = list(reload.dirs[:_FOLDERS])
    if (more := len(reload.dirs) - _FOLDERS) > 0:
        folders.append(f"{more} more")
    return ", ".join([f"{', '.join(folders)} ({' '.join(reload.include)})", *files])


def wants_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Colours are for terminals that can show them, and for who has not said no (https://no-color.org)."""
    if environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False


def _paint(text: str, *codes: str) -> str:
    return f"{''.join(codes)}{text}{_PLAIN}"


def _plain(text: str, *_codes: str) -> str:
    return text
