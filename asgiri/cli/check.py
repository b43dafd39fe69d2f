"""Whether a configuration can be served: what it names is there, fits, and may be used."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from asgiri.config.envfile import read_env_file
from asgiri.errors import AppError, ConfigError, ExitCode, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from asgiri.config.load import Loaded
    from asgiri.config.schema import Config


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
