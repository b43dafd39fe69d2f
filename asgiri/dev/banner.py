"""What a developer sees first: where the service is, what it is, and what is watched."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from asgiri import __version__
from asgiri.config.nodes import printable
from asgiri.log.file import LogFile
from asgiri.log.setup import PATIENCE
from asgiri.log_target import STDERR

if TYPE_CHECKING:
    from asgiri.config.load import Loaded
    from asgiri.config.schema import Config

_BOLD, _DIM, _RED, _GREEN, _CYAN, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"
_NAMES = {"http/1.1": "HTTP/1.1", "h2": "HTTP/2"}
# How many folders are named, and characters of each line's text.
_FOLDERS = 3
_WIDE = 100


class Scene(Struct, frozen=True):
    """What there is to show: URLs of the service, and of the admin child; files that are watched besides folders.

    ``broken``: the application does not start, and an error page stands in for it.
    """

    config: Config
    urls: Sequence[str]
    admin: Sequence[str] = ()
    files: Sequence[str] = ()
    broken: bool = False


def show(loaded: Loaded, urls: Sequence[str], admin: Sequence[str], *, broken: bool) -> None:
    """Write the banner to stderr. A reader that is stuck is waited for no longer than with a line of the log."""
    config = loaded.config
    paths = (loaded.found.path if loaded.found is not None else None, config.env_file)
    files = [_as_named(path) for path in paths if path is not None]
    text = banner(Scene(config, urls, admin, files, broken), colours=wants_colours(2, os.environ))
    data = text.encode("utf-8", "backslashreplace")
    with suppress(OSError), closing(LogFile(STDERR)) as stderr:  # as in the log, what cannot be written is lost
        while data:
            data = data[stderr.write(data, PATIENCE) :]


def banner(scene: Scene, *, colours: bool) -> str:
    """The lines, with a newline at the end."""
    paint = _paint if colours else _plain
    version = f"{__version__}, Python {sys.version.split()[0]}"
    lines = ["", f"  {paint('asgiri', _BOLD, _GREEN)} {paint(version, _DIM)}", ""]
    lines += [f"  {paint('->', _GREEN)}  {paint(printable(url), _BOLD, _CYAN)}" for url in scene.urls]
    for name, text, *codes in _rows(scene):
        lines.append(f"      {paint(f'{name:8}', _DIM)} {paint(printable(text)[:_WIDE], *codes)}")
    return "\n".join([*lines, f"      {paint('Ctrl-C stops it', _DIM)}", "", ""])


def _rows(scene: Scene) -> Iterator[tuple[str, ...]]:
    """Name and text of each row, and how it is painted if not plainly."""
    config = scene.config
    if scene.broken:
        yield "app", f"{config.target} does not start: error pages are served until it is mended", _RED
    else:
        yield "app", config.target + ("" if config.app else " (the demo: no application is named)")
    yield "workers", f"{config.workers.processes}"
    protocols = dict.fromkeys(_NAMES[one] for listen in config.listen for one in reversed(listen.http))
    yield "speaks", ", ".join([*protocols, "WebSocket"])
    yield "watches", watched(config, scene.files)
    if config.reload.browser:
        yield "browser", "pages reload themselves"
    for url in scene.admin:
        yield "health", f"{url} (/livez, /readyz)"


def watched(config: Config, files: Sequence[str]) -> str:
    """What is watched, in words: ``. (*.py), asgiri.yaml``."""
    reload = config.reload
    folders = list(reload.dirs[:_FOLDERS])
    if (more := len(reload.dirs) - _FOLDERS) > 0:
        folders.append(f"{more} more")
    return ", ".join([f"{', '.join(folders)} ({' '.join(reload.include)})", *files])


def wants_colours(fd: int, environ: Mapping[str, str]) -> bool:
    """Colours are for terminals that can show them, and for who has not said no (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and os.isatty(fd)


def _as_named(path: str | os.PathLike[str]) -> str:
    """Relative, where it is below the working directory."""
    relative = os.path.relpath(path)
    return os.fspath(path) if relative.startswith("..") else relative


def _paint(text: str, *codes: str) -> str:
    return f"{''.join(codes)}{text}{_PLAIN}" if codes else text


def _plain(text: str, *_codes: str) -> str:
    return text
