"""YAML text to nodes: the plain part of YAML that a configuration needs, and a clear refusal of the rest.

Built on PyYAML's events, not on its composer: events do not recurse, so the depth of a text is bounded
here, and anchors, tags and further documents are refused before anything is made of them. Plain scalars
follow the core schema of YAML 1.2 (section 10.3.2): ``on``, ``off`` and ``1:30`` are texts, and ``0660``
keeps its zeros.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import yaml

from asgiri.config.nodes import Entry, Faults, Kind, Mapping, Node, Place, Scalar, Sequence
from asgiri.config.text import FILE_MOST, SourceError, read_text
from asgiri.config.variables import TooLargeError, expand, has_variables, names_one

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as AbstractMapping
    from pathlib import Path

_DEPTH_MOST = 16
_NODES_MOST = 20_000  # about a second of PyYAML's time

_KINDS = (
    (Kind.NULL, re.compile(r"(?:null|Null|NULL|~|)")),
    (Kind.BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)")),
    (Kind.NUMBER, re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)),
    (Kind.NUMBER, re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)),
)
# How PyYAML's messages begin, with what it was at, and what whoever has written such a thing wants to know.
_MEANT = {
    "mapping values are not allowed": 'look at the indentation, and for a colon without a blank above; a text with ": "'
    " in it stands in quotes",
    "could not find expected ':'": "a key has a colon and a blank behind it",
    "found character '\\t'": "",  # a tab has nothing to do with the text behind it
    "found character '": "a text that begins with it stands in quotes",
    "expected alphabetic or numeric character": "a text that begins with * or & stands in quotes",
    "expected the node content, but found ':'": "a text that begins with a bracket stands in quotes",
    **dict.fromkeys(
        (f"expected <block end>, but found '{what}'" for what in ("<scalar>", "{", "[", "}", "]")),
        "nothing stands behind a closing quote or bracket; quotes go around a whole text",
    ),
    "expected <block end>": "what belongs together is indented alike",
}
_TAB_INDENT = re.compile(r"^ *\t[ \t]*(?=\S)", re.MULTILINE)


def parse_file(path: Path, asked_by: str, environ: AbstractMapping[str, str], faults: Faults) -> Node | None:
    """The nodes of a YAML file; None, with the reason in ``faults``, when it cannot be read as one.

    A file that is not there is the fault of what it was ``asked_by`` (a flag or a variable; empty: nothing). Variables
    in its values are those of ``environ``.
    """
    try:
        text = read_text(path)
    except SourceError as error:
        place = Place(str(path), error.line, error.column) if error.line else Place(asked_by or str(path))
        faults.add(place, "", error.what + _looked_in(path, error))
        return None
    if tab := _TAB_INDENT.search(text):
        line = text.count("\n", 0, tab.end()) + 1
        faults.add(Place(str(path), line, tab.group().index("\t") + 1), "", "a tab cannot indent; use spaces")
        return None
    return _parse(_Reader(text, str(path), faults, environ), "")


def _looked_in(path: Path, error: SourceError) -> str:
    """For a file that is not there: the directory that its path starts in, where the path does not say so."""
    if path.is_absolute() or not isinstance(error.__cause__, FileNotFoundError):
        return ""
    try:
        return f"; looked in {os.getcwd()}"
    except OSError:
        return "; the working directory is gone"


def parse(text: str, name: str, faults: Faults, path: str = "") -> Node | None:
    """The nodes of a YAML text from elsewhere; None, with the reason in ``faults``, when it is not YAML.

    ``name`` is the flag or variable that it comes from, and the place of all that is in it. ``path`` is the dotted
    path of the key that the text is the value of.
    """
    return _parse(_Reader(text, name, faults), path)


def _parse(reader: _Reader, path: str) -> Node | None:
    try:
        return reader.document(path)
    except SourceError as error:
        reader.refuse(error, path)
        return None


class _Reader:
    """Turns the events of one text into nodes. Raises SourceError for what is not the plain part of YAML.

    With an ``environ`` the text is a file: its values may have variables, and its lines have numbers.
    """

    def __init__(self, text: str, name: str, faults: Faults, environ: AbstractMapping[str, str] | None = None) -> None:
        self._events = _events(text)
        self._name = name
        self._faults = faults
        self._environ = environ
        self._lines = environ is not None
        self._nodes = 0
        self._room = FILE_MOST  # for what variables bring in

    def refuse(self, error: SourceError, path: str) -> None:
        where = Place(self._name, error.line, error.column) if self._lines else Place(self._name)
        self._faults.add(where, path, error.what)

    def document(self, path: str) -> Node:
        """The only document of the text; nothing at all is a null."""
        next(self._events)  # the start of the stream
        start = next(self._events)
        if isinstance(start, yaml.StreamEndEvent):
            return Scalar(self._place(start), "", Kind.NULL)
        node = self._value(next(self._events), path, 0)
        next(self._events)  # the end of the document
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            raise _refusal("expected one document, found a second", more)
        return node

    def _value(self, event: yaml.Event, path: str, depth: int) -> Node:
        """A node that is no key: with its variables put in."""
        node = self._node(event, path, depth)
        if self._environ is None or not isinstance(node, Scalar) or not has_variables(node.text):
            return node
        try:
            text = expand(node.text, self._environ, self._room)
        except TooLargeError:
            raise _refusal("its variables bring in more than 1MiB", event) from None
        except ValueError as error:
            self._faults.add(node.place, path, str(error))
            return Scalar(node.place, node.text, Kind.BROKEN)
        self._room -= len(text)
        kind = _kind(text) if _is_plain(event) else Kind.TEXT
        return Scalar(node.place, text, kind, node.text if names_one(node.text) else "")

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refusal("anchors and aliases (& and *) are not supported", event)
        if getattr(event, "tag", None) is not None:
            raise _refusal("tags (!) are not supported", event)
        if depth > _DEPTH_MOST:
            raise _refusal(f"nested more than {_DEPTH_MOST} levels deep", event)
        self._nodes += 1
        if self._nodes > _NODES_MOST:
            raise _refusal(f"more than {_NODES_MOST} values", event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, path, depth)
        assert isinstance(event, yaml.ScalarEvent)  # the grammar of events leaves nothing else
        return Scalar(self._place(event), event.value, _kind(event.value) if _is_plain(event) else Kind.TEXT)

    def _sequence(self, start: yaml.Event, path: str, depth: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, f"{path}[{len(items)}]", depth + 1))
        return Sequence(self._place(start), tuple(items))

    def _mapping(self, start: yaml.Event, path: str, depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            found = self._node(event, path, depth + 1)
            if not isinstance(found, Scalar):
                raise _refusal(f"expected a text as the key, got {found}", event)
            if found.text == "<<" and found.kind is Kind.TEXT and _is_plain(event):
                raise _refusal("merge keys (<<) are not supported", event)
            below = f"{path}.{found.text}" if path else found.text
            entry = Entry(found.place, self._value(next(self._events), below, depth + 1))
            if first := entries.get(found.text):
                line = f"; the first is on line {first.place.line}" if self._lines else ""
                self._faults.add(found.place, below, f"given twice{line}")
            else:
                entries[found.text] = entry
        return Mapping(self._place(start), entries)

    def _place(self, event: yaml.Event) -> Place:
        return Place(self._name, *_position(event)) if self._lines else Place(self._name)


def _events(text: str) -> Iterator[yaml.Event]:
    """The events of ``text``; whatever PyYAML raises on the way comes out as SourceError."""
    try:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise SourceError(f"not valid YAML: character U+{ord(text[error.position]):04X}", line, column) from error
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from error
    except (ValueError, OverflowError) as error:
        # PyYAML passes digits on to int() and chr() unseen: "\UFFFFFFFF" in quotes, an endless %YAML version.
        raise SourceError("not valid YAML: a character escape or version number is out of range") from error


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> SourceError:
    """One line for an error of PyYAML's, with the line of what it was in the middle of if that is another."""
    problem = " ".join(str(error.problem or error.context).split())
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    begun = error.context_mark
    if error.context and begun and begun.line + 1 != line:
        problem += f" ({' '.join(error.context.split())} that begins on line {begun.line + 1})"
    if mark and text[mark.index - 1 : mark.index + 1] == "${":  # a brace of YAML's, there
        hint = "within brackets, a value with a variable stands in quotes"
    else:
        hint = next((hint for begin, hint in _MEANT.items() if problem.startswith(begin)), "")
    return SourceError(f"not valid YAML: {problem}{hint and f'; {hint}'}", line, column)


def _refusal(what: str, event: yaml.Event) -> SourceError:
    return SourceError(what, *_position(event))


def _position(event: yaml.Event) -> tuple[int, int]:
    """Line and column of the start of an event, from 1."""
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _is_plain(event: yaml.Event) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.implicit[0]


def _kind(text: str) -> Kind:
    """What a plain scalar of this text is."""
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(text)), Kind.TEXT)
