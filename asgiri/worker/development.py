"""A worker under reload: what it serves in place of an application that is broken, and what it tells the master."""

from __future__ import annotations

import sys

from asgiri.dev.app import DevApp
from asgiri.dev.modules import modules_from_elsewhere, own_folders
from asgiri.dev.page import TroubleApp
from asgiri.dev.quiet import QuietLog
from asgiri.dev.variables import Variables
from asgiri.errors import AppError
from asgiri.link import Boot, Booted
from asgiri.log.access import AccessLog
from asgiri.supervisor.bulletin import Bulletin, read
from asgiri.tracebacks import TEXT_MOST, TRACE_MOST, Trouble, encodable, trouble_of
from asgiri.types import ASGIApp


class Development:
    """Made before the application is imported. ``stands_in``: the error page is served where the application cannot."""

    def __init__(self, boot: Boot) -> None:
        self.stands_in = boot.first
        self._boot = boot
        self._before = len(sys.modules)
        self._variables = Variables(own_folders(boot.config))
        self._trouble: Trouble | None = None
        self._app: DevApp | None = None

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """The application with what development adds to it."""
        boot = self._boot
        self._app = DevApp(app, boot.generation, browser=boot.config.reload.browser, news=self._news)
        return self._app

    def error_page(self, error: AppError) -> ASGIApp:
        """What to serve in the place of the application that has this error."""
        self._trouble = trouble_with(error)
        return TroubleApp(self._trouble)

    def quiet(self, log: AccessLog | None) -> AccessLog | QuietLog | None:
        """The access log without what is asked for by pages of ours: who wants to see everything has debug."""
        config = self._boot.config
        return log if log is None or config.log.level == "debug" else QuietLog(log, config.root_path)

    def _news(self) -> Bulletin:
        return read(self._boot.bulletin)

    def hear_news(self) -> None:
        """The bulletin has changed."""
        if self._app is not None:
            self._app.refresh()

    def leave(self) -> None:
        """The drain begins."""
        if self._app is not None:
            self._app.leave()

    def booted(self) -> Booted:
        """The report that it serves."""
        environ = self._variables.take()
        if self._trouble is not None:
            return Booted(self._trouble)
        modules = modules_from_elsewhere(self._before, own_folders(self._boot.config))
        return Booted(modules=modules, environ=environ)


def trouble_with(error: AppError) -> Trouble:
    """What is known of the failure as data: where the application has raised, its exception."""
    cause = error.__cause__
    if cause is None or not error.trace:
        return Trouble(encodable(str(error), TEXT_MOST), trace=encodable(error.trace, -TRACE_MOST))
    return trouble_of(cause, str(error))
