"""The master's children: forked here, reaped here, and the parent's handle of each."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from asgiri.config.schema import Config
from asgiri.deposit import Deposit
from asgiri.link import (
    REPORTS_MOST,
    Boot,
    BootFailed,
    ChildMain,
    GarbledError,
    Order,
    ParentEnd,
    Report,
    Warm,
    Watch,
    be,
    flush_streams,
    make_link,
)
from asgiri.sockets.listener import Listener
from asgiri.supervisor.messages import DrainReason, Ending, Event
from asgiri.supervisor.scoreboard import Scoreboard, Slot
from asgiri.supervisor.signals import SignalQueue
from asgiri.supervisor.stacks import Stacks

logger = logging.getLogger("asgiri.master")


ORDERS = {DrainReason.RETIRE: Order.RETIRE, DrainReason.STOP: Order.STOP}


class Role(Struct, frozen=True):
    """What a child is forked for.

    ``id`` is what its policy, the fleet or the sidecar, knows it by; ``number`` what people call it, 0 is no worker;
    then it has a ``name``.
    """

    main: ChildMain
    id: int
    number: int
    generation: int
    name: str = ""


class Lent(Struct, frozen=True):
    """What a child has of the master's; by the names of :class:`asgiri.link.Boot`, and but for the first under reload.

    ``material`` is what is put in its deposit: without any it has none.
    """

    material: bytes = b""

    bulletin: int = -1
    transfer: tuple[socket.socket, socket.socket] | None = None
    first: bool = False
    warm: Warm | None = None
    watch: Watch | None = None


NOTHING_LENT = Lent()

# Somebody else who forks a child of this master's; None when that cannot be.
Spawn = Callable[[Boot], int | None]


class Child(Struct, frozen=True, eq=False):
    """The parent's handle of a child; the child itself lives in :mod:`asgiri.worker` or :mod:`asgiri.admin`."""

    role: Role
    pid: int
    link: ParentEnd
    slot: Slot
    stacks: Stacks
    deposit: Deposit | None = None

    def __str__(self) -> str:
        return (
            f"worker {self.role.number} gen {self.role.generation}"
            if self.is_worker
            else f"the {self.role.name} process"
        )

    @property
    def about(self) -> dict[str, int]:
        """What the log's fields say of it."""
        numbered = {"worker": self.role.number} if self.is_worker else {}
        return {**numbered, "generation": self.role.generation}

    @property
    def hears_levels(self) -> bool:
        """Whether it takes Order.LOOK: who is there under reload only does not."""
        return self.is_worker or self.role.name == "admin"

    @property
    def is_worker(self) -> bool:
        return self.role.number > 0

    def tell(self, reason: DrainReason) -> None:
        """Have it finish."""
        self.link.send(ORDERS[reason])

    def renew(self, material: bytes) -> None:
        """TLS files have changed: give it what is in them."""
        if self.deposit is None:
            return
        try:
            self.deposit.put(material)
        except OSError as error:  # no memory is left; the next change is another try
            logger.error("%s goes on with its certificates: %s", self, error.strerror, extra={"about": self.about})
        else:
            self.link.send(Order.RENEW)

    def close(self) -> None:
        """Close what is the master's end of it."""
        self.link.close()
        self.stacks.close()
        if self.deposit is not None:
            self.deposit.close()

    def kill(self, number: signal.Signals) -> None:
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:  # it cannot be: it is not reaped yet
            pass
        except PermissionError:  # it has executed a program that is another user's (setuid)
            logger.error("%s (pid %d) is not ours to send %s any more", self, self.pid, number.name)

    @property
    def is_stopped(self) -> bool:
        """A signal or a debugger holds it (proc(5): state T or t). Not known where there is no /proc."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_bytes()
        except OSError:
            return False
        return stat.rpartition(b")")[2].split()[0] in (b"T", b"t")


class Children:
    """All children that are not reaped yet, by pid.

    ``let_go`` is called in each child: what of the master's is not for children is closed there. ``hear`` is called, in
    the master, with a child whose link has something to say.
    """

    def __init__(
        self,
        board: Scoreboard,
        signals: SignalQueue,
        selector: selectors.BaseSelector,
        hear: Callable[[Child], Iterable[Event]],
        let_go: Callable[[Boot], None],
    ) -> None:
        self._board = board
        self._signals = signals
        self._selector = selector
        self._hear = hear
        self._let_go = let_go
        self._by_pid: dict[int, Child] = {}
        self._garbled: set[int] = set()  # pids of those whose link makes no sense

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._by_pid.values()))

    def fork(
        self,
        role: Role,
        config: Config,
        listeners: list[Listener],
        others: list[Listener],
        lent: Lent = NOTHING_LENT,
        spawn: Spawn | None = None,
    ) -> Child:
        """Fork a child that has ``listeners``, and not the ``others``. OSError when there is no process to be had.

        ``spawn`` may know a quicker way, and otherwise returns None.
        """
        slot = self._board.take()
        if slot is None:
            raise OSError(errno.EAGAIN, "the scoreboard has no slot for one more process")
        stacks = links = deposit = None
        try:
            stacks = Stacks()
            deposit = Deposit(lent.material) if lent.material else None
            links = make_link(REPORTS_MOST if role.number else None)
            ours, theirs = links
            boot = Boot(
                role.number,
                role.generation,
                config,
                listeners,
                theirs,
                master_pid=os.getpid(),
                board=self._board,
                slot=slot,
                stacks=stacks.fileno(),
                bulletin=lent.bulletin,
                transfer=lent.transfer,
                first=lent.first,
                warm=lent.warm,
                watch=lent.watch,
                deposit=-1 if deposit is None else deposit.fileno(),
            )
            self._selector.register(ours, selectors.EVENT_READ, lambda: self._read(ours))
            pid = spawn(boot) if spawn is not None else None
            if pid is None:
                pid = self._fork(role, boot, ours, [listener for listener in others if listener not in listeners])
        except OSError:
            self._board.give_back(slot)
            for made in (stacks, deposit):
                if made is not None:
                    made.close()
            if links is not None:
                with suppress(KeyError):
                    self._selector.unregister(links[0])
            for end in links or ():
                end.close()
            raise
        theirs.close()
        child = Child(role, pid, ours, slot, stacks, deposit)
        self._by_pid[pid] = child
        return child

    def _fork(self, role: Role, boot: Boot, ours: ParentEnd, others: list[Listener]) -> int:
        flush_streams()  # or the child would write what is in their buffers once more
        with self._signals.held_back():
            pid = os.fork()
            if pid == 0:
                self._be(role, boot, ours, others)
        return pid

    def _read(self, link: ParentEnd) -> Iterable[Event]:
        child = next((child for child in self._by_pid.values() if child.link is link), None)
        return self._hear(child) if child is not None else ()  # it may have been reaped in the same round

    def reports(self, child: Child) -> list[Report]:
        """What its link has to say. One that makes no sense is heard no more; a child that boots has failed by it."""
        if child.pid in self._garbled:
            return []
        try:
            reports, more = child.link.read()
        except GarbledError as error:
            logger.error("%s (pid %d) is not heard any more: %s", child, child.pid, error, extra={"about": child.about})
            self._garbled.add(child.pid)
            reports, more = [BootFailed("what it reports makes no sense")], False
        if not more:
            self._stop_listening(child)
        return reports

    def _stop_listening(self, child: Child) -> None:
        with suppress(KeyError):
            self._selector.unregister(child.link)

    def reap(self) -> tuple[int, int, Child | None] | None:
        """The next process that has ended: pid, wait status, and the child it was; None when there is none.

        As PID 1, or as a subreaper, a master gets strangers too. The child must be forgotten when all is heard.
        """
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        return (pid, status, self._by_pid.get(pid)) if pid else None

    def forget(self, child: Child) -> None:
        self._stop_listening(child)
        self._garbled.discard(child.pid)
        child.close()
        self._board.give_back(child.slot)
        del self._by_pid[child.pid]

    def _be(self, role: Role, boot: Boot, ours: ParentEnd, others: list[Listener]) -> NoReturn:
        """In the child: let go of all that is the master's, be what it is for, and end without unwinding its stack."""

        def main(boot: Boot) -> int:
            self._signals.leave_in_child()
            self._selector.close()
            self._let_go(boot)
            ours.close()
            for child in self._by_pid.values():
                child.close()
            for listener in others:
                listener.sock.close()
            return role.main(boot)

        be(main, boot)


def in_words(status: int) -> str:
    """A wait status as a verb phrase: "was killed by SIGKILL", "exited with status 3"."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    return f"was killed by {name}" + (" and dumped core" if os.WCOREDUMP(status) else "")


def ending(status: int) -> Ending:
    match os.waitstatus_to_exitcode(status):
        case 0:
            return Ending.CLEAN
        case code if code in (-signal.SIGKILL, -signal.SIGTERM):
            return Ending.KILLED
        case _:
            return Ending.FAILED
