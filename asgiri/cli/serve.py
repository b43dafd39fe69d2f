"""Serving: the composition root, the one place that knows every layer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from asgiri import __version__
from asgiri.build import BUILD
from asgiri.cli.check import check_files, complete, is_pipe
from asgiri.errors import AsgiriError, ConfigError, ExitCode, Problem

if TYPE_CHECKING:
    from asgiri.config.load import Found, Loaded
    from asgiri.config.schema import Config
    from asgiri.link import Boot


def serve(loaded: Loaded, read: Callable[[Found | None], Loaded]) -> ExitCode:
    """Be the master until stopped. ``read`` is how the configuration is read once more, for a reload."""
    # The workers' modules are imported here, before any fork, so that workers share them and start at once.
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
    found = loaded.found
    if found is not None and config.process.chdir is not None:
        found = replace(found, path=found.path.absolute())  # a reload reads it again, from wherever that leads
    apply_process(config.process)
    warnings = check_files(loaded, hurry=True)

    def reread() -> Loaded:
        if found is not None and is_pipe(found.path):
            # As of -c <(...). Nobody writes there any more: reading it would hold the master up for ever.
            raise ConfigError([Problem(str(found.path), "", "it is a pipe, and was read once, at the start")])
        reloaded = read(found)
        for warning in check_files(reloaded):
            logger.warning("%s", warning)
        return reloaded

    def admin_main(boot: Boot) -> int:
        from asgiri.admin import main  # a service without it pays nothing for it

        return main(boot)

    def apply(config: Config) -> None:
        log.configure(level=config.log.level, format=config.log.format, file=config.log.file, role="master")
        title(config.process.title, "master", config.target)

    apply(config)
    logger = logging.getLogger("asgiri.master")
    logger.info("asgiri %s (%s), Python %s, pid %d", __version__, BUILD, sys.version.split()[0], os.getpid())
    for warning in warnings:
        logger.warning("%s", warning)
    if not config.app:
        logger.info("no application is named: serving the built-in demo (%s)", config.target)
    hooks = Hooks(load=reread, apply=apply, complete=complete, worker_main=worker_main, admin_main=admin_main)
    try:
        heir = Heir.from_environ(os.environ)
        supply = heir.supply() if heir else Supply.from_systemd(os.environ, os.getpid())
        with Master(loaded, hooks, Origin(recipe, notifier, supply, heir)) as master:
            code = master.run()
    except AsgiriError as error:
        logger.critical("%s", error)
        return error.exit_code
    logger.info("stopped") if code is ExitCode.STOPPED else logger.critical("stopped, with exit code %d", code)
    return code
