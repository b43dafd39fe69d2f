"""Files of ``KEY=VALUE`` lines, as ``env_file`` names them and as containers and systemd units use them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asgiri.config.nodes import Faults, Place
from asgiri.config.text import SourceError, read_text

if TYPE_CHECKING:
    import os

_LINE = re.compile(r"(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.ASCII | re.DOTALL)
_SINGLE = re.compile(r"'(?P<text>[^']*)'(?P<rest>.*)", re.DOTALL)
_DOUBLE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"(?P<rest>.*)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_COMMENT = re.compile(r"[ \t]+#.*", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$", "`": "`"}


def read_env_file(path: str | os.PathLike[str]) -> dict[str, str]:
    """The variables of a file; a later line goes over an earlier one of the same name.

    Blank lines and lines that begin with ``#`` are passed over, ``export`` before a name is allowed. A
    value in single quotes is taken as it is; in double quotes ``\\n``, ``\\r``, ``\\t``, ``\\"``, ``\\\\``
    and ``\\$`` are escapes; without quotes it ends at the line's end or at `` #``. Nothing is expanded.
    Raises ConfigError with every bad line.
    """
    faults = Faults()
    variables: dict[str, str] = {}
    for number, line in enumerate(_lines(path, faults), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            name, value = _parse_line(text)
        except ValueError as error:
            faults.add(Place(f"{path}:{number}"), "", str(error))
        else:
            variables[name] = value
    faults.raise_any()
    return variables


def _lines(path: str | os.PathLike[str], faults: Faults) -> list[str]:
    try:
        return read_text(path).split("\n")
    except SourceError as error:
        if error.line:
            faults.add(Place(f"{path}:{error.line}"), "", error.what)
        else:
            faults.add(Place(""), "env_file", error.what)
        return []


def _parse_line(text: str) -> tuple[str, str]:
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError("expected KEY=VALUE")
    value = _parse_value(match["value"])
    if "\0" in value:
        raise ValueError("a value cannot have a NUL character")
    return match["name"], value


def _parse_value(text: str) -> str:
    if not text.startswith(("'", '"')):
        return _COMMENT.sub("", text, count=1).rstrip()
    match = (_SINGLE if text.startswith("'") else _DOUBLE).fullmatch(text)
    if match is None:
        raise ValueError(f"the quote {text[0]} is not closed on its line")
    if _COMMENT.sub("", match["rest"], count=1).strip():
        raise ValueError("unexpected text after the closing quote")
    if text.startswith("'"):
        return match["text"]
    return _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[0]), match["text"])
