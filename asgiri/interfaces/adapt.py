"""Any application as an ASGI 3 one: those of ASGI 3 untouched, those of ASGI 2 and WSGI wrapped."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, cast

from asgiri.errors import AppError
from asgiri.interfaces.shape import Shape, instances_take, is_async, kind_of, shape_of, takes

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgiri.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("asgiri.interfaces")

INTERFACES = ("auto", "asgi3", "asgi2", "wsgi")

_BY_SHAPE = {Shape.ASGI3: "asgi3", Shape.ASGI2: "asgi2", Shape.WSGI: "wsgi"}
_NAMES = {"asgi3": "an ASGI 3 application", "asgi2": "an ASGI 2 application", "wsgi": "a WSGI application"}
_ARGUMENTS = {"asgi3": "(scope, receive, send)", "asgi2": "(scope)", "wsgi": "(environ, start_response)"}


def as_asgi3(app: Any, interface: str = "auto", what: str = "the application") -> ASGIApp:
    """``app`` as an ASGI 3 application; one that is ASGI 3 already is returned as it is.

    ``interface`` is ``asgi3``, ``asgi2``, ``wsgi``, or ``auto``: found out from the arguments that ``app`` takes, and
    logged when it is not ASGI 3. What is named is believed, as far as ``app`` can be called like that. ``what`` is
    how messages call the application. Raises AppError for what cannot be served, and for WSGI without a2wsgi.
    """
    if not callable(app):
        raise AppError(f"{what} is {kind_of(app)}, not an application: it cannot be called")
    found = interface_of(app, interface)
    if found is None:
        raise AppError(f"{what} {_refusal(app, interface)}")
    if interface == "auto" and found != "asgi3":
        logger.info("%s looks like %s, and is served as one (interface: %s)", what, _NAMES[found], found)
    if found == "asgi2":
        return Asgi2Application(app)
    return _wsgi(app, what) if found == "wsgi" else cast("ASGIApp", app)


def interface_of(app: Callable[..., Any], wanted: str = "auto") -> str | None:
    """The interface that ``app`` is served by when ``wanted`` is asked for; None when it cannot be."""
    match wanted:
        case "auto":
            return _BY_SHAPE.get(shape_of(app))
        case "asgi3":
            fits = takes(app, 3)
        case "asgi2" if inspect.isclass(app):
            fits = takes(app, 1) and instances_take(app, 2)
        case "asgi2":
            fits = takes(app, 1) and not is_async(app)
        case "wsgi":
            fits = takes(app, 2) and not is_async(app)
        case _:
            raise AppError(f"interface {wanted!r} is not known: use one of {', '.join(INTERFACES)}")
    return wanted if fits else None


def _refusal(app: Callable[..., Any], interface: str) -> str:
    if interface != "auto":
        looks = interface_of(app)
        hint = f"; it looks like {_NAMES[looks]}" if looks else ""
        then = " and its instance with (receive, send)" if interface == "asgi2" and inspect.isclass(app) else ""
        return f"cannot be called with {_ARGUMENTS[interface]}{then}, as interface: {interface} wants{hint}"
    if inspect.isclass(app):
        return "is a class, not an application: name an instance of it"
    if takes(app, 1) and not is_async(app):
        return "takes one argument, which is not called scope: if it is an ASGI 2 application, set interface: asgi2"
    return f"is not an application: it cannot be called with {_ARGUMENTS['asgi3']}"


def _wsgi(app: Callable[..., Any], what: str) -> ASGIApp:
    try:
        from asgiri.interfaces.wsgi import WsgiApplication
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "a2wsgi":
            raise
        raise AppError(f"{what} is a WSGI application, which takes a2wsgi: pip install 'asgiri[wsgi]'") from error
    return WsgiApplication(app)


class Asgi2Application:
    """The double callable of ASGI 2: ``app(scope)`` makes the instance, which is awaited with (receive, send).

    Most of them raise for a lifespan scope; ``lifespan: auto`` takes that for what it is.
    """

    def __init__(self, app: Callable[[Scope], Callable[[Receive, Send], Any]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # "version" is the version of ASGI that the application is called by (ASGI spec 3.0, "Legacy Applications").
        instance = self._app({**scope, "asgi": {**scope["asgi"], "version": "2.0"}})
        await instance(receive, send)
