"""What a reload changes: two configurations, compared key by key. Pure.

Listeners are the same when their address is, wherever they stand in the list; maps are compared entry by entry, and
other lists as a whole. What a key that stays says anew is not taken by a reload: :func:`taken` has what goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from asgiri.config.keys import keys_of
from asgiri.config.nodes import printable
from asgiri.config.notation import written

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asgiri.config.keys import Key
    from asgiri.config.load import Loaded
    from asgiri.config.schema import Listen

S = TypeVar("S", bound=msgspec.Struct)


class Change(msgspec.Struct, frozen=True):
    """One key that is not as before: its dotted ``path``, and ``what`` of it, both fit for a line of a log.

    A listener is named by its address: ``listen[127.0.0.1:8000].backlog``. One that ``stays`` is not taken by a reload.
    """

    path: str
    what: str
    stays: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def changes(old: Loaded, new: Loaded) -> list[Change]:
    """What ``new`` says differently, in the order of the schema; nothing where it comes to the same.

    Secrets are not shown, and values that variables were put into as their files have them.
    """
    return list(_section(_Side(old.config, old.written), _Side(new.config, new.written), ""))


def taken(old: Loaded, new: Loaded) -> Loaded:
    """What a reload makes of ``new``: its config as it is in effect, and what may be shown of the values in that."""
    texts = dict(new.written)
    for before, now in _staying(old.config, new.config, "", ""):
        texts.pop(now, None)
        if before in old.written:
            texts[now] = old.written[before]
    return msgspec.structs.replace(new, config=in_effect(old.config, new.config), written=texts)


def _staying(old: msgspec.Struct, new: msgspec.Struct, before: str, now: str) -> Iterator[tuple[str, str]]:
    """The paths of each key that stays: in the old config, whose prefix is ``before``, and in the new one."""
    for name, key in keys_of(type(new)).items():
        was, value = getattr(old, name), getattr(new, name)
        if key.stays:
            yield before + name, now + name
        elif isinstance(was, msgspec.Struct) and isinstance(value, msgspec.Struct):
            yield from _staying(was, value, f"{before}{name}.", f"{now}{name}.")
        elif _is_listeners(key):
            for known, at in _pairs(was, value):
                if known is not None and at is not None:
                    yield from _staying(was[known], value[at], f"{before}{name}[{known}].", f"{now}{name}[{at}].")


def in_effect(old: S, new: S) -> S:
    """What goes on when a reload has taken ``new``: that, with ``old``'s value of each key that stays."""
    values: dict[str, object] = {}
    for name, key in keys_of(type(new)).items():
        before, after = getattr(old, name), getattr(new, name)
        if key.stays:
            values[name] = before
        elif isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct):
            values[name] = in_effect(before, after)
        elif _is_listeners(key):
            pairs = _pairs(before, after)
            values[name] = tuple(
                after[at] if known is None else in_effect(before[known], after[at])
                for known, at in pairs
                if at is not None
            )
    return msgspec.structs.replace(new, **values)


class _Side(msgspec.Struct, frozen=True):
    """A value of the old or the new config, where it is there, and what to show of values below it."""

    value: Any
    shown: dict[str, str]
    path: str = ""

    def keys(self) -> dict[str, Key]:
        section: msgspec.Struct = self.value
        return keys_of(type(section))

    def key(self, name: str) -> _Side:
        return _Side(getattr(self.value, name), self.shown, f"{self.path}.{name}" if self.path else name)

    def item(self, at: int | str) -> _Side:
        below = f"{self.path}[{at}]" if isinstance(at, int) else f"{self.path}.{at}"
        return _Side(self.value[at], self.shown, below)

    def text(self, key: Key) -> str:
        """It in one line. Of a section only what is not the default."""
        if not isinstance(self.value, msgspec.Struct):
            return written(key, self.value, self.path, self.shown)
        said = {name: key for name, key in self.keys().items() if getattr(self.value, name) != key.default}
        texts = [f"{name}: {'...' if key.secret else self.key(name).text(key)}" for name, key in said.items()]
        return f"{{{', '.join(texts)}}}"


def _section(old: _Side, new: _Side, path: str) -> Iterator[Change]:
    for name, key in new.keys().items():
        yield from _key(key, old.key(name), new.key(name), f"{path}.{name}" if path else name)


def _key(key: Key, old: _Side, new: _Side, path: str) -> Iterator[Change]:
    if old.value == new.value:
        return
    if isinstance(old.value, msgspec.Struct) and isinstance(new.value, msgspec.Struct):
        yield from _section(old, new, path)
    elif _is_listeners(key):
        yield from _listeners(old, new, path)
    elif key.container == "map":
        yield from _entries(key.element(), old, new, path)
    else:
        before, after = (printable(side.text(key)) for side in (old, new))
        # As of a variable that is another now. What it is, is not shown.
        what = "changed" if key.secret or before == after else f"{before} -> {after}"
        yield Change(printable(path), what, key.stays)


def _entries(element: Key, old: _Side, new: _Side, path: str) -> Iterator[Change]:
    for name in dict.fromkeys([*old.value, *new.value]):
        below = f"{path}.{name}"
        if name not in old.value or name not in new.value:
            yield Change(printable(below), "added" if name in new.value else "removed", element.stays)
        else:
            yield from _key(element, old.item(name), new.item(name), below)


def _listeners(old: _Side, new: _Side, path: str) -> Iterator[Change]:
    for known, at in _pairs(old.value, new.value):
        if at is None:
            assert known is not None
            yield Change(path, f"{printable(str(old.value[known].address))} is gone")
            continue
        address = new.value[at].address
        if known is None:
            yield Change(path, f"{printable(str(address))} is new")
        else:
            yield from _listener(old.item(known), new.item(at), f"{path}[{address}]")


def _listener(old: _Side, new: _Side, path: str) -> Iterator[Change]:
    """What is said of one address; that may be spelled in another way by now."""
    for name, key in new.keys().items():
        if name != "bind":
            yield from _key(key, old.key(name), new.key(name), f"{path}.{name}")


def _is_listeners(key: Key) -> bool:
    return key.container == "list" and bool(key.entry)


def _pairs(old: Sequence[Listen], new: Sequence[Listen]) -> list[tuple[int | None, int | None]]:
    """Index in the old and in the new list of each address. Those that have the same (port 0) are paired in order."""
    left = list(range(len(old)))
    found: list[tuple[int | None, int | None]] = []
    for at, listen in enumerate(new):
        known = next((one for one in left if old[one].address == listen.address), None)
        if known is not None:
            left.remove(known)
        found.append((known, at))
    return [*found, *((known, None) for known in left)]
