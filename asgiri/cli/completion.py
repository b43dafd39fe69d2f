"""What the shells offer at a TAB: flags, their values as the schema has them, and what is on this machine.

Nothing is imported of the application, nobody is asked, and what cannot be read is not offered. What belongs to a
missing feature is not offered either: it would be refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from click.shell_completion import CompletionItem

from asgiri.cli.flags import FLAGS, key_at, words
from asgiri.cli.help import description

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import click

    from asgiri.cli.flags import Flag
    from asgiri.config.keys import Key

# How an address may begin; the rest is the user's, but for the path of a unix socket.
ADDRESSES: Final = ("127.0.0.1:", "0.0.0.0:", "[::1]:", "[::]:", "unix:", "fd:", "systemd")

# A module of the user's is some KiB; what is larger was generated, and a TAB should not wait for it.
_SOURCE_MOST: Final = 1 << 20


def flags(context: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """The flags that begin so, and have not been given or may be given again."""
    if not incomplete.startswith("-"):
        return []  # APP has been given, and there is nothing else to name
    typed = {name for name, value in context.params.items() if value not in (None, (), False)}
    found = [
        CompletionItem(name, help=description(flag))
        for flag in FLAGS
        if not flag.is_argument and (flag.repeats or flag.parameter not in typed)
        for name in (*flag.names, *filter(None, [flag.off]))
    ]
    found += [CompletionItem(name, help="Show the help page and exit.") for name in context.help_option_names]
    return [item for item in found if item.value.startswith(incomplete)]


def values(flag: Flag, incomplete: str, given: Mapping[str, Any]) -> list[CompletionItem[str]]:
    """What the flag's value may be that begins so; ``given`` is what has been typed for the other flags."""
    if flag.value in ("FILE", "DIR"):
        return [CompletionItem(incomplete, type="file" if flag.value == "FILE" else "dir")]
    if flag.value == "APP":
        return _items(applications(incomplete, Path(given.get("app_dir") or ".")), incomplete)
    if flag.value == "KEY=VALUE":
        return settings(incomplete)
    if flag.key in _NAMES:
        return _items(sorted(_NAMES[flag.key]()), incomplete)
    key = key_at(flag.key) if flag.key else None
    if key is not None and (key.entry or key.notation == "bind"):
        return _items(addresses(incomplete), incomplete)
    return _items(words(flag), incomplete)


def settings(incomplete: str) -> list[CompletionItem[str]]:
    """For ``--set``: keys with their ``=``, what they mean beside them; behind it, the words that the key takes."""
    from asgiri.config.keys import paths
    from asgiri.config.schema import Config

    path, equals, value = incomplete.partition("=")
    if not equals:
        return [
            CompletionItem(f"{path}{'.' if key.container == 'map' else '='}", help=str(key.meta.description))
            for path, key in paths(Config)
            if path.startswith(incomplete) and (key.section is None or key.optional)
        ]
    key = dict(paths(Config)).get(path)
    if key is None:
        return []
    return _items((f"{path}={one}" for one in _of_key(key, value)), incomplete)


def _of_key(key: Key, value: str) -> Iterable[str]:
    if key.notation == "bind":
        return addresses(value)
    truth = ("true", "false") if bool in key.types else ()
    return (*key.words, *truth)


def addresses(incomplete: str) -> Iterator[str]:
    """How addresses begin, and for ``unix:`` the sockets and directories that there are."""
    if not incomplete.startswith("unix:"):
        yield from ADDRESSES
        return
    directory, _, _ = incomplete.removeprefix("unix:").rpartition("/")
    above = f"{directory}/" if directory or incomplete.startswith("unix:/") else ""
    for entry in _entries(Path(above or ".")):
        if os.path.isdir(entry):
            yield f"unix:{above}{entry.name}/"
        elif _is_socket(entry):
            yield f"unix:{above}{entry.name}"


def applications(incomplete: str, app_dir: Path) -> Iterator[str]:
    """Modules below ``app_dir`` as ``module:``, packages as ``package.`` as well, and behind the colon what one has."""
    module, colon, _ = incomplete.partition(":")
    if colon:
        yield from (f"{module}:{name}" for name in _names_in(app_dir, module))
        return
    package, _, _ = module.rpartition(".")
    above = f"{package}." if package else ""
    for entry in _entries(app_dir.joinpath(*package.split(".")) if package else app_dir):
        name = entry.stem if entry.suffix == ".py" else entry.name
        if not name.isidentifier() or name == "__init__":
            continue
        if entry.suffix == ".py":
            yield f"{above}{name}:"
        elif any(one.suffix == ".py" for one in _entries(entry)):
            if os.path.isfile(entry / "__init__.py"):
                yield f"{above}{name}:"
            yield f"{above}{name}."


def _names_in(app_dir: Path, module: str) -> list[str]:
    """The names at the top of a module that an application may have, in the order of the source, which is only read."""
    import ast
    import warnings

    path = app_dir.joinpath(*module.split("."))
    file = path / "__init__.py" if os.path.isdir(path) else path.with_name(f"{path.name}.py")
    try:
        if file.stat().st_size > _SOURCE_MOST:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an escape that is none, say: nobody has asked
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: list[str] = []
    for node in tree.body:
        match node:
            case ast.Assign(targets=targets):
                found += [target.id for target in targets if isinstance(target, ast.Name)]
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.append(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.append(name)
            case ast.ImportFrom(names=names):
                found += [alias.asname or alias.name for alias in names if alias.name != "*"]
    return [name for name in dict.fromkeys(found) if not name.startswith("_")]


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(one for one in directory.iterdir() if not one.name.startswith("."))
    except (OSError, ValueError):
        return []


def _is_socket(entry: Path) -> bool:
    try:
        return stat.S_ISSOCK(entry.stat().st_mode)
    except (OSError, ValueError):
        return False


def _users() -> list[str]:
    import pwd

    return [one.pw_name for one in pwd.getpwall()]


def _groups() -> list[str]:
    import grp

    return [one.gr_name for one in grp.getgrall()]


_NAMES: Final[dict[str, Callable[[], list[str]]]] = {"process.user": _users, "process.group": _groups}


def _items(found: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    return [CompletionItem(one) for one in found if one.startswith(incomplete)]
