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
from asgiri.cli.check import check_files, complete, is_pipe, misplaced
from asgiri.errors import AsgiriError, ConfigError, ExitCode, Problem

if TYPE_CHECKING:
    from asgiri.config.load import Found, Loaded
    from asgiri.config.schema import Config
    from asgiri.link import Boot
    from asgiri.supervisor.hooks import Greeting


def serve(loaded: Loaded, read: Callable[[Found | None], Loaded]) -> ExitCode:
    """Be the master until stopped. ``read`` is how the configuration is read once more, for a reload."""
    # The workers' modules are imported here, before any fork, so that workers share them and start at once.
    from asgiri.child.logs import configure
    from asgiri.sockets.supply import Supply
    from asgiri.supervisor.hooks import Hooks, Origin
    from asgiri.supervisor.master import Master
    from asgiri.supervisor.notify import Notifier
    from asgiri.supervisor.process import apply_process, fill_standard_streams, title
    from asgiri.supervisor.upgrade import Heir, Recipe
    from asgiri.worker.main import main as worker_main

    recipe = Recipe.taken(os.environ)
    config = loaded.config
    fill_standard_streams()
    warnings = misplaced(config, os.environ)
    found = loaded.found
    if found is not None and config.process.chdir is not None:
        found = replace(found, path=found.path.absolute())  # a reload reads it again, from wherever that leads
    apply_process(config.process)
    warnings += check_files(loaded, hurry=True)

    def reread() -> Loaded:
        nonlocal warnings
        if found is not None and is_pipe(found.path):
            # As of -c <(...). Nobody writes there any more: reading it would hold the master up for ever.
            raise ConfigError([Problem(str(found.path), "", "it is a pipe, and was read once, at the start")])
        reloaded = read(found)
        before, warnings = warnings, check_files(reloaded)
        for warning in warnings:
            if not config.reload.enabled or warning not in before:  # else each save would have them
                logger.warning("%s", warning)
        return reloaded

    def admin_main(boot: Boot) -> int:
        from asgiri.admin.main import main  # a service without it pays nothing for it

        return main(boot)

    def watcher_main(boot: Boot) -> int:
        from asgiri.dev.watch import main  # for who develops

        return main(boot)

    def zygote_main(boot: Boot) -> int:
        import asgiri.worker.development  # noqa: F401 - each of its workers would import it
        from asgiri.dev.zygote import main

        return main(boot, worker_main)

    def greet(loaded: Loaded, greeting: Greeting) -> None:
        from asgiri.dev.banner import show

        show(loaded, greeting.urls, greeting.admin, broken=greeting.broken)

    def apply(config: Config) -> None:
        configure(config, "master")
        title(config.process.title, "master", config.target)

    apply(config)
    logger = logging.getLogger("asgiri.master")
    level = logging.DEBUG if config.greets else logging.INFO
    logger.log(level, "asgiri %s (%s), Python %s, pid %d", __version__, BUILD, sys.version.split()[0], os.getpid())
    notifier = Notifier.from_environ(os.environ)  # now that there is a log that can say what is wrong with them
    for warning in warnings:
        logger.warning("%s", warning)
    if not config.app:
        logger.log(level, "no application is named: serving the built-in demo (%s)", config.target)
    hooks = Hooks(reread, apply, complete, worker_main, admin_main, watcher_main, zygote_main, greet)
    try:
        heir = Heir.from_environ(os.environ)
        supply = heir.supply() if heir else Supply.from_systemd(os.environ, os.getpid())
        with Master(loaded, hooks, Origin(recipe, notifier, supply, heir)) as master:
            code = master.run()
    except AsgiriError as error:
        logger.critical("%s", error)
        return error.exit_code
    if code is ExitCode.STOPPED:
        logger.log(config.routine, "stopped")
    else:
        logger.critical("stopped, with exit code %d", code)
    return code
