"""The error tree. Each error says whose fault it is; each is translated once, at the edge of its layer."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from asgiri.types import Headers


class ExitCode(IntEnum):
    """Exit codes of the master; part of the interface that service managers see."""

    STOPPED = 0
    FAILED = 1
    USAGE = 2
    APP = 3
    BIND = 4


class AsgiriError(Exception):
    """The base of all errors that asgiri raises on purpose."""

    exit_code = ExitCode.FAILED


class Problem(Struct, frozen=True):
    """One thing that is wrong with the configuration.

    ``where`` is the place as a person would look for it (``asgiri.yaml:12:7``, ``--workers``,
    ``ASGIRI_WORKERS__COUNT``), ``key`` the dotted key path (may be empty), ``what`` the sentence.
    """

    where: str
    key: str
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.what) if part)


class ConfigError(AsgiriError):
    """The configuration cannot be used; carries every problem that was found, in reading order."""

    exit_code = ExitCode.USAGE

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class BindError(AsgiriError):
    """A listening socket cannot be had."""

    exit_code = ExitCode.BIND


class AppError(AsgiriError):
    """The application cannot be imported, or its lifespan failed.

    ``trace`` is the traceback of the application's own frames as text, empty when there is none to show.
    """

    exit_code = ExitCode.APP

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class RemoteProtocolError(AsgiriError):
    """The peer broke the protocol. ``status`` is the HTTP status that tells it so (RFC 9110 section 15.5)."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class HandshakeError(RemoteProtocolError):
    """A WebSocket that cannot be opened: ``status`` and ``headers`` of the answer say why (RFC 6455 section 4.2.2)."""

    def __init__(self, status: int, reason: str, headers: Headers) -> None:
        super().__init__(reason, status)
        self.headers = headers


class LocalProtocolError(AsgiriError):
    """This side was asked to send what the protocol forbids: the application's fault, never the peer's."""


class ClientDisconnectedError(OSError):
    """``send`` was called after the client had gone (ASGI HTTP spec 2.4: an OSError subclass)."""


# How frameworks (Starlette, Litestar) raise that they were told of ``websocket.disconnect``. Nobody need catch it.
TOLD_OF_DISCONNECT = "WebSocketDisconnect"


def comes_of_disconnect(error: BaseException | None) -> bool:
    """Whether the error is a ClientDisconnectedError, was raised because of it, or is a group of such alone.

    What a framework makes of a ``websocket.disconnect`` counts like one, by its name.
    """
    seen: set[int] = set()  # `raise error from error` makes a circle
    while error is not None and id(error) not in seen:
        if isinstance(error, ClientDisconnectedError) or type(error).__name__ == TOLD_OF_DISCONNECT:
            return True
        if isinstance(error, BaseExceptionGroup):
            return all(map(comes_of_disconnect, error.exceptions))
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
