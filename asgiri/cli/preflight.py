"""``--check-config``: all that a start would find wrong, found without starting, and what will be wrong soon.

Nothing is made or removed, nobody is kept waiting, and no client of a service that runs notices: it is run just before
that one is told to reload.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from asgiri.cli.check import Findings, check_identity, examine, in_reading_order
from asgiri.cli.output import complain, say
from asgiri.config.address import UNIX_PATH_MOST, Address, parse_bind
from asgiri.errors import BindError, ExitCode
from asgiri.log_target import is_path
from asgiri.sockets.holder import in_words, title_of
from asgiri.sockets.probe import InUseError, Names, UnknownYetError, probe, probe_file, why_not_at
from asgiri.supervisor.process import apply_process, title_text

if TYPE_CHECKING:
    from asgiri.cli.trial import Outcome
    from asgiri.config.load import Loaded
    from asgiri.config.schema import Config


def check(loaded: Loaded, import_app: bool) -> None:
    """Say what is to be said of the configuration. ConfigError, or exit code 2, when something is wrong with it."""
    config = loaded.config
    findings = Findings(loaded.origins)
    # Relative paths start where the master would work: without that place, nothing can be said of files.
    preflight = Preflight(config, findings)
    has_place = findings.attempt(partial(apply_process, config.process))
    if has_place:
        examine(config, findings, expired=findings.error)
        preflight.check()
    else:
        check_identity(config, findings)
    # Before the addresses: a fork wants no threads, and names are looked up in some.
    outcome = _tried(config, findings) if import_app else None
    preflight.check_addresses(with_files=has_place)
    if outcome is not None and outcome.warning:
        findings.warning("app", outcome.warning)
    for kind, problems in (("note", findings.notes), ("warning", findings.warnings)):
        for problem in in_reading_order(problems):
            complain(f"asgiri: {kind}: {problem}")
    if outcome is not None and outcome.error:
        complain(f"asgiri: {outcome.error}")
        if outcome.trace:
            complain(outcome.trace.rstrip("\n"))
    findings.raise_any()
    if outcome is not None and outcome.error:
        sys.exit(ExitCode.USAGE)
    # Who asks by the exit code alone is not told that it is good where that cannot be written.
    say(f"asgiri: {loaded.found.path if loaded.found else 'the configuration'} is good")


def _tried(config: Config, findings: Findings) -> Outcome | None:
    """What comes of importing the application; None where what that takes is not there, which is said already."""
    if findings.has_error("app_dir", "env_file", "process.chdir", "process.user", "process.group"):
        return None
    from asgiri.cli.trial import try_import

    return try_import(config)


class Preflight:
    """Opens what a start would open, and more carefully than that."""

    def __init__(self, config: Config, findings: Findings) -> None:
        self._config = config
        self._findings = findings

    def check(self) -> None:
        """All but the addresses."""
        self._check_certificates()
        self._check_owners()
        self._check_files()

    def _check_certificates(self) -> None:
        for index, listen in enumerate(self._config.listen):
            key = f"listen[{index}].tls"
            if listen.tls is not None and not self._findings.has_error(key):
                from asgiri.cli.certificates import check_modes, check_order

                check_order(listen.tls, key, self._findings.warning)
                check_modes(listen.tls, key, self._findings.warning)

    def _check_owners(self) -> None:
        """Only root gives files away (chown(2))."""
        if (ours := os.geteuid()) == 0:
            return
        from asgiri.sockets.bind import group_id, user_id

        for index, listen in enumerate(self._config.listen):
            key = f"listen[{index}]"
            if self._findings.has_error(f"{key}.owner", f"{key}.group"):
                continue
            if user_id(listen.owner) not in (-1, ours):
                self._findings.error(f"{key}.owner", f"only root can make a socket that is {listen.owner}'s")
            if group_id(listen.group) not in (-1, os.getegid(), *os.getgroups()):
                self._findings.error(f"{key}.group", f"you are not in the group {listen.group}, and not root")

    # Addresses

    def _addresses(self) -> Iterator[tuple[str, Address, str]]:
        """Key, address, and the FileDescriptorName by which systemd may pass a socket for it."""
        for index, listen in enumerate(self._config.listen):
            yield f"listen[{index}].bind", listen.address, listen.name or ""
        if self._config.admin.bind is not None:
            yield "admin.bind", parse_bind(self._config.admin.bind), ""

    def check_addresses(self, with_files: bool) -> None:
        """See whether each could be bound; without unix sockets that have a file, where their place is not known."""
        names = Names(address for _, address, _ in self._addresses())
        for key, address, name in self._addresses():
            if address.kind == "unix" and not address.is_abstract and not with_files:
                continue
            if address.kind == "systemd":
                self._findings.note(key, f"whether systemd passes sockets for {address} is seen at the start only")
                continue
            try:
                probe(address, names)
            except InUseError as error:
                self._judge(key, address, error, name)
            except BindError as error:
                self._findings.error(key, f"cannot bind {address}: {error}")
            except UnknownYetError as error:
                self._findings.warning(key, str(error))

    def _judge(self, key: str, address: Address, taken: InUseError, name: str) -> None:
        """Say who has an address. The service that is to reload this very configuration may have it."""
        running = self._running()
        pid = taken.pid or running
        title = title_of(pid) if pid else ""
        if not pid:
            what = f"{address} is in use, by a process that cannot be seen from here"
            self._findings.warning(key, f"{what}: fine if that is the running service")
        elif pid == running or title == title_text(self._config.process.title, "master", self._config.target):
            seems = "" if taken.pid else ", as it seems"  # it runs, and cannot be looked into
            what = f"{address} is in use by the running service, pid {pid}{seems}"
            if taken.exactly:
                self._findings.note(key, f"{what}, which keeps it")
            else:
                what = f"{what}, for another address"
                self._findings.warning(key, f"{what} of that port: a reload cannot bind it, a restart can")
        elif self._is_master(title):
            what = f"{address} is in use by another service of asgiri, pid {pid} ({title})"
            self._findings.warning(key, f"{what}: fine if that one is to reload this")
        elif name and _is_systemd(pid):
            self._findings.note(key, f"{address} is in use by systemd, which passes it on by the name {name}")
        else:
            self._findings.error(key, f"cannot bind {address}: the address is in use by {in_words(pid)}")

    def _is_master(self, title: str) -> bool:
        """Whether a process is called as a master of ours is, whatever it serves. gunicorn's has its own name in it."""
        prefixes = {"asgiri", self._config.process.title}
        return title.startswith(tuple(title_text(prefix, "master", "").removesuffix("]") for prefix in prefixes))

    def _running(self) -> int:
        """The master that the pid file names; 0 when there is none."""
        if self._config.process.pidfile is None:
            return 0
        try:
            with open(self._config.process.pidfile, encoding="ascii") as file:
                pid = int(file.read(20))
        except (OSError, ValueError):
            return 0
        return pid if self._is_master(title_of(pid)) else 0

    # Files

    def _check_files(self) -> None:
        config, findings = self._config, self._findings
        if not os.path.isdir(config.app_dir):
            what = "is not a directory" if os.path.lexists(config.app_dir) else "is not there"
            findings.error("app_dir", f'the directory "{config.app_dir}" {what}')
        if is_path(config.log.file):
            from asgiri.log.setup import check_file

            findings.attempt(partial(check_file, "log.file", config.log.file))
        if (path := config.process.pidfile) is not None:
            if os.path.isdir(path):
                findings.error("process.pidfile", f'"{path}" is a directory')
            elif why := why_not_at(path):
                findings.error("process.pidfile", why)
        if (path := config.control.socket) is not None:
            self._check_control(path)

    def _check_control(self, path: str) -> None:
        key = "control.socket"
        if (size := len(os.fsencode(path))) > UNIX_PATH_MOST:
            self._findings.error(key, f"expected a path of {UNIX_PATH_MOST} bytes at most, got {size} bytes")
            return
        try:
            probe_file(path)
        except InUseError as error:
            if error.pid and not self._is_master(title_of(error.pid)):
                self._findings.error(key, f'on "{path}" listens {in_words(error.pid)}')
        except BindError as error:
            self._findings.error(key, str(error))


def _is_systemd(pid: int) -> bool:
    return "(systemd)" in in_words(pid)
