"""Variables in the values of the file: ``${NAME}``, ``${NAME:-text}``, and ``$${`` for ``${`` itself.

The text is read once, from the left: what a variable brings in is taken as it is. Flags and the environment variables
of keys have no part in this: a shell has had its turn there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# An escape, or the name and what follows it up to the first closing brace.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.ASCII | re.DOTALL)

EXPECTED = "${NAME}, ${NAME:-text}, or $${ for ${ itself"


def has_variables(text: str) -> bool:
    """Whether anything in ``text`` is to be replaced, an escape too."""
    return "${" in text


class TooLargeError(Exception):
    """Variables bring in more than there is room for."""


def expand(text: str, environ: Mapping[str, str], room: int) -> str:
    """``text`` with its variables put in.

    Raises ValueError, which says what was expected, when that cannot be done, and TooLargeError once the values are
    of more than ``room`` characters: before they are put together, as a short text may ask for gigabytes.
    """

    def value(match: re.Match[str]) -> str:
        nonlocal room
        found = _value(match, environ)
        room -= len(found)
        if room < 0:
            raise TooLargeError
        return found

    return _REFERENCE.sub(value, text)


def names_one(text: str) -> bool:
    """Whether ``text`` refers to a variable: an escape alone does not."""
    return any(match[0] != "$${" for match in _REFERENCE.finditer(text))


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["inside"] is None:
        return "${"
    if not match["end"]:
        raise ValueError(f'expected {EXPECTED}, got "{match[0]}" without its closing brace')
    found = _INSIDE.fullmatch(match["inside"])
    if found is None:
        raise ValueError(f'expected {EXPECTED}, got "{match[0]}"')
    name, default = found["name"], found["default"]
    if default is not None and "${" in default:
        raise ValueError(f'a variable cannot stand in the text of another one, got "{match[0]}"')
    value = environ.get(name, "")
    if default is not None:
        return value or default
    if name not in environ:
        raise ValueError(f"the environment has no variable {name}; ${{{name}:-text}} says what is taken then")
    return value
