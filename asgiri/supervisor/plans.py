"""Plans: which config and which listeners a generation has, and which sockets nobody needs any more.

A plan is *submitted* when its config is read and its addresses are bound, *begun* when the fleet forks the first worker
of its generation, *committed* when that is ready, and *dropped* when no worker of it is left or will be.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

# Not where it is used: at a reload another release may lie on the disk.
from asgiri.config.changes import Change, changes, taken
from asgiri.config.load import Loaded
from asgiri.config.schema import Config, Listen
from asgiri.errors import BindError
from asgiri.sockets.adjust import adjust, check_access, take_over
from asgiri.sockets.bind import open_listener
from asgiri.sockets.listener import FileId, Listener, identity
from asgiri.sockets.supply import Supply

if TYPE_CHECKING:
    from asgiri.supervisor.certificates import Certificates

logger = logging.getLogger("asgiri.master")


class Plan(Struct, frozen=True, eq=False):
    """What the workers of one generation are given; ``admin`` is what the admin child listens on.

    ``entries`` has what the config says of each listener, which may be bound in another way until the commit;
    ``changes`` is what the config says differently from the one before; ``certificates`` are there where it has TLS.
    """

    loaded: Loaded
    changes: list[Change] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    admin: list[Listener] = field(default_factory=list)
    entries: list[tuple[Listener, Listen]] = field(default_factory=list)
    certificates: Certificates | None = None

    @property
    def config(self) -> Config:
        return self.loaded.config

    @property
    def wants_admin(self) -> bool:
        """Whether an admin child has something to do: to answer, or to push metrics."""
        return bool(self.admin) or self.config.metrics.statsd.address is not None

    @property
    def all_listeners(self) -> list[Listener]:
        return [*self.listeners, *self.admin]


class Plans:
    """The plans of one master, and with them all of its listeners, which it closes when the last plan has no use."""

    def __init__(self, loaded: Loaded) -> None:
        self._by_generation = {1: Plan(loaded, certificates=certificates_of(loaded))}
        self._left_files: list[tuple[str, FileId]] = []  # of an old master's sockets that no entry of ours takes
        self._submitted: Plan | None = None  # for a reload that the fleet has been told of and has not begun

    def open(self, supply: Supply) -> None:
        """Bind what the first plan listens on; BindError when an address cannot be had, and then none is kept."""
        plan = self._by_generation[1]
        admin = plan.config.admin.bind
        supply.reserve([*plan.config.listen, *([] if admin is None else [admin_listen(admin)])])
        try:
            self._fill(plan, [], supply, logging.DEBUG if plan.config.greets else logging.INFO)
            for left in supply.left():
                logger.warning("a socket that was passed on is not in the configuration, and is closed: %s", left)
            self._left_files = supply.left_files()
        finally:
            supply.close()

    @property
    def listeners(self) -> list[Listener]:
        """All that are open."""
        plans = [*self._by_generation.values(), *([self._submitted] if self._submitted else [])]
        return list(dict.fromkeys(listener for plan in plans for listener in plan.all_listeners))

    def __getitem__(self, generation: int) -> Plan:
        return self._by_generation[generation]

    def submit(self, loaded: Loaded, current: int) -> Config:
        """Bind what is new in a config, and log what else is; the config in effect.

        BindError, or ConfigError when a TLS file cannot be read any more: nothing has changed.

        It is in the place of one not begun. ``current`` is the generation that serves: its config is in effect, and
        what a reload cannot change stays as that has it.
        """
        before_it = self._by_generation[current].loaded
        in_effect = taken(before_it, loaded)
        plan = Plan(in_effect, changes(before_it, loaded), certificates=certificates_of(in_effect))
        self._fill(plan, self.listeners, Supply())
        before = self.listeners
        self._submitted = plan
        self._close_unused(before)
        tell(plan.changes, plan.config.routine)
        return plan.config

    def __contains__(self, generation: object) -> bool:
        return generation in self._by_generation

    def begin(self, generation: int) -> Plan:
        """The generation's plan; a generation that has none yet is the reload that was submitted last."""
        if generation not in self._by_generation:
            assert self._submitted is not None
            self._by_generation[generation], self._submitted = self._submitted, None
        return self._by_generation[generation]

    def commit(self, generation: int) -> None:
        """The generation serves: the sockets that it has kept are as its config says. What cannot be done is logged."""
        for listener, listen in self._by_generation[generation].entries:
            try:
                adjust(listener, listen)
            except BindError as error:
                logger.warning("%s", error)

    def drop(self, generation: int) -> None:
        before = self.listeners
        del self._by_generation[generation]
        self._close_unused(before)

    def drop_older(self, generation: int, kept: set[int]) -> None:
        """Drop what is older than ``generation``; of those that are ``kept``, what the admin child does not need."""
        before = self.listeners
        for number, plan in list(self._by_generation.items()):
            if number < generation and number in kept:
                self._by_generation[number] = replace(plan, listeners=[], entries=[])
            elif number < generation:
                del self._by_generation[number]
        self._close_unused(before)

    def stop_listening(self) -> None:
        """Nobody accepts any more: what would wait in a queue for ever is refused at once, and can go elsewhere.

        What the admin child listens on stays.
        """
        before = self.listeners
        self._submitted = None  # a reload that waited has nothing to wait for
        for number, plan in list(self._by_generation.items()):
            self._by_generation[number] = replace(plan, listeners=[], entries=[])
        kept = self.listeners
        for listener in before:
            if listener not in kept:
                listener.close()

    def disown(self) -> None:
        """Another master has the sockets now: whether somebody accepts is its word alone, and their files are its."""
        for listener in self.listeners:
            listener.disown()
        self.stop_listening()
        for number, plan in list(self._by_generation.items()):
            for listener in plan.admin:
                listener.close()
            self._by_generation[number] = replace(plan, admin=[])

    def own(self) -> None:
        """The sockets that another master handed over are ours now, with their files."""
        for listener in self.listeners:
            listener.own()
            try:
                take_over(listener)
            except BindError as error:
                logger.warning("%s", error)
        for path, file in self._left_files:  # of sockets that only the old one had: not before, for it may go on
            if identity(path, os.lstat) == file:
                with suppress(OSError):  # others find it stale, and remove it
                    os.unlink(path)
        self._left_files = []

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()

    def _fill(self, plan: Plan, kept: list[Listener], supply: Supply, level: int = logging.INFO) -> None:
        """The listeners of a plan: kept where the address stays, opened where it is new, or its file is gone.

        New ones are logged at this ``level``.
        """
        kept = [listener for listener in kept if not listener.is_lost]
        fresh: list[Listener] = []
        admin = plan.config.admin.bind
        wanted = [(plan.listeners, listen) for listen in plan.config.listen]
        if admin is not None:
            wanted.append((plan.admin, admin_listen(admin)))
        try:
            for listeners, listen in wanted:
                found = self._keep_or_open(listen, kept, fresh, supply)
                listeners.extend(found)
                plan.entries.extend((listener, listen) for listener in found)
        except BaseException:
            for listener in fresh:
                listener.close()
            raise
        for listener in fresh:
            what = "admin" if listener in plan.admin else ", ".join(listener.listen.http)
            logger.log(level, "listening on %s (%s)", listener.url, what)

    def _keep_or_open(
        self, listen: Listen, kept: list[Listener], fresh: list[Listener], supply: Supply
    ) -> list[Listener]:
        same = [listener for listener in kept if listener.listen.address == listen.address]
        if listen.address.is_any_port:  # any other entry has all, of which systemd may pass many
            same = same[:1]
        if not same:
            opened = open_listener(listen, supply)
            fresh.extend(opened)
            return opened
        check_access(listen)
        for listener in same:
            kept.remove(listener)  # each of two ports 0 keeps its own
        return same

    def _close_unused(self, before: list[Listener]) -> None:
        """Close those of the listeners ``before`` that no plan needs any more."""
        used = self.listeners
        for listener in before:
            if listener not in used:
                logger.info("no longer listening on %s", listener.url)
                listener.close()


def certificates_of(loaded: Loaded) -> Certificates | None:
    """What is in the TLS files now, and is kept. ConfigError when one cannot be read."""
    if all(listen.tls is None for listen in loaded.config.listen):
        return None
    from asgiri.supervisor.certificates import Certificates  # which needs OpenSSL

    return Certificates(loaded)


def admin_listen(bind: str) -> Listen:
    """The entry that ``admin.bind`` is short for."""
    return Listen(bind=bind, backlog=128)


def tell(found: list[Change], routine: int) -> None:
    """Log what a reload is about to change, before it is known whether its workers can serve with it.

    That it is nothing is logged at the level ``routine``.
    """
    stays = [str(change) for change in found if change.stays]
    for change in found:
        if not change.stays:
            logger.info("%s", change, extra={"about": {"key": change.path}})
    if not found:
        logger.log(routine, "nothing in the configuration has changed")
    if stays:
        how = "a restart" if os.getpid() == 1 else "an upgrade (USR2) or a restart"  # PID 1 has no upgrade
        logger.warning("not changed by a reload, but by %s: %s", how, "; ".join(stays))
