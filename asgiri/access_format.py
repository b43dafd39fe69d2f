"""The language of ``log.access.format``: the names of the formats, and templates with ``{name}`` placeholders.

The configuration checks a format with this, and the access log is made of it; what a placeholder shows is in
:mod:`asgiri.log.access`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Each format by its name. All are templates; "json" differs in how it escapes, too. The last two are Apache's own,
# which every log analyser reads; nobody is ever logged in, so the two names of a user are "-".
COMMON: Final = '{host} - - [{time_clf}] "{method} {target} {protocol}" {status} {bytes_clf}'
FORMATS: Final = {
    "text": (
        "{time} HTTP  [worker {worker} gen {generation}] "
        '{client} "{method} {target} {protocol}" {status} {bytes}B {duration_ms}ms {request_id}'
    ),
    "json": (
        '{{"timestamp": "{time_iso}", "level": "info", "logger": "asgiri.access", "pid": {pid}, '
        '"role": "worker", "worker": {worker}, "generation": {generation}, '
        '"client": "{client}", "method": "{method}", "path": "{path}", "query": "{query}", '
        '"protocol": "{protocol}", "status": {status}, "bytes": {bytes}, "duration": {duration}, '
        '"request_id": "{request_id}"}}'
    ),
    "common": COMMON,
    "combined": f'{COMMON} "{{request_header:referer}}" "{{request_header:user-agent}}"',
}

# What a template may show, each with what it is.
PLACEHOLDERS: Final = {
    "time": "when the answer was complete, local time: 2026-11-23 16:08:01.123",
    "time_iso": "the same as in RFC 3339, with the UTC offset: 2026-11-23T16:08:01.123+01:00",
    "time_clf": "the same as in Apache's formats: 23/Nov/2026:16:08:01 +0100",
    "time_unix": "the same in seconds since 1970: 1795446481.123",
    "client": "address and port of the client, or unix",
    "host": "address of the client without the port, or unix",
    "port": "port of the client; - for unix",
    "method": "the request method",
    "target": "the request target as it was sent: path and query",
    "path": "the target up to its first question mark",
    "query": "the target after its first question mark; - without one",
    "protocol": "HTTP/1.1, HTTP/2",
    "status": "status of the answer; 499 when the client left before it began",
    "bytes": "bytes of the answer's content",
    "bytes_clf": "the same, and - for none",
    "duration": "how long the exchange took, in seconds: 0.001234",
    "duration_ms": "the same in milliseconds: 1.23",
    "worker": "number of the worker",
    "generation": "generation of the worker",
    "pid": "process id of the worker",
    "connection": "number of the connection in this worker",
    "request": "number of the request in its connection",
    "request_id": "what names the request among all",
    "request_header": "{request_header:NAME} is a field of the request; - without it",
}
_HEADER: Final = "request_header"

# A line shows what a template says; this much of it leaves the line room for the rest.
_MOST: Final = 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
_PARTS = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A part of a template: ``{name}``, or ``{name:argument}`` with the argument in lower case."""

    name: str
    argument: str = ""


class UnknownNameError(ValueError):
    """A name that is none of the ``known`` ones."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f'{what} "{name}"')
        self.name = name
        self.known = known


def parse_format(text: str) -> list[str | Placeholder]:
    """The parts of a format: literal texts and placeholders, in order.

    ``text`` is one of :data:`FORMATS` or a template, in which ``{{`` and ``}}`` stand for the braces themselves.
    Raises ValueError when it is neither, UnknownNameError where a name is at fault.
    """
    template = FORMATS.get(text, text)
    if len(template) > _MOST:
        raise ValueError(f"a template has {_MOST} characters at most, and this one {len(template)}")
    if not template.replace("\t", " ").isprintable() or not template.isascii():
        raise ValueError("a template is one line of printable ASCII, with blanks and tabs")
    parts = list(_parts(template))
    if not any(isinstance(part, Placeholder) for part in parts):
        raise UnknownNameError("neither format nor template with a {placeholder}:", text, FORMATS)
    return parts


def _parts(template: str) -> Iterator[str | Placeholder]:
    for part in _PARTS.findall(template):
        if part in ("{{", "}}"):
            yield part[0]
        elif part in ("{", "}"):
            raise ValueError(f'a single "{part}": a brace that stands for itself is doubled')
        elif part[0] == "{":
            yield _placeholder(part[1:-1])
        else:
            yield part


def _placeholder(text: str) -> Placeholder:
    name, colon, argument = text.partition(":")
    if name not in PLACEHOLDERS:
        raise UnknownNameError("unknown placeholder", name, PLACEHOLDERS)
    if name == _HEADER:
        if not _TOKEN.fullmatch(argument):
            raise ValueError(f"expected {{{_HEADER}:NAME}} with the name of a header field, got {{{text}}}")
    elif colon:
        raise ValueError(f"{{{name}}} takes nothing after its name, got {{{text}}}")
    return Placeholder(name, argument.lower())
