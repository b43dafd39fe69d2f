"""Every flag of ``asgiri`` in one table: what it is called, and the key that it sets.

What a key means is said in the schema, and there alone. The help page (help.py) and the completion (completion.py) look
it up when they are asked for: a plain start pays for neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import Struct

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from asgiri.config.keys import Key


class Flag(Struct, frozen=True, kw_only=True):
    """A flag, or the one argument.

    ``key`` is the dotted path of what it sets; ``each`` that of what it sets of every listener (``listen[].http``),
    over all that was loaded. ``value`` names what it takes, and the completion goes by it; a flag without one is
    given or is not, and ``off`` is its opposite. Where the key takes words, they are the schema's. ``text`` is the
    help of a flag without a key.
    """

    names: tuple[str, ...]
    group: str
    key: str = ""
    each: str = ""
    value: str = ""
    off: str = ""
    repeats: bool = False
    text: str = ""

    @property
    def name(self) -> str:
        """What errors call it: its long name."""
        return self.names[-1]

    @property
    def parameter(self) -> str:
        """What click calls it."""
        name = self.name.lstrip("-").replace("-", "_").lower()
        return f"{name}_" if name in ("import", "set") else name  # words of Python's

    @property
    def is_argument(self) -> bool:
        return not self.name.startswith("-")


_APPLICATION: Final = "Application"
_LISTENING: Final = "Listening"
_WORKERS: Final = "Workers"
_DEVELOPMENT: Final = "Development"
_LOGGING: Final = "Logging"
_PROCESS: Final = "Process"
_CONFIGURATION: Final = "Configuration"
_ABOUT: Final = "About"

FLAGS: Final = (
    Flag(names=("APP",), group=_APPLICATION, key="app", value="APP"),
    Flag(names=("--factory",), group=_APPLICATION, key="factory"),
    Flag(names=("--app-dir",), group=_APPLICATION, key="app_dir", value="DIR"),
    Flag(names=("--root-path",), group=_APPLICATION, key="root_path", value="PATH"),
    Flag(names=("--lifespan",), group=_APPLICATION, key="lifespan", value="MODE"),
    Flag(names=("-b", "--bind"), group=_LISTENING, key="listen", value="ADDR", repeats=True),
    Flag(
        names=("--http",),
        group=_LISTENING,
        each="listen[].http",
        value="VERSION",
        text="What every listener speaks; auto: what its own http says.",
    ),
    Flag(
        names=("--certfile",),
        group=_LISTENING,
        each="listen[].tls.certfile",
        value="FILE",
        text="TLS, with this certificate chain, on every listener that has none.",
    ),
    Flag(
        names=("--keyfile",),
        group=_LISTENING,
        each="listen[].tls.keyfile",
        value="FILE",
        text="Private key of --certfile; default: it is in that file too.",
    ),
    Flag(names=("--admin",), group=_LISTENING, key="admin.bind", value="ADDR"),
    Flag(names=("-w", "--workers"), group=_WORKERS, key="workers.count", value="N"),
    Flag(names=("--loop",), group=_WORKERS, key="loop", value="NAME"),
    Flag(names=("--reload",), group=_DEVELOPMENT, key="reload.enabled"),
    Flag(names=("--reload-dir",), group=_DEVELOPMENT, key="reload.dirs", value="DIR", repeats=True),
    Flag(names=("--reload-include",), group=_DEVELOPMENT, key="reload.include", value="GLOB", repeats=True),
    Flag(names=("--reload-exclude",), group=_DEVELOPMENT, key="reload.exclude", value="GLOB", repeats=True),
    Flag(names=("--log-level",), group=_LOGGING, key="log.level", value="LEVEL"),
    Flag(names=("--log-format",), group=_LOGGING, key="log.format", value="FORMAT"),
    Flag(names=("--access-log",), group=_LOGGING, key="log.access.enabled", off="--no-access-log"),
    Flag(names=("--user",), group=_PROCESS, key="process.user", value="NAME"),
    Flag(names=("--group",), group=_PROCESS, key="process.group", value="NAME"),
    Flag(names=("--pidfile",), group=_PROCESS, key="process.pidfile", value="FILE"),
    Flag(
        names=("-c", "--config"),
        group=_CONFIGURATION,
        value="FILE",
        text="YAML file; default: asgiri.yaml here, then in /etc/asgiri.",
    ),
    Flag(
        names=("--set",),
        group=_CONFIGURATION,
        value="KEY=VALUE",
        repeats=True,
        text="Any key of the file, as in workers.count=4.",
    ),
    Flag(
        names=("--check-config",),
        group=_CONFIGURATION,
        text="Check the configuration and exit: 0 is good, 2 is bad.",
    ),
    Flag(names=("--import",), group=_CONFIGURATION, text="With --check-config: import the application too."),
    Flag(
        names=("--print-config",),
        group=_CONFIGURATION,
        text="Print what every key is and where that comes from, and exit.",
    ),
    Flag(names=("--schema",), group=_CONFIGURATION, text="Print the JSON Schema of the file and exit."),
    Flag(names=("--version",), group=_ABOUT, text="Print the version and exit."),
)


def parameters() -> list[click.Parameter]:
    """The flags as click has them: a value that was not given is None, or the empty tuple of one that repeats."""
    return [_argument(flag) if flag.is_argument else _option(flag) for flag in FLAGS]


def _argument(flag: Flag) -> click.Argument:
    return click.Argument([flag.parameter], required=False, shell_complete=_completer(flag))


def _option(flag: Flag) -> click.Option:
    names = [*flag.names[:-1], f"{flag.name}/{flag.off}" if flag.off else flag.name, flag.parameter]
    if not flag.value:
        return click.Option(names, is_flag=True, default=None)
    return click.Option(names, metavar=flag.value, multiple=flag.repeats, shell_complete=_completer(flag))


def _completer(flag: Flag) -> Any:
    """What click calls for what may stand where the flag's value does."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        from asgiri.cli.completion import values

        return values(flag, incomplete, context.params)

    return complete


# What the schema says of a flag


def key_at(path: str) -> Key:
    """The key at a dotted path, in which ``[]`` is any entry of a list. Raises KeyError where there is none."""
    from asgiri.config.keys import keys_of
    from asgiri.config.schema import Config

    first, *rest = path.split(".")
    key = _entered(keys_of(Config)[first.removesuffix("[]")], first)
    for name in rest:
        if key.section is None:
            raise KeyError(path)
        key = _entered(keys_of(key.section)[name.removesuffix("[]")], name)
    return key


def _entered(key: Key, name: str) -> Key:
    return key.element() if name.endswith("[]") else key


def words(flag: Flag) -> tuple[str, ...]:
    """The words that the flag takes, as the schema has them. ``--http`` takes one for each listener, or leaves them."""
    if flag.key:
        return key_at(flag.key).words
    if flag.each and (found := key_at(flag.each)).container == "list":
        return ("auto", *found.element().words)
    return ()
