"""A question to a master, and its answer."""

from __future__ import annotations

import socket
from typing import Any, Final

# Seconds for an answer of a master that is well: it answers all but what is waited for at once.
PATIENCE: Final = 10.0
_ANSWER_MOST: Final = 16 << 20


class CtlError(Exception):
    """It was not done; ``trace`` is a traceback of the application's as text, or empty."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class NoAnswerError(CtlError):
    """There is a service, and it has not answered in time."""


def connect(path: str, patience: float | None) -> socket.socket:
    """A connection to the socket at ``path``. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(patience)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def talk(path: str, request: dict[str, object], patience: float | None) -> Any:
    """Ask, and return the result. CtlError when there is no answer within ``patience`` seconds, or the answer is no."""
    import json

    try:
        with connect(path, patience) as sock:
            line = exchange(sock, json.dumps(request).encode() + b"\n")
    except TimeoutError:
        raise NoAnswerError(f"the service at {path} does not answer") from None
    except (OSError, ValueError) as error:
        raise CtlError(f"cannot talk to a service at {path}: {in_words(error)}") from error
    if not line.endswith(b"\n"):
        raise CtlError(f"the service at {path} has gone before it answered")
    try:
        answer = json.loads(line)
        if answer["ok"]:
            return answer["result"]
        message, trace = str(answer["error"]), str(answer.get("trace", ""))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CtlError(f"what answers at {path} is no asgiri: {line[:60]!r}") from None
    raise CtlError(message, trace)


def exchange(sock: socket.socket, request: bytes) -> bytes:
    """The line that comes for a request; what there is of it when the other end is closed."""
    try:
        sock.sendall(request)
    except BrokenPipeError:
        pass  # we are not served, and are told why
    line = bytearray()
    try:
        while not line.endswith(b"\n") and len(line) < _ANSWER_MOST:
            data = sock.recv(1 << 16)
            if not data:
                break
            line += data
    except ConnectionResetError:
        pass
    return bytes(line)


def in_words(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such file, the service does not run or is somewhere else"
        case ConnectionRefusedError():
            return "the service that had this socket has gone"
        case PermissionError():
            return "no permission, try as root or as the user of the service"
        case BlockingIOError():
            return "it is too busy"
        case OSError(strerror=str(why)):
            return why
    return str(error)
