"""Supply: sockets that need not be bound, because somebody has passed them on: the master before this one."""

from __future__ import annotations

import json
import socket
from collections.abc import MutableMapping, Sequence

from asgiri.config.schema import Listen
from asgiri.errors import BindError
from asgiri.sockets.listener import Listener


class Supply:
    """Sockets by the text of their address, each to be taken once."""

    def __init__(self, sockets: list[tuple[str, socket.socket]] | None = None) -> None:
        self._sockets = sockets or []

    @classmethod
    def from_master(cls, entries: str) -> Supply:
        """What :func:`hand_over` has said. BindError when it is no sense."""
        found = []
        try:
            for entry in json.loads(entries):
                sock = socket.socket(fileno=entry["fd"])
                sock.set_inheritable(False)
                found.append((str(entry["address"]), sock))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise BindError(f"what the old master handed over is not understood: {error}") from error
        return cls(found)

    @classmethod
    def from_systemd(cls, environ: MutableMapping[str, str], pid: int) -> Supply:
        del environ, pid
        return cls()

    def take(self, listen: Listen) -> list[socket.socket]:
        """The socket that is there for an entry of the config; none, or one."""
        for entry in self._sockets:
            if entry[0] == str(listen.address):
                self._sockets.remove(entry)
                return [entry[1]]
        return []

    def left(self) -> list[str]:
        """What nobody has taken, in words."""
        return [address for address, _ in self._sockets]

    def close(self) -> None:
        for _, sock in self._sockets:
            sock.close()
        self._sockets = []


def hand_over(listeners: Sequence[Listener]) -> tuple[str, list[int]]:
    """What an heir is told, and the descriptors that it must inherit."""
    entries = [{"address": str(listener.listen.address), "fd": listener.sock.fileno()} for listener in listeners]
    return json.dumps(entries), [listener.sock.fileno() for listener in listeners]
