"""``python -m asgiri.ctl.probe [ADDRESS]``: whether a service on this machine lives, by /livez of its admin listener.

For a HEALTHCHECK in an image without curl. It is run every few seconds, and so is no verb of asgirictl: it imports next
to nothing. Without an ADDRESS it is that of ``$ASGIRI_ADMIN__BIND``, or ``admin.bind`` of the file that asgiri would
read.

Exit codes: 0 it lives; 1 it does not, or cannot be asked, with a line on the standard output that says why.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

PATIENCE: Final = 5.0  # seconds, to be connected and for each piece of the answer
ADMIN_VARIABLE: Final = "ASGIRI_ADMIN__BIND"
# What is bound to all addresses is asked on a loopback one.
LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


class ProbeError(Exception):
    """It does not live, or cannot be asked."""


def admin_bind(environ: Mapping[str, str]) -> str:
    """Where the service has its admin listener. ProbeError when that is not said."""
    if named := environ.get(ADMIN_VARIABLE):
        return named
    from asgiri.ctl.find import configured_text

    bind = configured_text(environ, "admin", "bind")
    if not bind:
        raise ProbeError(f"no admin.bind is configured; expected it there, in {ADMIN_VARIABLE} or as an argument")
    return bind


def connect(bind: str) -> socket.socket:
    """A connection to HOST:PORT, [V6]:PORT, a PORT alone, unix:PATH or unix:@NAME. Raises OSError, and ProbeError."""
    kind, _, path = bind.partition(":")
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(PATIENCE)
            sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
        except BaseException:
            sock.close()
            raise
        return sock
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ProbeError(f'expected HOST:PORT, PORT or unix:PATH to ask at, got "{bind}"')
    return socket.create_connection((LOOPBACK.get(host, host), int(port)), PATIENCE)


def status_line(sock: socket.socket) -> str:
    """The first line of the answer to GET /livez; what there is of it when the other end closes. Raises OSError."""
    sock.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while b"\r\n" not in answer and len(answer) < 1024 and (data := sock.recv(1024)):
        answer += data
    return answer.partition(b"\r\n")[0].decode("ascii", "backslashreplace")


def probe(bind: str) -> None:
    """ProbeError unless what listens at ``bind`` says that it lives."""
    try:
        with connect(bind) as sock:
            line = status_line(sock)
    except TimeoutError:
        raise ProbeError(f"{bind} does not answer") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ProbeError(f"{bind} cannot be asked: {why}") from None
    version, _, status = line.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ProbeError(f"what answers at {bind} is no admin listener of asgiri: {line[:60]!r}")
    if not status.startswith("200"):
        raise ProbeError(f"/livez at {bind} says {status[:60]}")


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    try:
        if len(arguments) > 1:
            raise ProbeError("expected one ADDRESS at most")
        probe(arguments[0] if arguments else admin_bind(os.environ))
    except ProbeError as error:
        print(error)
        return 1
    return 0


def run() -> NoReturn:
    """Be the command."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
