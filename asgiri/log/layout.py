"""What a line of the access log looks like: a format made ready, which turns a batch of exchanges into lines.

A batch is flat: the values of :class:`Field` of the first exchange, then those of the second, and so on. All values of
a field are one slice of it, a column. A placeholder makes a column of texts, and a join puts these between the literal
texts of the format. Each step is a call for a whole batch: that costs half of what formatting line by line does.

No byte of the peer can forge a line, break one or steer a terminal: what is not printable ASCII, the quote and the
backslash are shown as ``\\xNN``; in JSON as JSON has it, with a character for a byte (Latin-1).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

import msgspec

from asgiri.access_format import FORMATS, Placeholder, parse_format
from asgiri.types import Headers

# The longest line, in bytes: what a pipe takes whole (on Linux), so that no worker writes into a line of another.
LINE_SIZE: Final = 4096
# Characters of a line that a placeholder has which is never long, and the longest method shown.
_SHORT = 64
_CUT = "[...]"

_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
_NOT_PLAIN = re.compile(r"[^ !#-\[\]-~]")

_encode = msgspec.json.Encoder().encode

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"))
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Durations whose text is remembered: those of the quick requests, which would feel the cost of making it.
_REMEMBERED = 2048

Batch: TypeAlias = list[Any]
Column: TypeAlias = Callable[[Batch], Iterable[str]]


class Field(IntEnum):
    """The place of a value among those of its exchange."""

    STAMP = 0  # of Layout.stamp
    CLIENT = 1
    METHOD = 2
    TARGET = 3
    VERSION = 4
    PICKED = 5  # of Layout.pick
    STATUS = 6
    SIZE = 7
    SECONDS = 8
    CONNECTION = 9
    REQUEST = 10


WIDTH: Final = len(Field)


@dataclass(frozen=True, slots=True)
class Source:
    """The process that writes. ``prefix`` begins its request ids, and those of no other process."""

    worker: int
    generation: int
    pid: int
    prefix: str

    def request_id(self, connection: int, request: int) -> str:
        """What names a request among all: ``5f3a9c1e-4711-12``, with the numbers of its connection and its own."""
        return f"{self.prefix}-{connection}-{request}"


class Layout:
    """A format made ready for one process. Raises ValueError for what is no format (see ``parse_format``).

    ``lead`` is what each line begins with; not ``stamped``: the format "text" shows no time.
    """

    def __init__(self, format: str, source: Source, *, lead: str = "", stamped: bool = True) -> None:  # noqa: A002
        self.source = source
        unstamped = format == "text" and not stamped
        parts = parse_format(FORMATS[format].removeprefix("{time} ") if unstamped else format)
        if lead:
            parts = [lead, *parts]
        names = [part for part in parts if isinstance(part, Placeholder)]
        self._escape, self._none = (_escape_json, b"") if format == "json" else (_escape_text, b"-")
        self._most = _most(parts)
        self._faces = [_FACES[name] for name in dict.fromkeys(part.name for part in names) if name in _FACES]
        self._second: int | None = None
        self._patterns: list[str] = []
        self._wanted = frozenset(part.argument.encode() for part in names if part.argument)
        pieces = _merged([*(piece for part in parts for piece in self._pieces(part, source)), "\n"])
        self._row = [piece if isinstance(piece, str) else "" for piece in pieces]
        self._columns = [(place, piece) for place, piece in enumerate(pieces) if not isinstance(piece, str)]

    @property
    def picks(self) -> bool:
        """Whether the format shows fields of the request, so that :meth:`pick` has something to do."""
        return bool(self._wanted)

    def pick(self, headers: Headers) -> dict[bytes, bytes]:
        """Of a request's header, with names in lower case, the fields that the format shows."""
        wanted = self._wanted
        picked: dict[bytes, bytes] = {}
        for name, value in headers:
            if name in wanted:  # several of a name are one list (RFC 9110 section 5.2)
                picked[name] = value if name not in picked else b"%b, %b" % (picked[name], value)
        return picked

    def stamp(self, now: float) -> tuple[object, float]:
        """The time ``now``, seconds since 1970, for a batch, and until when it is the same: to the millisecond."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._patterns = [face(second) for face in self._faces]
        millisecond = int((now - second) * 1000)
        shown = [pattern.replace("MS", f"{millisecond:03d}") for pattern in self._patterns]
        return shown[0] if len(shown) == 1 else shown, second + (millisecond + 1) / 1000

    def render(self, batch: Batch) -> bytes:
        """The lines of a batch."""
        width = len(self._row)
        row = self._row * (len(batch) // WIDTH)
        for place, column in self._columns:
            row[place::width] = column(batch)
        return "".join(row).encode("ascii", "backslashreplace")

    # Placeholders to pieces: texts, the same in each line, and columns

    def _pieces(self, part: str | Placeholder, source: Source) -> list[str | Column]:
        if isinstance(part, str):
            return [part]
        if part.name in _COLUMNS:
            return [_COLUMNS[part.name]]
        if part.name in _FACES:
            return [self._times(_FACES[part.name])]
        match part.name:
            case "method":
                return [self._methods]
            case "target":
                return [self._targets]
            case "path":
                return [self._paths]
            case "query":
                return [self._queries]
            case "request_header":
                return [self._picked(part.argument.encode())]
            case "request_id":
                return [f"{source.prefix}-", _COLUMNS["connection"], "-", _COLUMNS["request"]]
            case "worker" | "generation" | "pid":
                return [str(getattr(source, part.name))]
        raise AssertionError(part)

    def _times(self, face: Callable[[int], str]) -> Column:
        if len(self._faces) == 1:
            return _field(Field.STAMP)
        place = self._faces.index(face)
        return lambda batch: [stamp[place] for stamp in batch[Field.STAMP :: WIDTH]]

    def _methods(self, batch: Batch) -> Iterable[str]:
        column: list[str] = batch[Field.METHOD :: WIDTH]
        if _METHODS.issuperset(column):
            return column
        return self._shown([method.encode("latin-1", "backslashreplace") or self._none for method in column], _SHORT)

    def _targets(self, batch: Batch) -> Iterable[str]:
        return self._shown([target or self._none for target in batch[Field.TARGET :: WIDTH]], self._most)

    def _paths(self, batch: Batch) -> Iterable[str]:
        return self._shown([target.partition(b"?")[0] for target in batch[Field.TARGET :: WIDTH]], self._most)

    def _queries(self, batch: Batch) -> Iterable[str]:
        parts = [target.partition(b"?") for target in batch[Field.TARGET :: WIDTH]]
        return self._shown([query if mark else self._none for _, mark, query in parts], self._most)

    def _picked(self, name: bytes) -> Column:
        none = self._none
        return lambda batch: self._shown(
            [picked.get(name, none) for picked in batch[Field.PICKED :: WIDTH]], self._most
        )

    def _shown(self, values: Sequence[bytes], most: int) -> Iterable[str]:
        """What peers sent, fit for a line and no longer than ``most`` characters each."""
        joined = b"\n".join(values)
        if len(joined.translate(None, _PLAIN)) == len(values) - 1 and _all_short(joined, most):
            return joined.decode("ascii").split("\n")
        return [self._shown_alone(value, most) for value in values]

    def _shown_alone(self, value: bytes, most: int) -> str:
        value = value[: most + 1]
        text = self._escape(value)
        if len(text) <= most:
            return text
        room = most - len(_CUT)
        while len(text) > room:  # cut the bytes and not the text, which may be in the middle of an escape there
            value = value[: len(value) * room // len(text)]
            text = self._escape(value)
        return text + _CUT


def _merged(pieces: Iterable[str | Column]) -> list[str | Column]:
    """The same pieces, with texts that follow each other made one: a line costs by the piece."""
    merged: list[str | Column] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(piece, str) and isinstance(last, str):
            merged[-1] = last + piece
        else:
            merged.append(piece)
    return merged


def _most(parts: list[str | Placeholder]) -> int:
    """How many characters each text of the peer may have, so that they and all else fit a line."""
    long = sum(isinstance(part, Placeholder) and part.name in _LONG for part in parts)
    rest = sum(len(part) if isinstance(part, str) else _SHORT * (part.name not in _LONG) for part in parts)
    return max(_SHORT, (LINE_SIZE - rest - 1) // max(long, 1))


def _all_short(lines: bytes, most: int) -> bool:
    """Whether no line is longer than ``most``; "no" is also said of some lines that are longer than half of that.

    A line that is too long fills one of the stretches of half that length. These are few, and lines are many.
    """
    half = most // 2
    return all(lines.find(b"\n", start, start + half) >= 0 for start in range(0, len(lines) - half + 1, half))


# How the peer's bytes are shown


def _escape_text(value: bytes) -> str:
    return _NOT_PLAIN.sub(lambda match: f"\\x{ord(match[0]):02x}", value.decode("latin-1"))


def _escape_json(value: bytes) -> str:
    import json  # most formats have no need for it

    return json.dumps(value.decode("latin-1"))[1:-1]


# How the time is shown, with MS in the place of the milliseconds; that is all that changes within a second


def _time(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S.MS", time.localtime(second))


def _time_iso(second: int) -> str:
    offset = _offset(second)
    return time.strftime("%Y-%m-%dT%H:%M:%S.MS", time.localtime(second)) + f"{offset[:3]}:{offset[3:]}"


def _time_clf(second: int) -> str:
    local = time.localtime(second)  # and English, whatever the locale of the application
    return f"{local.tm_mday:02d}/{_MONTHS[local.tm_mon - 1]}/{time.strftime('%Y:%H:%M:%S', local)} {_offset(second)}"


def _time_unix(second: int) -> str:
    return f"{second}.MS"


def _offset(second: int) -> str:
    """The offset of the local time from UTC then: ``+0100``."""
    minutes = time.localtime(second).tm_gmtoff // 60
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


_FACES: dict[str, Callable[[int], str]] = {
    "time": _time,
    "time_iso": _time_iso,
    "time_clf": _time_clf,
    "time_unix": _time_unix,
}

# Columns that depend on nothing but the batch


def _field(field: Field) -> Column:
    """What is a text already, and of our own making."""
    return lambda batch: batch[field::WIDTH]


def _numbers(field: Field) -> Column:
    """Whole numbers. An encoder makes their texts in a fifth of the time that ``str`` takes."""
    return lambda batch: _encode(batch[field::WIDTH])[1:-1].decode("ascii").split(",")


def _bytes_clf(batch: Batch) -> Iterable[str]:
    return ["-" if text == "0" else text for text in _numbers(Field.SIZE)(batch)]


def _hosts(batch: Batch) -> Iterable[str]:
    column = batch[Field.CLIENT :: WIDTH]
    hosts = {client: client.rpartition(":")[0].strip("[]") or client for client in set(column)}
    return [hosts[client] for client in column]


def _ports(batch: Batch) -> Iterable[str]:
    return [client.rpartition(":")[2] if ":" in client else "-" for client in batch[Field.CLIENT :: WIDTH]]


def _seconds(batch: Batch) -> Iterable[str]:
    column = batch[Field.SECONDS :: WIDTH]
    return ("%.6f\n" * len(column) % tuple(column)).split()


def _milliseconds(batch: Batch) -> Iterable[str]:
    column: list[float] = batch[Field.SECONDS :: WIDTH]
    return [_HUNDREDTHS[int(seconds * 1e5 + 0.5)] for seconds in column]


class _Hundredths(dict[int, str]):
    """Numbers of hundredths and their texts."""

    def __missing__(self, number: int) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[number] = text = f"{number / 100:.2f}"
        return text


_HUNDREDTHS = _Hundredths()

_COLUMNS: dict[str, Column] = {
    "client": _field(Field.CLIENT),
    "host": _hosts,
    "port": _ports,
    "protocol": _field(Field.VERSION),
    "status": _numbers(Field.STATUS),
    "bytes": _numbers(Field.SIZE),
    "bytes_clf": _bytes_clf,
    "duration": _seconds,
    "duration_ms": _milliseconds,
    "connection": _numbers(Field.CONNECTION),
    "request": _numbers(Field.REQUEST),
}

# What may be long: whatever the peer makes as long as it likes.
_LONG = frozenset(("target", "path", "query", "request_header"))
