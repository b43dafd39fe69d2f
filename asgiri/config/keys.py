"""How a key of the schema describes itself: written with :func:`key`, read back as a :class:`Key`.

The decoder, the environment variables and the generated reference all read keys through here, so that what
there is to say about a key is said once, where it is declared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Notation = Literal["duration", "size", "octal", "bind"]


def key(
    description: str,
    *,
    unit: Literal["duration", "size"] | None = None,
    syntax: Literal["octal", "bind"] | None = None,
    least: int | None = None,
    most: int | None = None,
    filled: bool = False,
    entry: str = "",
    examples: tuple[str, ...] = (),
    stays: bool = False,
    secret: bool = False,
) -> msgspec.Meta:
    """What there is to know about a key besides its type and its default.

    ``unit``: a quantity that people write with its unit, and that the config holds in seconds or in bytes;
    ``syntax``: another notation of its own. ``least`` and ``most`` bound a number; a ``filled`` list has an
    entry. ``entry``: what a bare text from a flag (``--bind``) sets in a list of sections. ``examples`` are values
    as they stand in the file. A key that ``stays`` is not changed by a reload, only by an upgrade or a restart. What
    is ``secret`` is never shown in a log.
    """
    extra: dict[str, object] = {
        "unit": unit,
        "syntax": syntax,
        "least": least,
        "most": most,
        "entry": entry,
        "examples": examples,
        "stays": stays or None,
        "secret": secret or None,
    }
    extra = {name: value for name, value in extra.items() if value not in (None, "", ())}
    if filled:
        return msgspec.Meta(description=description, min_length=1, extra=extra)
    return msgspec.Meta(description=description, extra=extra)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a section, or an entry of a list or map.

    ``types`` are the alternatives of its type, None left out (with it, the key is ``optional``);
    ``default`` is ``msgspec.NODEFAULT`` when the key must be given.
    """

    name: str
    types: tuple[Any, ...]
    optional: bool
    meta: msgspec.Meta = field(default_factory=msgspec.Meta)
    default: object = msgspec.NODEFAULT

    @property
    def least(self) -> int | None:
        """The least number that it may be; None for what is no plain number."""
        found: int | None = self._extra("least", None)
        return found

    @property
    def most(self) -> int | None:
        """The greatest number that it may be; None: any."""
        found: int | None = self._extra("most", None)
        return found

    @property
    def notation(self) -> Notation | None:
        """The notation of its text, when that is not the plain one of its type."""
        found: Notation | None = self._extra("unit", None) or self._extra("syntax", None)
        return found

    @property
    def entry(self) -> str:
        """The key that a bare text stands for in this list of sections."""
        return str(self._extra("entry", ""))

    @property
    def examples(self) -> tuple[str, ...]:
        """Values for the documentation, each as it stands in the file."""
        found: tuple[str, ...] = self._extra("examples", ())
        return found

    @property
    def stays(self) -> bool:
        """Whether a reload leaves it as it is, and only an upgrade or a restart changes it."""
        return bool(self._extra("stays", False))

    @property
    def secret(self) -> bool:
        """Whether its value may be a secret: it is not shown in a log."""
        return bool(self._extra("secret", False))

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it may be; empty when it may be none."""
        return tuple(word for kind in self.types if get_origin(kind) is Literal for word in get_args(kind))

    @property
    def section(self) -> type[msgspec.Struct] | None:
        """The Struct that the value is; None when it is no section."""
        kind = self.types[0]
        return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None

    @property
    def container(self) -> Literal["section", "list", "map"] | None:
        """What kind of thing with entries the value is; None for a scalar."""
        if self.section:
            return "section"
        origin = get_origin(self.types[0])
        return "list" if origin is tuple else "map" if origin is dict else None

    def element(self) -> Key:
        """The key that an entry of this list or map is."""
        arguments = get_args(self.types[0])
        types, optional = _alternatives(arguments[0] if self.container == "list" else arguments[1])
        return Key(self.name, types, optional, self.meta)

    def _extra(self, name: str, default: Any) -> Any:
        return (self.meta.extra or {}).get(name, default)


@cache
def keys_of(section: type[msgspec.Struct]) -> dict[str, Key]:
    """Name -> key of a section, in the order of its declaration."""
    found = {}
    for info in msgspec.structs.fields(section):
        meta = msgspec.Meta()
        kind = info.type
        if get_origin(kind) is Annotated:
            kind, meta = get_args(kind)[:2]
        types, optional = _alternatives(kind)
        default = info.default
        if info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        found[info.name] = Key(info.name, types, optional, meta, default)
    return found


def paths(section: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Dotted path and key of all that can be set by name: sections and what is in them, not list entries."""
    for name, found in keys_of(section).items():
        yield prefix + name, found
        if found.section:
            yield from paths(found.section, f"{prefix}{name}.")


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """``; did you mean "..."?`` for the known name that looks most like ``name``; empty when none does.

    The ``prefix`` is what all names begin with; it is shown, and says nothing about likeness.
    """
    import difflib  # only what is wrong needs it

    close = difflib.get_close_matches(name.removeprefix(prefix), [one.removeprefix(prefix) for one in known], n=1)
    return f'; did you mean "{prefix}{close[0]}"?' if close else ""


def _alternatives(kind: Any) -> tuple[tuple[Any, ...], bool]:
    """The members of a union without None, and whether None was among them."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(member for member in members if member is not NoneType), NoneType in members
