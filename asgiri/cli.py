"""The ``asgiri`` command, and the composition root: the one place that knows every layer."""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import click

from asgiri import __version__
from asgiri.build import BUILD
from asgiri.config.envfile import read_env_file
from asgiri.config.load import Found, Loaded, Setting, load
from asgiri.errors import AppError, AsgiriError, ConfigError, ExitCode, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from asgiri.config.schema import Config, HttpVersion
    from asgiri.link import Boot

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
LATER = {
    "print_config": ("--print-config", "printing the resolved configuration"),
    "schema": ("--schema", "the JSON Schema of the file"),
}

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
@option("--print-config", is_flag=True, help="Print the resolved configuration (not in this release).")
@option("--schema", is_flag=True, help="Print the JSON Schema of the file (not in this release).")
@click.version_option(__version__, prog_name="asgiri", message="%(prog)s %(version)s")
def command(
    config: str | None,
    check_config: bool,
    import_: bool,
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
    settings = [*from_flags(flags), *from_sets(set_)]
    environ = dict(os.environ)

    def read(file: str | Found | None) -> Loaded:
        loaded = load(file, environ, settings)
        if http in SPOKEN:
            loaded = replace(loaded, config=loaded.config.speaking(SPOKEN[http]))
        return loaded if certfile is None else secure(loaded, certfile, keyfile)

    loaded = read(config)
    if check_config:
        check(loaded, import_)
    else:
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


def secure(loaded: Loaded, certfile: str, keyfile: str | None) -> Loaded:
    """``--certfile`` and ``--keyfile``: TLS on every listener that has none."""
    from asgiri.config.schema import Tls
    from asgiri.tls import with_certificate

    origins = dict(loaded.origins)
    for index, listen in enumerate(loaded.config.listen):
        if listen.tls is None:
            origins |= {f"listen[{index}].tls.{name}": f"--{name}" for name in ("certfile", "keyfile")}
    config = with_certificate(loaded.config, Tls(certfile=certfile, keyfile=keyfile))
    return replace(loaded, config=config, origins=origins)


def check(loaded: Loaded, import_app: bool) -> None:
    """``--check-config``: the configuration is good, or ConfigError says what is not."""
    from asgiri.supervisor.process import apply_process

    config = loaded.config
    apply_process(config.process)  # relative paths start where the master would work
    check_files(loaded)
    if import_app:
        from asgiri.child.privileges import drop, resolve
        from asgiri.loader import load_app
        from asgiri.worker.main import read_environment

        variables = read_environment(config)
        identity = resolve(config.process)
        if identity is not None:
            drop(identity)  # for good: this process only checks
        os.environ.update(variables)
        try:
            load_app(
                config.target,
                app_dir=config.app_dir,
                factory=config.factory,
                interface=config.interface,
            )
        except AppError as error:
            click.echo(f"asgiri: {error}", err=True)
            if error.trace:
                click.echo(error.trace.rstrip("\n"), err=True)
            sys.exit(ExitCode.USAGE)
    click.echo(f"asgiri: {loaded.found.path if loaded.found else 'the configuration'} is good")


def check_files(loaded: Loaded) -> None:
    """ConfigError when a file that the config names cannot be used, or a user that it names cannot be had.

    The workers read them; whether they can is known before any is forked, and before a reload begins.
    """
    config = loaded.config
    refuse_pipes(loaded)
    if config.env_file is not None:
        read_env_file(config.env_file)
    checks: list[Callable[[], object]] = [partial(preload, config)]
    for index, listen in enumerate(config.listen):
        if listen.tls is not None:
            from asgiri.tls import server_context  # and with it OpenSSL: only where there is need for it

            checks.append(partial(server_context, listen.tls, listen.http, f"listen[{index}].tls"))
    if config.log.access.enabled:
        from asgiri.log.setup import check_file

        checks.append(partial(check_file, "log.access.file", config.log.access.file))
    if config.process.user is not None or config.process.group is not None:
        from asgiri.child.privileges import resolve

        checks.append(partial(resolve, config.process))
    problems: list[Problem] = []
    for one in checks:
        try:
            one()
        except ConfigError as error:
            problems += [replace(what, where=loaded.origins.get(what.key, what.where)) for what in error.problems]
    if problems:
        raise ConfigError(problems)


def refuse_pipes(loaded: Loaded) -> None:
    """ConfigError when a file that master and workers read is a pipe: one gets it, and the others wait for ever."""
    config = loaded.config
    files = {"env_file": config.env_file}
    for index, listen in enumerate(config.listen):
        if (tls := listen.tls) is not None:
            key = f"listen[{index}].tls"
            for name in ("certfile", "keyfile", "password_file", "client_ca"):
                files[f"{key}.{name}"] = getattr(tls, name)
            for server, pair in tls.sni.items():
                files[f"{key}.sni.{server}.certfile"], files[f"{key}.sni.{server}.keyfile"] = (
                    pair.certfile,
                    pair.keyfile,
                )
    what = "it is a pipe, which can be read only once; name a file"
    problems = [
        Problem(loaded.origins.get(key, ""), key, f'"{file}": {what}')
        for key, file in files.items()
        if file is not None and is_pipe(file)
    ]
    if problems:
        raise ConfigError(problems)


def is_pipe(path: str | Path) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):  # whoever reads it will say it better; ValueError: a NUL in it
        return False


def preload(config: Config) -> None:
    """Import what the children of this config will be made of. ConfigError when an engine is not installed."""
    from asgiri.equip import load_engines

    load_engines(config)
    if config.admin.bind is not None:
        import asgiri.admin  # noqa: F401


def serve(loaded: Loaded, read: Callable[[Found | None], Loaded]) -> ExitCode:
    """Be the master until stopped. ``read`` is how the configuration is read once more, for a reload."""
    # The workers' modules are imported here, before any fork, so that workers share them and start at once.
    from asgiri.equip import loop_factory
    from asgiri.log import setup as log
    from asgiri.sockets.supply import Supply
    from asgiri.supervisor.master import Hooks, Master, Origin
    from asgiri.supervisor.notify import Notifier
    from asgiri.supervisor.process import apply_process, fill_standard_streams, title
    from asgiri.supervisor.upgrade import Heir, Recipe
    from asgiri.worker.main import main as worker_main

    recipe = Recipe.taken(os.environ)
    config = loaded.config
    fill_standard_streams()
    notifier = Notifier.from_environ(os.environ)
    loop_factory(config.loop)  # whether it is installed, a reload or not
    found = loaded.found
    if found is not None and config.process.chdir is not None:
        found = replace(found, path=found.path.absolute())  # a reload reads it again, from wherever that leads
    apply_process(config.process)
    check_files(loaded)

    def reread() -> Config:
        if found is not None and is_pipe(found.path):
            # As of -c <(...). Nobody writes there any more: reading it would hold the master up for ever.
            raise ConfigError([Problem(str(found.path), "", "it is a pipe, and was read once, at the start")])
        reloaded = read(found)
        check_files(reloaded)
        fresh = reloaded.config
        for key in ("chdir", "umask", "pidfile"):
            if getattr(fresh.process, key) != getattr(config.process, key):
                logger.warning("process.%s is changed by an upgrade or a restart only, and stays as it is", key)
        if fresh.control.socket != config.control.socket:
            logger.warning("control.socket is changed by an upgrade or a restart only, and stays as it is")
        return fresh

    def admin_main(boot: Boot) -> int:
        from asgiri.admin import main  # a service without it pays nothing for it

        return main(boot)

    def apply(config: Config) -> None:
        log.configure(level=config.log.level, format=config.log.format, file=config.log.file, role="master")
        title(config.process.title, "master", config.target)

    apply(config)
    logger = logging.getLogger("asgiri.master")
    logger.info("asgiri %s (%s), Python %s, pid %d", __version__, BUILD, sys.version.split()[0], os.getpid())
    if not config.app:
        logger.info("no application is named: serving the built-in demo (%s)", config.target)
    hooks = Hooks(load=reread, apply=apply, worker_main=worker_main, admin_main=admin_main)
    try:
        heir = Heir.from_environ(os.environ)
        supply = heir.supply() if heir else Supply.from_systemd(os.environ, os.getpid())
        with Master(config, hooks, Origin(recipe, notifier, supply, heir)) as master:
            code = master.run()
    except AsgiriError as error:
        logger.critical("%s", error)
        return error.exit_code
    logger.info("stopped") if code is ExitCode.STOPPED else logger.critical("stopped, with exit code %d", code)
    return code
