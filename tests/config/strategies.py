"""Whatever the schema can hold, made of its keys. What is wrong between keys (checks.py) may be in it."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import msgspec
from hypothesis import strategies as st

from asgiri.config.keys import Key, keys_of

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
BINDS = st.sampled_from(
    ["127.0.0.1:8000", "[::1]:0", "localhost:80", "unix:/run/a b.sock", "unix:@x", "fd:3", "systemd"]
)


def sections(section: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return st.builds(section, **{name: values(key) for name, key in keys_of(section).items()})


def values(key: Key) -> st.SearchStrategy[Any]:
    """Values of a key as the config has them; often the default, where there is one."""
    found = _value(key)
    if key.optional:
        found = st.none() | found
    return found if key.default is msgspec.NODEFAULT else st.just(key.default) | found


def _value(key: Key) -> st.SearchStrategy[Any]:
    if key.section:
        return sections(key.section)
    if key.container == "list":
        return st.lists(_value(key.element()), min_size=key.meta.min_length or 0, max_size=3).map(tuple)
    if key.container == "map":
        return st.dictionaries(TEXTS, _value(key.element()), max_size=3)
    match key.notation:
        case "duration":
            return st.integers(0, 10**10).map(lambda milliseconds: milliseconds / 1000)
        case "size":
            return st.integers(0, 1 << 50)
        case "octal":
            return st.integers(0, 0o777)
        case "bind":
            return BINDS
    return st.one_of([_plain(kind, key) for kind in key.types])


def _plain(kind: Any, key: Key) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is bool:
        return st.booleans()
    return st.integers(key.least, key.most or 10**9) if kind is int else TEXTS
