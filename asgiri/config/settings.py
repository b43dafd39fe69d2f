"""Settings from outside the file, from flags and environment variables, and how they go over it."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct

from asgiri.config.keys import Key, keys_of, nearest, paths
from asgiri.config.nodes import Entry, Faults, Kind, Mapping, Node, Place, Scalar, Sequence, is_null
from asgiri.config.schema import Config

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as AbstractMapping

PREFIX = "ASGIRI_"
CONFIG_VARIABLE = "ASGIRI_CONFIG"
# Variables that others have made common, and the key that each sets.
COMMON_VARIABLES = {"WEB_CONCURRENCY": "workers.count", "PORT": "listen"}
# What a build reads (setup.py): an image that was built with it has it when it runs, too.
BUILD_VARIABLE = "ASGIRI_COMPILE"

# With the name of a Service in front, what Kubernetes tells every pod of its namespace; _SERVICE_HOST is always there.
_SERVICE = "_SERVICE_HOST"
_OF_SERVICE = re.compile(
    r"(?:_SERVICE_HOST|_SERVICE_PORT(?:_[A-Z0-9_]+)?|_PORT(?:_[0-9]+_[A-Z]+(?:_[A-Z]+)?)?)", re.ASCII
)

# Variables that others have made common, and the key that each sets.
COMMON_VARIABLES = {"WEB_CONCURRENCY": "workers.count", "PORT": "listen"}


class Setting(Struct, frozen=True):
    """One key set by a flag or an environment variable.

    ``name`` is what the user typed (``--workers``, ``WEB_CONCURRENCY``), ``path`` the dotted path of the
    key, which may go on into a map (``env.NAME``). A tuple is a repeated flag and sets a list; for a list
    of sections each of its texts is the main key of one (``bind``, for ``listen``). The text for a list,
    map or section is YAML.
    """

    name: str
    path: str
    value: str | bool | tuple[str, ...]


def from_environment(environ: AbstractMapping[str, str], flags: Iterable[Setting], faults: Faults) -> list[Setting]:
    """The settings that the environment makes, the weakest first. An empty variable is as good as none.

    Unknown ``ASGIRI_`` variables go to ``faults``. PORT binds only where neither a flag nor ASGIRI_LISTEN
    does.
    """
    found = []
    if count := environ.get("WEB_CONCURRENCY"):
        found.append(Setting("WEB_CONCURRENCY", COMMON_VARIABLES["WEB_CONCURRENCY"], count))
    bound = environ.get(f"{PREFIX}LISTEN") or any(flag.path == "listen" for flag in flags)
    if (port := environ.get("PORT")) and not bound:
        found.append(Setting("PORT", COMMON_VARIABLES["PORT"], (f"0.0.0.0:{port}",)))
    known = variables()
    unknown = []
    for name in sorted(environ):  # by name, so that a section comes before its keys
        if name in known:
            if environ[name]:
                found.append(Setting(name, known[name], environ[name]))
        elif name.startswith(PREFIX) and name not in (CONFIG_VARIABLE, BUILD_VARIABLE):
            unknown.append(name)
    services = [name.removesuffix(_SERVICE) for name in unknown if name.endswith(_SERVICE)]
    for name in unknown:
        if not any(name.startswith(one) and _OF_SERVICE.fullmatch(name, len(one)) for one in services):
            faults.add(Place(name), "", f"no such variable{_meant(name)}")
    return found


def _meant(name: str) -> str:
    """For a variable that there is not: what somebody may have meant."""
    known = variables()
    whole = dict(paths(Config))
    above, levels, _ = name.rpartition("__")
    while levels:
        if above in known and whole[known[above]].container in ("list", "map"):
            return f"; {above} is for the whole {whole[known[above]].container}, as YAML"
        above, levels, _ = above.rpartition("__")
    bare = name.upper().removeprefix(PREFIX)
    if bare in COMMON_VARIABLES:
        return f'; did you mean "{bare}"?'
    from asgiri.config.hints import of_key  # only what is wrong needs it

    return nearest(name.upper(), [*known, CONFIG_VARIABLE], PREFIX) or of_key(bare, Config, ())


@cache
def variables() -> dict[str, str]:
    """Environment variable -> dotted path, for every key."""
    return {PREFIX + path.upper().replace(".", "__"): path for path, _ in paths(Config)}


def lay_over(tree: Mapping, setting: Setting, faults: Faults) -> Mapping:
    """The tree with ``setting`` in it; the tree alone, with the reason in ``faults``, when it cannot be."""
    place = Place(setting.name)
    located = _locate(setting.path)
    if located is None:
        guess = nearest(setting.path, [path for path, _ in paths(Config)])
        faults.add(place, "", f'unknown key "{setting.path}"{guess}')
        return tree
    path, key = located
    node = _node(setting, key, faults)
    return tree if node is None else _put(tree, path, node, key)


def _locate(path: str) -> tuple[list[str], Key] | None:
    """The names that lead to a key, and the key; the name of a map's entry may itself have dots."""
    names: list[str] = []
    known = keys_of(Config)
    rest = path
    while rest:
        name, _, rest = rest.partition(".")
        if (key := known.get(name)) is None:
            return None
        names.append(name)
        if not rest:
            return names, key
        if key.container == "map":
            return [*names, rest], key.element()
        if key.section is None or key.optional:
            return None
        known = keys_of(key.section)
    return None


def _node(setting: Setting, key: Key, faults: Faults) -> Node | None:
    """The value of a setting as it would stand in the file; None when it is not YAML and should be."""
    place = Place(setting.name)
    value = setting.value
    if isinstance(value, tuple):
        return Sequence(place, tuple(_entry(Scalar(place, text), key.entry) for text in value))
    if isinstance(value, bool):
        return Scalar(place, "true" if value else "false", Kind.BOOL)
    if key.container:
        from asgiri.config.source import parse  # and with it YAML: only where there is some

        return parse(value, setting.name, faults, setting.path)
    null = key.optional and value in ("", "~", "null")
    return Scalar(place, value, Kind.NULL if null else Kind.TEXT)


def _entry(text: Scalar, name: str) -> Node:
    return Mapping(text.place, {name: Entry(text.place, text)}) if name else text


def _put(tree: Mapping, path: list[str], node: Node, key: Key) -> Mapping:
    """``tree`` with ``node`` at ``path``. A section goes over what is there key by key, all else replaces."""
    if key.section and isinstance(node, Mapping):
        known = keys_of(key.section)
        for name, entry in node.entries.items():
            below = known.get(name, Key(name, (str,), False))
            tree = _put(tree, [*path, name], entry.value, below)
        return tree
    return _replace(tree, path, node)


def _replace(tree: Mapping, path: list[str], node: Node) -> Mapping:
    name, *rest = path
    if rest:
        entry = tree.entries.get(name)
        below = entry.value if entry and not is_null(entry.value) else Mapping(node.place, {})
        if not isinstance(below, Mapping):
            return tree  # the file is wrong here, and the decoder will say so
        node = _replace(below, rest, node)
    return Mapping(tree.place, {**tree.entries, name: Entry(node.place, node)})
