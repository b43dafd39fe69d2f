"""Values as people write them: the reverse of decode.py, for all that shows a configuration."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from asgiri.config.keys import keys_of
from asgiri.units import format_duration, format_size, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asgiri.config.keys import Key

NONE: Final[Mapping[str, str]] = MappingProxyType({})

# Texts that stand in YAML as they are, in a list in brackets too, and are read as texts again. By parsers of YAML 1.1
# as well: editors and other tools read the file. What begins as .5, .inf and .nan do may be a number; an IPv4 address
# with its port is none.
_WORD = r"(?!\.[0-9iInN])[A-Za-z_./][A-Za-z0-9_./+@%=-]*(?::[A-Za-z0-9_./@%=-]+)*"
_PLAIN = re.compile(rf"{_WORD}|[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}:[0-9]{{1,5}}", re.ASCII)
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def written(key: Key, value: object, path: str = "", variables: Mapping[str, str] = NONE) -> str:
    """``value`` of ``key`` in one line of YAML that is read as the same: ``30s``, ``"0660"``, ``[h2, http/1.1]``.

    ``variables`` are the texts of the file that variables were put into, by dotted path (``Loaded.written``): where the
    ``path`` of the value, or of one in it, is among them, that text stands there.
    """
    if path in variables:  # in quotes it is a text, of which everything but a null is read
        return variables[path] if value is None else in_quotes(variables[path])
    if value is None:
        return "null"
    if isinstance(value, msgspec.Struct):
        known = keys_of(type(value)).items()
        pairs = (f"{name}: {written(one, getattr(value, name), f'{path}.{name}', variables)}" for name, one in known)
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, dict):
        one = key.element()
        pairs = (f"{named(name)}: {written(one, item, f'{path}.{name}', variables)}" for name, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, tuple):
        one = key.element()
        texts = (written(one, item, f"{path}[{index}]", variables) for index, item in enumerate(value))
        return f"[{', '.join(texts)}]"
    return _scalar(key, value)


def quoted(text: str) -> str:
    """``text`` as YAML, in quotes where it needs them; what would be read as a variable is escaped (``$${``)."""
    return named(text.replace("${", "$${"))


def named(text: str) -> str:
    """``text`` as a key of YAML, in quotes where it needs them: there are no variables in keys."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else in_quotes(text)


def in_quotes(text: str) -> str:
    """``text`` as YAML in double quotes, with the variables (``${NAME}``) that it has."""
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _scalar(key: Key, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    match key.notation:
        case "duration":
            return _duration(float(str(value)))
        case "size":
            return format_size(int(str(value)))
        case "octal":
            return f'"{value:04o}"'
    return str(value) if isinstance(value, int) else quoted(str(value))


def _duration(seconds: float) -> str:
    text = format_duration(seconds)
    if parse_duration(text) != seconds:  # it has less than milliseconds
        from decimal import Decimal  # rare, and slow to import

        text = f"{Decimal(repr(seconds)):.20f}".rstrip("0").rstrip(".")
    return text


def _escaped(letter: str) -> str:
    """A letter within double quotes (YAML 1.2 section 5.7)."""
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
