"""The control socket: a unix socket in the master's selector, on which asgirictl asks and the master answers.

Nothing that a client does can hold the master up, make it grow or make it fail: lines, connections and answers that
wait are bounded, and whoever keeps us waiting has a deadline. The life of a connection:

    state      a line is there     answered  all is sent        end of file, nothing unread  deadline  a fault
    READING    ANSWERING, LEAVING                               CLOSED                       LEAVING   LEAVING
    ANSWERING                      WRITING                      CLOSED, if it is gone
    WRITING                                  READING                                         CLOSED
    LEAVING                                  CLOSED                                          CLOSED

A fault is a line that is too long; a line that is not understood is answered as any other. A client that has ended its
own side (``nc -U``) still gets its answers. In ANSWERING there is no deadline: a reload takes as long as it takes.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import selectors
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from asgiri.errors import BindError
from asgiri.sockets.listener import identity
from asgiri.supervisor.runtime import NoRuntimeDirectoryError, Runtime, clean, peer, publish
from asgiri.supervisor.verbs import LINE_MOST, BadRequestError, Request, decode, encode

if TYPE_CHECKING:
    from asgiri.supervisor.messages import Event

logger = logging.getLogger("asgiri.master")

CONNECTIONS_MOST: Final = 32
PATIENCE: Final = 10.0  # seconds for a line to be whole, or an answer to be read
_ACCEPTED_AT_ONCE: Final = 16
_READ: Final = 16 << 10
_TOUCH_SECONDS: Final = 3600.0

Answer = Callable[[Request, "Call"], "Iterable[Event]"]


class State(Enum):
    """See the table above."""

    READING = auto()  # a line is coming
    ANSWERING = auto()  # the master has the call
    WRITING = auto()  # the answer is on its way
    LEAVING = auto()  # the last words are on their way
    CLOSED = auto()


class Door(Enum):
    """Whether clients are let in. From OPEN to PAUSED when no descriptor is left, and back with the next sweep."""

    OPEN = auto()
    PAUSED = auto()
    CLOSED = auto()  # for good


def open_control(
    configured: str | None,
    runtime: Runtime,
    selector: selectors.BaseSelector,
    answer: Answer,
    *,
    replace: bool = False,
) -> ControlServer | None:
    """The master's control socket, at ``control.socket`` of the config, or below the runtime directory.

    BindError when the place that the config names cannot be had. Without one, a service on a read-only system goes on
    without the socket, and says so. ``replace`` as for :class:`ControlServer`.
    """
    if configured is not None:
        return ControlServer(configured, selector, answer, replace=replace)
    try:
        path = runtime.socket_path(os.getpid())
        clean(path.parent)
        return ControlServer(str(path), selector, answer, mine=True)
    except (NoRuntimeDirectoryError, BindError) as error:
        logger.info("there is no control socket, asgirictl cannot be used: %s", error)
        return None


class ControlServer:
    """Listens at ``path``; ``answer`` is called with each request and the :class:`Call` to answer, at once or later.

    The events that it returns are the master's to feed. Raises BindError. A live server's socket is left alone unless
    ``replace``: the master before this one has it, and its file is replaced in one step, so that there always is one.
    ``mine``: no other process will ever be looked for at this path.
    """

    def __init__(
        self, path: str, selector: selectors.BaseSelector, answer: Answer, *, replace: bool = False, mine: bool = False
    ) -> None:
        self.path = path
        self.selector = selector
        self.answer = answer
        self._mine = mine
        self._uid = os.geteuid()
        self._connections: set[_Connection] = set()
        self._touched = 0.0
        self._file: tuple[int, int] | None  # what is ours of the path: device and inode
        self._socket, self._file = publish(path, replace)
        self._door = Door.PAUSED
        self._open()

    def sweep(self, now: float) -> None:
        """Once a second: end what is overdue. ``now`` is monotonic, in seconds."""
        for connection in list(self._connections):
            connection.sweep(now)
        self._open()
        if self._file is not None and not os.path.lexists(self.path):
            self._show_again()
        if now - self._touched >= _TOUCH_SECONDS:
            self._touched = now
            self._touch()

    def close(self) -> None:
        """End all, and remove the socket's file if it is still ours."""
        for connection in list(self._connections):
            connection.leave()
        self._shut()
        self._remove()

    def disown(self) -> None:
        """Another master is the one to be found from here on, and has the path, or will: its file is left alone.

        A path of this process's own goes at once, so that nobody finds two masters.
        """
        if self._mine:
            self._shut()
            self._remove()
        self._file = None

    def close_in_child(self) -> None:
        """After a fork: let go, and touch neither the file nor the selector, which the kernel has one of for both."""
        self._socket.close()
        for connection in self._connections:
            connection.socket.close()

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)

    def _accept(self) -> Iterable[Event]:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                client, _ = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._pause()  # it would be readable all the time
                break
            client.setblocking(False)
            self._admit(client)
        return ()

    def _admit(self, client: socket.socket) -> None:
        pid, uid = peer(client)
        if uid not in (0, self._uid, None):
            dismiss(client, f"only root and uid {self._uid} may use this socket, not uid {uid}")
        elif len(self._connections) >= CONNECTIONS_MOST:
            dismiss(client, f"too busy: {CONNECTIONS_MOST} clients are connected already")
        else:
            who = "somebody" if pid is None else f"pid {pid}, uid {uid}"
            self._connections.add(_Connection(self, client, who))

    def _open(self) -> None:
        if self._door is Door.PAUSED:
            self.selector.register(self._socket, selectors.EVENT_READ, self._accept)
            self._door = Door.OPEN

    def _pause(self) -> None:
        if self._door is Door.OPEN:
            self.selector.unregister(self._socket)
            self._door = Door.PAUSED

    def _shut(self) -> None:
        self._pause()
        self._socket.close()
        self._door = Door.CLOSED

    def _remove(self) -> None:
        if self._is_ours():
            with suppress(OSError):
                os.unlink(self.path)
        self._file = None

    def _show_again(self) -> None:
        """Somebody has removed the file: a socket that has lost its name cannot have it back, but another can."""
        try:
            fresh, self._file = publish(self.path, replace=False)
        except BindError as error:
            logger.warning("the file of the control socket is gone, asgirictl cannot be used: %s", error)
            self._file = None
            return
        self._shut()
        self._socket = fresh
        self._door = Door.PAUSED
        self._open()

    def _is_ours(self) -> bool:
        return self._file is not None and identity(self.path) == self._file

    def _touch(self) -> None:
        """Keep the file young: who cleans /tmp knows live sockets by the names they were bound to, and ours changed."""
        if self._is_ours():
            with suppress(OSError):
                os.utime(self.path)


class Call:
    """A request that waits for its answer. ``who`` asks, in words. One answer; to a client that has gone, none."""

    def __init__(self, connection: _Connection, who: str) -> None:
        self._connection: _Connection | None = connection
        self.who = who

    def reply(self, result: object = None) -> None:
        """It is done. ``result`` is anything that msgspec makes JSON of."""
        self._answer({"ok": True, "result": result})

    def fail(self, message: str, trace: str = "") -> None:
        """It cannot be done, for this reason; ``trace`` is a traceback as text."""
        self._answer(failure(message, trace))

    def _answer(self, answer: object) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.answered(encode(answer))


class _Connection:
    """One client."""

    def __init__(self, server: ControlServer, client: socket.socket, who: str) -> None:
        self.socket = client
        self._server = server
        self._who = who
        self._state = State.READING
        self._since: float | None = None  # when the first sweep found it in this state: its deadline counts from there
        self._ended = False  # the client sends no more
        self._read = bytearray()
        self._unsent = b""
        self._watched = 0  # what the selector looks for
        self._watch()

    def ready(self) -> Iterator[Event]:
        """The selector has something: write, read, and ask the master what has been asked."""
        if self._state in (State.WRITING, State.LEAVING):
            self._write()
        if self._state in (State.READING, State.ANSWERING):
            self._receive()
        if self._state is State.READING and (line := self._take_line()):
            yield from self._ask(line)  # one at a time: others want their turn
        self._watch()

    def answered(self, answer: bytes) -> None:
        """The master's answer; nothing when the client has gone."""
        if self._state is State.ANSWERING:
            self._say(answer, State.WRITING)
            self._watch()

    def sweep(self, now: float) -> None:
        if self._state is State.ANSWERING:
            if is_gone(self.socket):
                self._close()
        elif self._since is None:
            self._since = now
        elif now - self._since >= PATIENCE:
            if self._state is State.READING:
                self._refuse(f"no request within {PATIENCE:g} seconds")
                self._watch()
            else:
                self._close()

    def leave(self) -> None:
        """The server ends: what can be said without waiting is said."""
        if self._state is State.ANSWERING:
            self._say(encode(failure("the service has stopped")), State.LEAVING)
        elif self._state is State.WRITING:
            self._write()
        self._close()

    def _to(self, state: State) -> None:
        self._state = state
        self._since = None

    def _receive(self) -> None:
        if len(self._read) >= LINE_MOST:
            return
        try:
            data = self.socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._read += data
        if not data:
            self._ended = True
            if self._state is State.ANSWERING and is_gone(self.socket):
                self._close()

    def _take_line(self) -> bytes | None:
        """The next whole line that is not blank. Without one, what that means for the connection is done."""
        while (end := self._read.find(b"\n", 0, LINE_MOST)) >= 0:
            line = bytes(self._read[:end])
            del self._read[: end + 1]
            if line.strip():
                return line
        if len(self._read) >= LINE_MOST:
            self._refuse(f"the request is longer than {LINE_MOST} bytes")
        elif self._ended and self._read:
            self._refuse("the request ends without a newline")
        elif self._ended:
            self._close()
        return None

    def _ask(self, line: bytes) -> Iterator[Event]:
        try:
            request = decode(line)
        except BadRequestError as error:
            self._say(encode(failure(str(error))), State.WRITING)
            return
        self._to(State.ANSWERING)
        yield from self._server.answer(request, Call(self, self._who))

    def _refuse(self, why: str) -> None:
        self._say(encode(failure(why)), State.LEAVING)

    def _say(self, data: bytes, state: State) -> None:
        self._unsent = data
        self._to(state)
        self._write()

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent, _QUIET) :]
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        if not self._unsent:
            if self._state is State.LEAVING:
                self._close()
            else:
                self._to(State.READING)

    def _watch(self) -> None:
        """Have the selector look for what this state waits for."""
        wanted = 0
        if self._state in (State.WRITING, State.LEAVING):
            wanted = selectors.EVENT_WRITE
        elif self._state is State.READING and (self._ended or b"\n" in self._read):
            wanted = selectors.EVENT_WRITE  # there is more to do already, and its turn comes at once
        elif self._state is not State.CLOSED and not self._ended and len(self._read) < LINE_MOST:
            wanted = selectors.EVENT_READ
        if wanted == self._watched:
            return
        selector = self._server.selector
        if not self._watched:
            selector.register(self.socket, wanted, self.ready)
        elif wanted:
            selector.modify(self.socket, wanted, self.ready)
        else:
            selector.unregister(self.socket)
        self._watched = wanted

    def _close(self) -> None:
        if self._state is not State.CLOSED:
            self._to(State.CLOSED)
            self._watch()
            self.socket.close()
            self._server.forget(self)


_QUIET: Final = socket.MSG_NOSIGNAL if hasattr(socket, "MSG_NOSIGNAL") else 0


def failure(message: str, trace: str = "") -> dict[str, object]:
    answer: dict[str, object] = {"ok": False, "error": message}
    return {**answer, "trace": trace} if trace else answer


def dismiss(client: socket.socket, why: str) -> None:
    """Tell a client that it is not served, and close."""
    with client, suppress(OSError):
        client.send(encode(failure(why)), _QUIET)


def is_gone(sock: socket.socket) -> bool:
    """Whether the other end is closed, and not only for sending."""
    look = select.poll()
    look.register(sock, 0)
    return any(found & (select.POLLHUP | select.POLLERR) for _, found in look.poll(0))
