"""Which modules came with the application from elsewhere than the watched folders: a zygote may import those before."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from types import ModuleType

from asgiri.config.schema import Config

# Folders of installed packages, which are nobody's own code even where they lie below a watched one, in its ``.venv``.
_INSTALLED = frozenset(("site-packages", "dist-packages"))

# Nor is Python's own library, which may lie below a home that is watched.
_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")


def own_folders(config: Config) -> tuple[str, ...]:
    """Where the user's own code is, whether all of it is watched or not."""
    return (*config.reload.dirs, config.app_dir)


def modules_from_elsewhere(before: int, watched: Collection[str]) -> tuple[str, ...]:
    """The names of the modules that came after the first ``before`` ones, in the order in which they were imported.

    ``watched`` are folders. What has no file of its own, and is not built in, is left out, for nobody knows where it
    comes from. The first ones are not looked at: each look would cost a page of what is shared with who was forked.
    """
    folders = tops(watched)
    fresh = list(islice(reversed(sys.modules.items()), max(0, len(sys.modules) - before)))[::-1]
    return tuple(name for name, module in fresh if _can_be_imported(name, module) and _is_elsewhere(module, folders))


def _can_be_imported(name: str, module: ModuleType) -> bool:
    """Under this very name, that is: a package may put others under names of its own."""
    spec = getattr(module, "__spec__", None)
    return spec is not None and spec.name == name and name != "__main__"


def _is_elsewhere(module: ModuleType, folders: tuple[str, ...]) -> bool:
    places = list(_places(module))
    return bool(places) and all(is_outside(place, folders) for place in places)


def _places(module: ModuleType) -> Iterator[str]:
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        yield absolute(file)
    elif module.__name__ in sys.builtin_module_names:
        yield ""
    else:
        yield from map(absolute, getattr(module, "__path__", ()))


def absolute(path: str) -> str:
    """The absolute path; the path as it is where the working directory is gone: nothing relative is anywhere then."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        return path


def tops(folders: Iterable[str]) -> tuple[str, ...]:
    """What the absolute paths of all that is in these folders begin with."""
    return tuple(os.path.join(absolute(folder), "") for folder in folders)


def is_outside(place: str, folders: tuple[str, ...]) -> bool:
    """Whether the absolute path is elsewhere than below the :func:`tops` of the watched folders."""
    if not place.startswith(folders) or place.startswith(_LIBRARY):
        return True
    return not _INSTALLED.isdisjoint(place.split(os.sep))
