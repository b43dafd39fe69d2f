"""The language of ``log.file`` and ``log.access.file``: stderr, a path, or a system log.

The configuration checks a target with this, and the logs are opened by it.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

STDERR: Final = "-"
_SYSLOG: Final = "syslog"

# Where the system log of this machine listens (syslog(3); on Linux, syslogd and journald alike).
DEV_LOG: Final = "/dev/log"

# sun_path of sockaddr_un holds 108 bytes on Linux, the closing NUL among them (unix(7)).
_PATH_MOST: Final = 107

_EXPECTED: Final = "syslog:, syslog:/PATH or syslog:HOST:PORT"
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})", re.ASCII)


class Syslog(Struct, frozen=True):
    """A system log: a socket in the file system at ``path``, or ``host`` and ``port``, by UDP, where that is empty."""

    path: str = ""
    host: str = ""
    port: int = 0


def is_syslog(target: str) -> bool:
    """Whether the target is a system log. A file of that name is ``./syslog``."""
    return target == _SYSLOG or target.startswith(f"{_SYSLOG}:")


def is_path(target: str) -> bool:
    """Whether the target is a file that has a path."""
    return target != STDERR and not is_syslog(target)


def parse_syslog(target: str) -> Syslog:
    """The system log that a target names (see :func:`is_syslog`). Raises ValueError, which says what was expected."""
    where = target.removeprefix(_SYSLOG).removeprefix(":")
    if not where:
        return Syslog(path=DEV_LOG)
    if where.startswith("/"):
        if (size := len(where.encode("utf-8", "surrogateescape"))) > _PATH_MOST:
            raise ValueError(f"expected a socket path of {_PATH_MOST} bytes at most, got {size} bytes")
        return Syslog(path=where)
    match = _HOST_PORT.fullmatch(where)
    if match is None:
        why = "; an IPv6 address stands in brackets" if where.count(":") > 1 else ""
        if "/" in where:
            why = "; the path of a socket is absolute"
        raise ValueError(f'expected {_EXPECTED}, got "{target}"{why}')
    if not 0 < int(match[3]) < 65536:
        raise ValueError(f'expected a port from 1 to 65535, got "{match[3]}"')
    return Syslog(host=match[1] or match[2], port=int(match[3]))
