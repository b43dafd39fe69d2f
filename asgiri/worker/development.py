"""A worker under reload: what it serves in place of an application that is broken, and what it tells the master."""

from __future__ import annotations

import sys
from collections.abc import Callable

from asgiri.dev.modules import modules_from_elsewhere
from asgiri.errors import AppError
from asgiri.link import Boot, Booted
from asgiri.supervisor.bulletin import Bulletin, read
from asgiri.tracebacks import TEXT_MOST, TRACE_MOST, Trouble, encodable, trouble_of
from asgiri.types import ASGIApp, Receive, Scope, Send


class Development:
    """Made before the application is imported. ``stands_in``: the error page is served where the application cannot."""

    def __init__(self, boot: Boot) -> None:
        self.stands_in = boot.first
        self.bulletin = read(boot.bulletin)
        self._boot = boot
        self._before = frozenset(sys.modules)
        self._trouble: Trouble | None = None

    def wrapped(self, app: ASGIApp) -> ASGIApp:
        """The application with what development adds to it."""
        return app

    def error_page(self, error: AppError) -> ASGIApp:
        """What to serve in the place of the application that has this error."""
        self._trouble = trouble_with(error)
        return ErrorPage(self.news)

    def news(self) -> Bulletin:
        """What is posted of the newest code. Of a first start nothing is, until the master has heard of it."""
        return self.bulletin if self.bulletin.trouble or not self._trouble else Bulletin(trouble=self._trouble)

    def hear_news(self) -> None:
        self.bulletin = read(self._boot.bulletin)

    def booted(self) -> Booted:
        """The report that it serves."""
        if self._trouble is not None:
            return Booted(self._trouble)
        return Booted(modules=modules_from_elsewhere(self._before, self._boot.config.reload.dirs))


def trouble_with(error: AppError) -> Trouble:
    """What is known of the failure as data: where the application has raised, its exception."""
    cause = error.__cause__
    if cause is None or not error.trace:
        return Trouble(encodable(str(error), TEXT_MOST), trace=encodable(error.trace, -TRACE_MOST))
    return trouble_of(cause, str(error))


class ErrorPage:
    """An application that answers whatever is asked with why there is none."""

    def __init__(self, news: Callable[[], Bulletin]) -> None:
        self._news = news

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "lifespan":
                for _ in range(2):  # whose config has ``lifespan: on`` is to see the page, too
                    message = await receive()
                    await send({"type": f"{message['type']}.complete"})
            case "websocket":
                await send({"type": "websocket.close"})
            case _:
                await self._answer(send)

    async def _answer(self, send: Send) -> None:
        trouble = self._news().trouble or Trouble("the application could not be imported; newer code is on its way")
        body = f"{trouble.message}\n\n{trouble.trace}".encode()
        fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 500, "headers": fields})
        await send({"type": "http.response.body", "body": body})
