"""The request that a line was logged in: known where the application's own lines are captured."""

from __future__ import annotations

from contextvars import ContextVar

from asgiri.types import ASGIApp, Receive, Scope, Send

# The request's id; empty outside of one. Tasks that a request starts have it too, and threads that copy the context.
current: ContextVar[str] = ContextVar("asgiri_request", default="")


def noting(app: ASGIApp) -> ASGIApp:
    """The application, called with :data:`current` set to what its scope says (``state["request_id"]``)."""

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            current.set(scope["state"].get("request_id", ""))
        await app(scope, receive, send)

    return noted
