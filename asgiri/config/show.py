"""The configuration as it was resolved: YAML that loads to the same, and behind each value where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from asgiri import __version__
from asgiri.config.keys import keys_of
from asgiri.config.nodes import printable
from asgiri.config.notation import named, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgiri.config.keys import Key
    from asgiri.config.load import Loaded

# Comments stand below each other up to this column; a longer value has its own right behind it.
_COLUMN_MOST: Final = 48
# A list or map that is longer than this is written with one entry a line.
_FLOW_MOST: Final = 72
# The most of a name that YAML takes without a question mark in front is 1024 characters (YAML 1.2 section 8.2.2).
_NAME_MOST: Final = 1000


class Row(NamedTuple):
    """A line, and what is said behind it; the head of a section has nothing to be said of."""

    text: str
    comment: str = ""


def resolved(loaded: Loaded) -> str:
    """What ``--print-config`` prints: all keys, in the order of the schema, as YAML that loads to the same config.

    Where variables were put into a value, it is shown as the file has it: the value may be a secret.
    """
    file = f"{printable(str(loaded.found.path))}, " if loaded.found else ""
    head = f"# asgiri {__version__}, asgiri --print-config: what {file}the environment and the flags come to."
    page = _Page(loaded)
    groups: list[list[Row]] = [[]]
    for name, key in keys_of(type(loaded.config)).items():
        rows = list(page.key(key, getattr(loaded.config, name), name, f"{name}:"))
        if len(rows) > 1 and groups[-1]:
            groups.append([])
        groups[-1] += rows
        if len(rows) > 1:
            groups.append([])
    return "\n\n".join([head, *("\n".join(aligned(rows)) for rows in groups if rows)]) + "\n"


def aligned(rows: list[Row]) -> Iterator[str]:
    """The lines, with their comments below each other as far as that is pretty."""
    widths = [len(row.text) for row in rows if row.comment]
    column = max((width for width in widths if width <= _COLUMN_MOST), default=0)
    for row in rows:
        yield f"{row.text:<{column}}  # {row.comment}" if row.comment else row.text


class _Page:
    """Turns values into rows; ``path`` is where a value is, ``lead`` what stands in front of it on its line."""

    def __init__(self, loaded: Loaded) -> None:
        self._origins = loaded.origins
        self._variables = loaded.written

    def key(self, key: Key, value: object, path: str, lead: str) -> Iterator[Row]:
        indent = " " * (len(lead) - len(lead.lstrip()) + 2)
        if isinstance(value, msgspec.Struct):
            yield Row(lead)
            yield from self._section(value, path, indent)
        elif isinstance(value, tuple | dict) and value and not self._fits(key, value, path, lead):
            yield Row(lead, self._origin(path))
            yield from self._entries(key.element(), value, path, indent)
        else:
            yield Row(f"{lead} {self._text(key, value, path)}", self._origin(path))

    def _section(self, section: msgspec.Struct, path: str, indent: str) -> Iterator[Row]:
        for name, key in keys_of(type(section)).items():
            yield from self.key(key, getattr(section, name), f"{path}.{name}", f"{indent}{name}:")

    def _entries(self, element: Key, entries: Any, path: str, indent: str) -> Iterator[Row]:
        if isinstance(entries, dict):
            for name, value in entries.items():
                yield from self.key(element, value, f"{path}.{name}", f"{indent}{_name(name, indent)}:")
            return
        for value, below in zip(entries, _below(entries, path), strict=True):
            if isinstance(value, msgspec.Struct):
                first, *others = self._section(value, below, f"{indent}  ")
                yield first._replace(text=f"{indent}- {first.text.lstrip()}")
                yield from others
            else:
                yield Row(f"{indent}- {self._text(element, value, below)}", self._origin(below, path))

    def _fits(self, key: Key, value: Any, path: str, lead: str) -> bool:
        """Whether a list or map goes into one line, for which there is one place that it comes from."""
        if key.element().section:
            return False
        whole = self._origins.get(path, "")
        if any(_source(self._origins.get(one, whole)) != _source(whole) for one in _below(value, path)):
            return False
        return len(lead) + len(self._text(key, value, path)) < _FLOW_MOST

    def _text(self, key: Key, value: object, path: str) -> str:
        return written(key, value, path, self._variables)

    def _origin(self, path: str, whole: str = "") -> str:
        """Where a value comes from; an entry that has no place of its own from where the ``whole`` does."""
        origin = self._origins.get(path, self._origins.get(whole))
        if origin is None:
            return "default"
        if origin == "APP":
            return "from argument APP"
        # Places in files have a colon, also in those of a file whose name begins with hyphens.
        kind = "flag " if origin.startswith("--") and ":" not in origin else ""
        return f"from {kind}{printable(origin)}"


def _below(value: Any, path: str) -> list[str]:
    """The paths of the entries of a list or map."""
    if isinstance(value, dict):
        return [f"{path}.{name}" for name in value]
    return [f"{path}[{index}]" for index in range(len(value))]


def _source(origin: str) -> str:
    """The file, flag or variable of a place, without the line."""
    name, _, line = origin.rpartition(":")
    return name if line.isdecimal() else origin


def _name(name: str, indent: str) -> str:
    """The name of an entry of a map as a key of YAML."""
    text = named(name)
    return text if len(text) <= _NAME_MOST else f"? {text}\n{indent}"
