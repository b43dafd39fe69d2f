"""What the listeners of a generation show and trust, as the master holds it: read once, watched, and swapped when good.

The workers are given what is held here, those too that are forked later: whatever becomes of the files, what is served
stays good. :mod:`asgiri.supervisor.renewal` says when to look into a file; this is the kernel's edge of it, and the
words. See docs/design/tls.md.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from asgiri.config.load import Loaded
from asgiri.config.nodes import printable
from asgiri.config.schema import Listen, Tls
from asgiri.deposit import Materials, encode
from asgiri.errors import ConfigError, Problem
from asgiri.metrics.catalogue import metric
from asgiri.supervisor.renewal import Cause, Look, Phase, Renewal, Step
from asgiri.supervisor.scoreboard import MasterSlot
from asgiri.tls import make_context
from asgiri.tls_files import CLIENT_CA, Contents, Part, parts_of, read_part
from asgiri.x509 import Certificate, ders_in, in_pem, names
from asgiri.x509 import read as read_certificate

logger = logging.getLogger("asgiri.master")

TAKEN: Final = metric("certificate_reloads").word("taken")
REFUSED: Final = metric("certificate_reloads").word("refused")

# When the end of a certificate in use is told of, in days before it; each once. At 14, a few renewals have failed.
WARN_DAYS: Final = (14, 7, 1, 0)
_DAY: Final = 86400.0

# How long files are looked into in one second, at most, but for one part. What is left is for the next: neither the
# master, nor any worker with its contexts, stands still when the certificates of thousands of names change at once.
JUDGING_SECONDS: Final = 0.1
_NAMES_MOST: Final = 5  # that a line of the log has


class Held:
    """One part of a listener's section: what is in use of it, and what is known of its files."""

    def __init__(self, index: int, listen: Listen, tls: Tls, part: Part) -> None:
        self.index = index
        self.part = part
        self.key = f"listen[{index}].tls"
        self.http = listen.http
        self.tls = tls
        self.renewal = Renewal(look_at(part.paths))  # before they are read: what comes in between is a change
        self.keep(read_part(part, self.key))
        self.doubt = ""  # why what is on the disk is no good
        self.was_refused = False  # and that was said
        self.warned = 0  # so many of WARN_DAYS have been told of
        name = part.place.removeprefix(".sni.")
        self.name = printable(listen.bind if part.place in ("", CLIENT_CA) else f"{listen.bind} ({name})")

    def keep(self, contents: Contents) -> None:
        """These are in use from here on."""
        self.contents = contents
        certificate = first_of(self.first)
        # Of the server's certificate, in seconds since 1970; 0 where that is not understood.
        self.expiry = certificate.not_after.timestamp() if certificate is not None else 0.0

    @property
    def first(self) -> bytes:
        """What is in the certificate's file, or the authorities'."""
        return self.contents[self.part.files[0][1]]


class Certificates:
    """All parts of the listeners of one config. Raises ConfigError when a file cannot be read.

    Whether they are good somebody has asked before (asgiri.cli.check).
    """

    def __init__(self, loaded: Loaded) -> None:
        self._origins: Mapping[str, str] = loaded.origins
        config = loaded.config
        self._count = len(config.listen)
        self._held: list[Held] = []
        try:
            for index, listen in enumerate(config.listen):
                if listen.tls is not None:
                    self._held += [Held(index, listen, listen.tls, part) for part in parts_of(listen.tls)]
        except ConfigError as error:
            raise ConfigError(list(self._placed(error))) from None
        self._encoded: bytes | None = None

    @property
    def encoded(self) -> bytes:
        """What is in use, as a worker finds it in its deposit (asgiri.deposit)."""
        if self._encoded is None:
            materials: Materials = [None] * self._count
            for held in self._held:
                material = materials[held.index]
                if material is None:
                    material = materials[held.index] = {}
                material[held.part.place] = held.contents
            self._encoded = encode(materials)
        return self._encoded

    def show(self, slot: MasterSlot, wall: float) -> None:
        """They are in effect. Of those that end soon whoever has read the config has told."""
        self._tell_ends(slot)
        for held in self._shown():
            held.warned = passed(held.expiry, wall)

    def look(self, slot: MasterSlot, now: float, wall: float) -> bool:
        """Once a second: take in what has changed and is good; whether anything was. ``now`` is monotonic."""
        taken = False
        spent = 0.0
        for held in self._held:
            if not held.tls.watch:
                continue
            seen = look_at(held.part.paths)
            match held.renewal.look(seen, age_of(seen, wall), now):
                case Step.JUDGE if spent < JUDGING_SECONDS:
                    began = time.monotonic()
                    taken |= self._judge(held, seen, slot, wall)
                    spent += time.monotonic() - began
                case Step.REFUSE:
                    slot.count(REFUSED)
                    held.was_refused = True
                    logger.error("%s: changed files are refused, and what was in use stays: %s", held.name, held.doubt)
        if taken:
            self._encoded = None
            self._tell_ends(slot)
        self._warn(wall)
        return taken

    def _judge(self, held: Held, seen: Look, slot: MasterSlot, wall: float) -> bool:
        """Look into the files, and take what is in them if that is good and new; whether it is."""
        try:
            contents = read_part(held.part, held.key)
            if look_at(held.part.paths) != seen:
                return False  # somebody is at it: the next look will tell
            if contents != held.contents:
                self._try(held, contents, wall)
        except ConfigError as error:
            held.doubt = "; ".join(map(str, self._placed(error)))
            held.renewal.judged(Cause.DOUBT)
            logger.debug("%s: the changed files are no good yet: %s", held.name, held.doubt)
            return False
        if contents == held.contents:
            held.renewal.judged(Cause.SAME)
            if held.was_refused:
                logger.info("%s: the files are again as they are in use", held.name)
            held.was_refused = False
            return False
        held.renewal.judged(Cause.TAKEN)
        held.keep(contents)
        held.was_refused, held.warned = False, 0
        slot.count(TAKEN)
        logger.info("%s: %s", held.name, in_words(held))
        return True

    def _try(self, held: Held, contents: Contents, wall: float) -> None:
        """ConfigError, when these would not do in the place of what is in use."""
        beside = {one.part.place: one for one in self._held if one.index == held.index}
        if held.part.place == CLIENT_CA:
            own = beside[""]
            make_context(held.tls, held.http, held.key, own.part, own.contents, contents)
            return
        authorities = beside[CLIENT_CA].contents if CLIENT_CA in beside else {}
        make_context(held.tls, held.http, held.key, held.part, contents, authorities)
        key, path = held.part.files[0]
        new, old = first_of(contents[path]), first_of(held.first)
        now = datetime.fromtimestamp(wall, UTC)
        if new is not None and old is not None and old.not_before <= now <= old.not_after:
            if now > new.not_after:
                what = f'the certificate in "{path}" expired on {day(new.not_after)}, and the one in use has not'
                raise ConfigError([Problem("", f"{held.key}{key}", what)])
            if now < new.not_before:
                what = f'the certificate in "{path}" holds from {day(new.not_before)} on, and not yet'
                raise ConfigError([Problem("", f"{held.key}{key}", what)])

    def _shown(self) -> Iterator[Held]:
        """The certificates that clients are shown, in the order of asgiri.metrics.certificates."""
        return (held for held in self._held if held.part.place != CLIENT_CA)

    def _tell_ends(self, slot: MasterSlot) -> None:
        slot.expiries = [max(0, int(held.expiry)) for held in self._shown()]

    def _warn(self, wall: float) -> None:
        """Tell of certificates in use that end soon, or have ended."""
        for held in self._shown():
            if (count := passed(held.expiry, wall)) > held.warned:
                held.warned = count
                end = day(datetime.fromtimestamp(held.expiry, UTC))
                what = "has ended on" if WARN_DAYS[count - 1] == 0 else "ends on"
                refused = "; the changed files are refused" if held.renewal.phase is Phase.REFUSED else ""
                logger.warning("%s: the certificate in use %s %s%s", held.name, what, end, refused)

    def _placed(self, error: ConfigError) -> Iterator[Problem]:
        """The problems with the places of the keys that they are about."""
        for problem in error.problems:
            where = self._origins.get(problem.key, problem.where)
            yield Problem(where, printable(problem.key), printable(problem.what))


def look_at(paths: Iterable[str]) -> Look:
    """How the files look, behind whatever links: which they are, their sizes, and when they changed."""
    return tuple(map(_look_at, paths))


def _look_at(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        return (getattr(error, "errno", None) or 0,)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def age_of(seen: Look, wall: float) -> float:
    """How long ago one of the files changed last, in seconds, where all are there; else -1."""
    if any(len(one) == 1 for one in seen):
        return -1.0
    return wall - max(max(one[-2:]) for one in seen) / 1e9


def first_of(data: bytes) -> Certificate | None:
    """The first certificate; None when it is not understood, which is no reason to refuse what OpenSSL takes."""
    try:
        return next(in_pem(data), None)
    except ValueError:
        return None


def passed(expiry: float, wall: float) -> int:
    """How many of :data:`WARN_DAYS` have come; none where the end is not known."""
    return sum(wall > expiry - days * _DAY for days in WARN_DAYS) if expiry else 0


def in_words(held: Held) -> str:
    """What was taken in: ``a new certificate for www.example.org, until 2027-01-31 12:00 UTC``."""
    data = held.first
    if held.part.place == CLIENT_CA:
        count = sum(1 for _ in ders_in(data))
        return f"new client authorities: {count} certificate{'s' if count != 1 else ''}"
    try:
        der = next(ders_in(data))
        hosts, end = names(der), read_certificate(der).not_after
    except (ValueError, StopIteration):
        return f'a new certificate, of "{held.part.files[0][1]}"'
    more = [f"{len(hosts) - _NAMES_MOST} more"] if len(hosts) > _NAMES_MOST else []
    whom = ", ".join([*hosts[:_NAMES_MOST], *more])
    return printable(f"a new certificate{f' for {whom}' if whom else ''}, until {day(end)}")


def day(date: datetime) -> str:
    return f"{date:%Y-%m-%d %H:%M} UTC"
