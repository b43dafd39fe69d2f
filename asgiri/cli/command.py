"""The ``asgiri`` command: what a user types, to a configuration and what is to be done with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from asgiri import __version__
from asgiri.config.load import Found, Loaded, Setting, load
from asgiri.errors import AsgiriError, ConfigError

if TYPE_CHECKING:
    from asgiri.config.schema import HttpVersion

# Flags that set one key of the file each: parameter -> (what the user typed, dotted path).
KEYS = {
    "app": ("APP", "app"),
    "bind": ("--bind", "listen"),
    "workers": ("--workers", "workers.count"),
    "reload": ("--reload", "reload.enabled"),
    "reload_dir": ("--reload-dir", "reload.dirs"),
    "reload_include": ("--reload-include", "reload.include"),
    "reload_exclude": ("--reload-exclude", "reload.exclude"),
    "loop": ("--loop", "loop"),
    "lifespan": ("--lifespan", "lifespan"),
    "factory": ("--factory", "factory"),
    "app_dir": ("--app-dir", "app_dir"),
    "root_path": ("--root-path", "root_path"),
    "log_level": ("--log-level", "log.level"),
    "log_format": ("--log-format", "log.format"),
    "access_log": ("--access-log", "log.access.enabled"),
    "admin": ("--admin", "admin.bind"),
    "user": ("--user", "process.user"),
    "group": ("--group", "process.group"),
    "pidfile": ("--pidfile", "process.pidfile"),
}

# What --http can say; "auto" says nothing.
SPOKEN: dict[str | None, HttpVersion] = {"http/1.1": "http/1.1", "h2": "h2"}

# Flags that turn off what is on: parameter -> what the user typed.
OFF = {"access_log": "--no-access-log"}

# Flags of features that are not in this release: parameter -> (what the user typed, the feature).
LATER: dict[str, tuple[str, str]] = {}

EXAMPLES = """
\b
Examples:
  asgiri                                  the demo, on http://127.0.0.1:8000
  asgiri -w 4 -b 0.0.0.0:8000 main:app    four workers for main.py's app
  asgiri -c /etc/asgiri/asgiri.yaml       everything else is in the file
"""


def option(*names: str, help: str, **more: Any) -> Callable[[Any], Any]:  # noqa: A002 - click's word
    return click.option(*names, help=help, default=more.pop("default", None), **more)


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.argument("app", required=False)
@option("-c", "--config", metavar="FILE", help="YAML file; default: asgiri.yaml here, then in /etc/asgiri.")
@option(
    "-b",
    "--bind",
    metavar="ADDR",
    multiple=True,
    help="HOST:PORT, [V6]:PORT, unix:PATH, fd:N or systemd[:NAME]; repeatable.",
)
@option("-w", "--workers", metavar="N", help='Worker processes, or "auto": one for each CPU.')
@option("--reload", is_flag=True, help="Reload when code changes (not in this release).")
@option("--reload-dir", metavar="DIR", multiple=True, help="Folder to watch (not in this release).")
@option("--reload-include", metavar="GLOB", multiple=True, help="Files to watch (not in this release).")
@option("--reload-exclude", metavar="GLOB", multiple=True, help="Files not to watch (not in this release).")
@option("--certfile", metavar="FILE", help="TLS, with this certificate chain, on every listener that has none.")
@option("--keyfile", metavar="FILE", help="Private key of --certfile; default: it is in that file too.")
@option(
    "--http", type=click.Choice(["auto", "http/1.1", "h2"]), help="What every listener speaks; auto: as its http says."
)
@option("--loop", metavar="NAME", help="auto, uvloop or asyncio.")
@option("--lifespan", metavar="MODE", help="auto, on or off.")
@option("--factory", is_flag=True, help="APP is a function that makes the application.")
@option("--app-dir", metavar="DIR", help="Folder that APP is imported from; default: here.")
@option("--root-path", metavar="PATH", help="Prefix that a proxy in front has stripped.")
@option("--log-level", metavar="LEVEL", help="debug, info, warning, error or critical.")
@option("--log-format", metavar="FORMAT", help="text or json.")
@option("--access-log/--no-access-log", help="A line for each request; default: there is one.")
@option("--admin", metavar="ADDR", help="Listener of /livez and /readyz, in a process of its own.")
@option("--user", metavar="NAME", help="User that the workers become; takes a start as root.")
@option("--group", metavar="NAME", help="Group that the workers become; default: the user's own.")
@option("--pidfile", metavar="FILE", help="File for the master's process id.")
@option("--set", "set_", metavar="KEY=VALUE", multiple=True, help="Any key of the file, as in workers.count=4.")
@option("--check-config", is_flag=True, help="Check the configuration and exit: 0 is good, 2 is bad.")
@option("--import", "import_", is_flag=True, help="With --check-config: import the application too.")
@option("--print-config", is_flag=True, help="Print the resolved configuration and exit.")
@option("--schema", is_flag=True, help="Print the JSON Schema of the file and exit.")
@click.version_option(__version__, prog_name="asgiri", message="%(prog)s %(version)s")
def command(
    config: str | None,
    check_config: bool,
    import_: bool,
    print_config: bool,
    schema: bool,
    set_: Sequence[str],
    http: str | None,
    certfile: str | None,
    keyfile: str | None,
    **flags: Any,
) -> None:
    """Serve an ASGI application from forked workers.

    APP is module:attribute. Without it, the file's app is served; without that, a built-in demo.
    """
    if import_ and not check_config:
        raise click.UsageError("--import goes with --check-config")
    if keyfile is not None and certfile is None:
        raise click.UsageError("--keyfile goes with --certfile")
    if print_config and check_config:
        raise click.UsageError("--print-config and --check-config each stand alone: run one after the other")
    if schema:  # it says what a file may be, whatever the one that is here
        from asgiri.cli.output import emit
        from asgiri.config.json_schema import json_schema_text

        emit(json_schema_text())
        return
    settings = [*from_flags(flags), *from_sets(set_)]
    environ = dict(os.environ)

    def read(file: str | Found | None) -> Loaded:
        loaded = load(file, environ, settings)
        if http in SPOKEN:
            loaded = speaking(loaded, SPOKEN[http])
        return loaded if certfile is None else secure(loaded, certfile, keyfile)

    loaded = read(config)
    if check_config:
        from asgiri.cli.preflight import check

        check(loaded, import_)
    elif print_config:
        from asgiri.cli.output import emit
        from asgiri.config.show import resolved

        emit(resolved(loaded))
    else:
        from asgiri.cli.serve import serve

        sys.exit(serve(loaded, read))


def main() -> NoReturn:
    """The entry point: runs the command, and turns what asgiri raises on purpose into a message and an exit code."""
    try:
        command.main(prog_name="asgiri", standalone_mode=True)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"asgiri: {problem}", err=True)
        sys.exit(error.exit_code)
    except AsgiriError as error:
        click.echo(f"asgiri: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


def from_flags(flags: dict[str, Any]) -> list[Setting]:
    """The flags that were given, as settings of the keys that they stand for."""
    given = []
    for name, value in flags.items():
        if value is None or value == () or (value is False and name not in OFF):
            continue
        if name in LATER:
            flag, feature = LATER[name]
            raise click.UsageError(f"{flag}: {feature} is not in this release")
        flag, path = KEYS[name]
        given.append(Setting(OFF[name] if value is False else flag, path, value))
    return given


def from_sets(pairs: Sequence[str]) -> list[Setting]:
    found = []
    for pair in pairs:
        path, equals, value = pair.partition("=")
        if not equals:
            raise click.BadParameter(f'expected KEY.PATH=VALUE, got "{pair}"', param_hint="--set")
        found.append(Setting("--set", path.strip(), value))
    return found


def speaking(loaded: Loaded, http: HttpVersion) -> Loaded:
    """``--http``: what every listener speaks, whatever was said of it."""
    spoken = tuple(f"listen[{index}].http" for index in range(len(loaded.config.listen)))

    def others(texts: dict[str, str]) -> dict[str, str]:
        return {path: text for path, text in texts.items() if not path.startswith(spoken)}

    origins = others(loaded.origins) | dict.fromkeys(spoken, "--http")
    return replace(loaded, config=loaded.config.speaking(http), origins=origins, written=others(loaded.written))


def secure(loaded: Loaded, certfile: str, keyfile: str | None) -> Loaded:
    """``--certfile`` and ``--keyfile``: TLS on every listener that has none."""
    from asgiri.config.schema import Tls
    from asgiri.tls import with_certificate

    given = {"certfile": certfile} if keyfile is None else {"certfile": certfile, "keyfile": keyfile}
    origins = dict(loaded.origins)
    for index, listen in enumerate(loaded.config.listen):
        if listen.tls is None:
            origins |= {f"listen[{index}].tls.{name}": f"--{name}" for name in given}
    config = with_certificate(loaded.config, Tls(certfile=certfile, keyfile=keyfile))
    return replace(loaded, config=config, origins=origins)
