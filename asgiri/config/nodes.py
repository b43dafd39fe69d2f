"""What was written, and where: a tree of texts with places, before anyone has asked what the texts mean."""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

from msgspec import Struct

from asgiri.errors import ConfigError, Problem

# Longer texts are cut in messages: a message is a line, whatever the file holds.
_SHOWN = 300


class Place(Struct, frozen=True):
    """Where something was written: a file with line and column (from 1), or a flag or variable (line 0)."""

    name: str
    line: int = 0
    column: int = 0

    @property
    def rank(self) -> tuple[int, int, int]:
        """What places are told in the order of: files by line, then variables, then flags."""
        return (0 if self.line else 1 if self.name.isupper() else 2, self.line, self.column)

    def __str__(self) -> str:
        return f"{self.name}:{self.line}:{self.column}" if self.line else self.name

    @property
    def origin(self) -> str:
        """The place to the line: what is said of a value that is in order."""
        return f"{self.name}:{self.line}" if self.line else self.name


class Kind(Enum):
    """What a scalar looks like by the core schema of YAML 1.2; quoted ones are TEXT.

    BROKEN: its variables cannot be put in, which is among the faults already.
    """

    NULL = auto()
    BOOL = auto()
    NUMBER = auto()
    TEXT = auto()
    BROKEN = auto()


class Scalar(Struct, frozen=True):
    """A single value, as its text. ``written`` is what stands in the file where variables (``${NAME}``) were put in."""

    place: Place
    text: str
    kind: Kind = Kind.TEXT
    written: str = ""

    def __str__(self) -> str:
        if self.kind is Kind.NULL:
            return "null"
        return f'"{self.text}"' if self.kind is Kind.TEXT else self.text


class Sequence(Struct, frozen=True):
    """A list."""

    place: Place
    items: tuple[Node, ...]

    def __str__(self) -> str:
        return "a list"


class Entry(Struct, frozen=True):
    """The value of a key, and the place of the key itself."""

    place: Place
    value: Node


class Mapping(Struct, frozen=True):
    """A section or a map."""

    place: Place
    entries: dict[str, Entry]

    def __str__(self) -> str:
        return "a mapping"


Node: TypeAlias = Scalar | Sequence | Mapping


def is_null(node: Node) -> bool:
    """Whether nothing was written: ``null``, ``~``, or a key whose whole content is commented out."""
    return isinstance(node, Scalar) and node.kind is Kind.NULL


def is_broken(node: Node) -> bool:
    """Whether nobody knows what was meant, and that was said."""
    return isinstance(node, Scalar) and node.kind is Kind.BROKEN


class Faults:
    """Collects all that is wrong, so that it can be told at once."""

    def __init__(self) -> None:
        self._found: list[tuple[Place, Problem]] = []

    def add(self, place: Place, path: str, what: str) -> None:
        """Note that the key at the dotted ``path`` (empty: none) is wrong, as written at ``place``."""
        self._found.append((place, Problem(str(place), printable(path), printable(what))))

    def below(self, path: str) -> bool:
        """Whether anything is wrong at ``path`` or below it."""
        return any(
            problem.key == path or problem.key.startswith((f"{path}.", f"{path}[")) for _, problem in self._found
        )

    def raise_any(self) -> None:
        """Raise ConfigError if anything was wrong: what is in the file by line, then variables and flags."""
        if self._found:
            in_order = sorted(self._found, key=lambda found: found[0].rank)
            raise ConfigError([problem for _, problem in in_order])


def printable(text: str) -> str:
    """``text`` fit for one line of a terminal: what is not printable escaped, what is overlong cut."""
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN - 30]}[...]{text[-25:]}"
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
