"""Nodes to the values that the schema wants; each type is read from the text that was written for it."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from asgiri.config.address import BIND_EXPECTED, parse_bind
from asgiri.config.hints import of_key, of_no_list, of_plain_value, of_unit
from asgiri.config.keys import Key, keys_of
from asgiri.config.nodes import Entry, Faults, Kind, Mapping, Node, Place, Scalar, Sequence, is_broken, is_null
from asgiri.units import DURATION_EXPECTED, SIZE_EXPECTED, parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

S = TypeVar("S", bound=msgspec.Struct)

BOOLS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_GUESSES_MOST = 50
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_OCTAL = re.compile(r"(?:0o|0)?[0-7]{1,3}", re.ASCII)
_NO_TEXT = "a text with a NUL or a lone surrogate"
OCTAL_EXPECTED = 'an octal mode such as "0660"'


class Bad(Enum):
    """Stands for a value that could not be read; why is among the faults already."""

    BAD = "bad"


BAD: Final = Bad.BAD


class Decoder:
    """Reads sections from nodes. Never raises for what was written: what is wrong goes to ``faults``.

    ``places`` tells afterwards where each key that was given was written, by its dotted path.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self.places: dict[str, Place] = {}
        self.written: dict[str, str] = {}
        self._guesses = 0
        self._top: type[msgspec.Struct] | None = None  # the section that everything is in

    def section(self, section: type[S], node: Node, path: str = "") -> S | Literal[Bad.BAD]:
        """The Struct that ``node`` describes; BAD when a key that it cannot do without is missing or bad.

        Any other bad key has its default, so that the rest can be looked at.
        """
        if not isinstance(node, Mapping):
            what = f"expected a mapping of keys, got {got(node)}"
            if isinstance(node, Scalar) and not (node.written or is_null(node)):
                what += of_plain_value(path, str(node))
            return self._bad(node, path, what)
        self._top = self._top or section
        known = keys_of(section)
        values: dict[str, object] = {}
        for name, entry in node.entries.items():
            if name in known:
                values[name] = self._value(known[name], entry.value, f"{path}.{name}" if path else name)
            else:
                self._faults.add(entry.place, path, f'unknown key "{name}"{self._meant(name, section)}')
        values = {name: value for name, value in values.items() if value is not BAD}
        needed = [name for name, key in known.items() if key.default is msgspec.NODEFAULT and name not in values]
        for name in needed:
            if name not in node.entries:
                self._faults.add(node.place, path, f'the key "{name}" is missing')
        return BAD if needed else section(**values)

    def _meant(self, name: str, section: type[msgspec.Struct]) -> str:
        """A guess takes a millisecond: a file of something else altogether gets only so many."""
        self._guesses += 1
        return of_key(name, self._top or section, keys_of(section)) if self._guesses <= _GUESSES_MOST else ""

    def _value(self, key: Key, node: Node, path: str) -> object:
        if is_broken(node):
            return BAD
        if key.container:
            return self._container(key, node, path)
        self._note(node, path)
        if is_null(node) and key.optional:
            return None
        try:
            return _scalar(key, node)
        except ValueError as error:
            return self._bad(node, path, _and_its_origin(error, key, node))

    def _container(self, key: Key, node: Node, path: str) -> object:
        """A section, list or map. One with nothing in it (all commented out) is as if it were not there."""
        if is_null(node) and key.default is not msgspec.NODEFAULT:
            if key.optional:
                self.places[path] = node.place  # no TLS may be somebody's word
            return key.default
        if key.section:
            return self.section(key.section, node, path)
        self.places[path] = node.place
        return self._list(key, node, path) if key.container == "list" else self._map(key, node, path)

    def _list(self, key: Key, node: Node, path: str) -> object:
        if not isinstance(node, Sequence):
            meant = "" if key.secret else of_no_list(key, node)
            return self._bad(node, path, f"expected a list, got {got(node, key)}{meant}")
        if not node.items and key.meta.min_length:
            return self._bad(node, path, "expected a list with at least one entry, got an empty one")
        element = key.element()
        items = [self._element(element, item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        return BAD if BAD in items else tuple(items)

    def _map(self, key: Key, node: Node, path: str) -> object:
        if not isinstance(node, Mapping):
            return self._bad(node, path, f"expected a mapping of names to values, got {got(node, key)}")
        element = key.element()
        items: dict[str, object] = {}
        for name, entry in node.entries.items():
            if _is_text(name):
                items[name] = self._element(element, entry.value, f"{path}.{name}")
            else:
                items[name] = self._bad(entry, path, f"expected a name, got {_NO_TEXT}")
        return BAD if BAD in items.values() else items

    def _element(self, element: Key, node: Node, path: str) -> object:
        """An entry of a list or map."""
        if is_broken(node):
            return BAD
        if element.section:
            return self.section(element.section, node, path)
        self._note(node, path)
        try:
            return _scalar(element, node)
        except ValueError as error:
            return self._bad(node, path, _and_its_origin(error, element, node))

    def _note(self, node: Node, path: str) -> None:
        self.places[path] = node.place
        if isinstance(node, Scalar) and node.written:
            self.written[path] = node.written

    def _bad(self, node: Node | Entry, path: str, what: str) -> Literal[Bad.BAD]:
        self._faults.add(node.place, path, what)
        return BAD


def expected(key: Key) -> str:
    """What a value of this key may be, as in ``a number of 1 or more or "auto"``."""
    if key.notation:
        return _EXPECTED[key.notation]
    return " or ".join(_expected(kind, key) for kind in key.types)


def got(node: Node, key: Key | None = None) -> str:
    """What stands where something else was expected, and the variables it was made of; of a secret, no more."""
    if not isinstance(node, Scalar):
        return str(node)
    shown = "a single value" if key and key.secret else str(node)
    return f"{shown} (from {node.written})" if node.written else shown


def parse_octal(text: str) -> int:
    """The number that an octal text such as ``0660`` names, 0o777 at most. Raises ValueError for others."""
    if not _OCTAL.fullmatch(text):
        raise ValueError(f'expected {OCTAL_EXPECTED}, got "{text}"')
    return int(text.removeprefix("0o"), 8)


def _bind(text: str) -> str:
    parse_bind(text)
    return text


_NOTATIONS: dict[str, Callable[[str], object]] = {
    "duration": parse_duration,
    "size": parse_size,
    "octal": parse_octal,
    "bind": _bind,
}
_EXPECTED = {
    "duration": DURATION_EXPECTED,
    "size": SIZE_EXPECTED,
    "octal": OCTAL_EXPECTED,
    "bind": BIND_EXPECTED,
}


def _scalar(key: Key, node: Node) -> object:
    """The value of a scalar as the first of the key's types that reads it; ValueError when none does."""
    if not isinstance(node, Scalar):
        raise ValueError(f"expected {expected(key)}, got {node}")
    if node.written and not node.text:  # of variables that are empty: not a null that somebody wrote
        node = Scalar(node.place, "")
    if not _is_text(node.text):
        raise ValueError(f"expected {expected(key)}, got {_NO_TEXT}")
    if key.notation and node.kind in (Kind.TEXT, Kind.NUMBER):
        return _NOTATIONS[key.notation](node.text)
    for kind in () if key.notation else key.types:
        if (value := _read(kind, node, key)) is not BAD:
            return value
    quotes = "; a text that looks like this stands in quotes" if str in key.types else ""
    raise ValueError(f"expected {expected(key)}, got {node}{quotes}")


def _and_its_origin(error: ValueError, key: Key, node: Node) -> str:
    """What is wrong with a value, and the variables that it was made of, whose values may be secrets."""
    if not isinstance(node, Scalar):
        return str(error)
    if not node.written:
        return f"{error}{of_unit(key.notation, node.text)}"
    what = f"expected {expected(key)}, got something else" if key.secret else str(error)
    return f"{what} (from {node.written})"


def _read(kind: Any, node: Scalar, key: Key) -> object:
    """The value of a scalar as ``kind``, BAD when it is none."""
    if get_origin(kind) is Literal:
        return node.text if node.text in get_args(kind) else BAD
    if kind is bool:
        return BOOLS.get(node.text.lower(), BAD)
    if kind is int:
        return int(node.text) if _WHOLE.fullmatch(node.text) and _in_range(int(node.text), key) else BAD
    return node.text if node.kind in (Kind.TEXT, Kind.NUMBER) else BAD


def _in_range(number: int, key: Key) -> bool:
    return (key.least is None or number >= key.least) and (key.most is None or number <= key.most)


def _expected(kind: Any, key: Key) -> str:
    if get_origin(kind) is Literal:
        return _either(get_args(kind))
    if kind is bool:
        return "true or false"
    if kind is int and key.most is not None:
        return f"a number from {key.least} to {key.most}"
    return f"a number of {key.least} or more" if kind is int else "a text"


def _either(values: tuple[str, ...]) -> str:
    """``"a"``, ``"a" or "b"``, ``"a", "b" or "c"``."""
    quoted = [f'"{value}"' for value in values]
    return " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _is_text(text: str) -> bool:
    """Whether the operating system takes ``text``: no NUL, no lone surrogate that it did not give itself."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
