"""Whether a configuration can be served, as far as a start and a reload want to know it: files, engines and users."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from asgiri.config.envfile import read_env_file
from asgiri.config.nodes import printable
from asgiri.errors import BindError, ConfigError, Problem
from asgiri.log_target import is_syslog, parse_syslog

if TYPE_CHECKING:
    from pathlib import Path

    from asgiri.config.load import Loaded
    from asgiri.config.schema import Config, Listen, Tls

# A key, and what is to be said of it.
Tell = Callable[[str, str], None]


class Findings:
    """Collects what is said of keys, each with the place that the key was set at. ``errors`` are what makes it bad."""

    def __init__(self, origins: dict[str, str]) -> None:
        self._origins = origins
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.notes: list[Problem] = []
        self._failed: set[str] = set()

    def error(self, key: str, what: str) -> None:
        self.errors.append(self._placed(Problem("", key, what)))

    def warning(self, key: str, what: str) -> None:
        self.warnings.append(self._placed(Problem("", key, what)))

    def note(self, key: str, what: str) -> None:
        self.notes.append(self._placed(Problem("", key, what)))

    def attempt(self, one: Callable[[], object], key: str = "") -> bool:
        """Whether that works; its ConfigError's problems are errors, and ``key`` is wrong even if none names it."""
        try:
            one()
        except ConfigError as error:
            self.errors += map(self._placed, error.problems)
            self._failed.add(key)
            return False
        return True

    def has_error(self, *keys: str) -> bool:
        """Whether one of these keys, or of what is below them, is wrong."""
        below = tuple(f"{key}." for key in keys)
        wrong = {*self._failed, *(problem.key for problem in self.errors)}
        return any(key in keys or key.startswith(below) for key in wrong)

    def raise_any(self) -> None:
        if self.errors:
            raise ConfigError(in_reading_order(self.errors))

    def _placed(self, problem: Problem) -> Problem:
        where = self._origins.get(problem.key, problem.where)
        return Problem(where, printable(problem.key), printable(problem.what))


def in_reading_order(problems: list[Problem]) -> list[Problem]:
    """What is in files by line; then variables, flags and what nobody has said."""

    def place(problem: Problem) -> tuple[bool, str, int]:
        file, _, line = problem.where.rpartition(":")
        return (False, file, int(line)) if line.isdecimal() else (True, "", 0)

    return sorted(problems, key=place)


def check_files(loaded: Loaded, *, hurry: bool = False) -> list[Problem]:
    """ConfigError when a file that the config names cannot be used, or a user that it names cannot be had.

    The workers read them; whether they can is known before any is forked, and before a reload begins. What is returned
    is worth a warning. That a certificate has expired is, too: where it is served with already, a refusal would stop
    the whole service because of one listener's clients. In a ``hurry``, at a start, see :func:`preload`.
    """
    findings = Findings(loaded.origins)
    examine(loaded.config, findings, expired=findings.warning, hurry=hurry)
    findings.raise_any()
    return in_reading_order(findings.warnings)


def examine(config: Config, findings: Findings, expired: Tell, *, hurry: bool = False) -> None:
    """Look at what the config names, and only look. A certificate out of its dates is told to ``expired``."""
    refused = dict(refusals(config))
    for key, what in refused.items():
        findings.error(key, what)
    if config.env_file is not None and "env_file" not in refused:
        findings.attempt(partial(read_env_file, config.env_file), "env_file")
    findings.attempt(partial(preload, config, hurry=hurry))
    findings.attempt(partial(check_interface, config))
    for index, listen in enumerate(config.listen):
        key = f"listen[{index}]"
        findings.attempt(partial(check_owner, listen, key))
        if listen.tls is not None and not any(name.startswith(f"{key}.tls.") for name in refused):
            check_tls(listen.tls, listen, f"{key}.tls", findings, expired)
    if config.log.access.enabled:
        from asgiri.log.setup import check_file

        findings.attempt(partial(check_file, "log.access.file", config.log.access.file))
    check_system_logs(config, findings)
    check_identity(config, findings)
    check_proxies(config, findings)
    if config.reload.enabled:
        check_folders(config, findings)


def check_system_logs(config: Config, findings: Findings) -> None:
    """A system log that is not there yet may come, and go, while all runs: no start waits for it."""
    targets = [("log.file", config.log.file), ("log.access.file", config.log.access.file)]
    for key, target in targets if config.log.access.enabled else targets[:1]:
        if is_syslog(target) and (path := parse_syslog(target).path):
            try:
                there = stat.S_ISSOCK(os.stat(path).st_mode)
            except OSError:
                there = False
            if not there:
                findings.warning(key, f'there is no system log at "{path}": lines are lost until there is one')


def check_proxies(config: Config, findings: Findings) -> None:
    """Fields of a proxy that nobody may send: they are stripped from all requests, which somebody may even want."""
    if config.proxy.headers != "none" and not config.proxy.trusted:
        what = "these fields are taken from no peer, and stripped from all requests: proxy.trusted is empty"
        findings.warning("proxy.headers", what)


def check_folders(config: Config, findings: Findings) -> None:
    """Whether what is to be watched are folders: of any other nobody would ever hear."""
    for index, path in enumerate(config.reload.dirs):
        try:
            with os.scandir(path):
                pass
        except NotADirectoryError:
            findings.error(f"reload.dirs[{index}]", f'"{path}" is a file; name its folder, and the file in include')
        except (OSError, ValueError) as error:  # ValueError: a NUL in it
            why = error.strerror if isinstance(error, OSError) else error
            findings.error(f"reload.dirs[{index}]", f'cannot look into the folder "{path}": {why}')


def misplaced(config: Config, environ: Mapping[str, str]) -> list[Problem]:
    """A warning where who serves for development is a service of the system's. In a container it may well be."""
    if not config.reload.enabled or not environ.get("NOTIFY_SOCKET"):
        return []
    what = "this is for development, and shows whoever meets an error the application's code; never in production"
    return [Problem("", "reload.enabled", what)]


def check_identity(config: Config, findings: Findings) -> None:
    """Whether there is such a user and group as the workers are to be, and whether we may have them."""
    if config.process.user is not None or config.process.group is not None:
        from asgiri.child.privileges import resolve

        findings.attempt(partial(resolve, config.process))


def check_tls(tls: Tls, listen: Listen, key: str, findings: Findings, expired: Tell) -> None:
    # And with these OpenSSL: only where there is need for it.
    from asgiri.cli.certificates import check_dates
    from asgiri.tls import server_context

    if findings.attempt(partial(server_context, tls, listen.http, key)):
        check_dates(tls, key, findings.warning, expired)


def check_owner(listen: Listen, key: str) -> None:
    """ConfigError when there is no such user or group as a unix socket is to have."""
    if listen.owner is None and listen.group is None:
        return
    from asgiri.sockets.bind import group_id, user_id

    problems = []
    for name, look in (("owner", partial(user_id, listen.owner)), ("group", partial(group_id, listen.group))):
        try:
            look()
        except BindError as error:
            problems.append(Problem("", f"{key}.{name}", str(error).removeprefix(f"listen.{name}: ")))
    if problems:
        raise ConfigError(problems)


def read_files(config: Config) -> Iterator[tuple[str, str]]:
    """Key and path of each file that master and workers read whole."""
    if config.env_file is not None:
        yield "env_file", config.env_file
    for index, listen in enumerate(config.listen):
        if (tls := listen.tls) is not None:
            key = f"listen[{index}].tls"
            for name in ("certfile", "keyfile", "password_file", "client_ca"):
                if (path := getattr(tls, name)) is not None:
                    yield f"{key}.{name}", path
            for server, pair in tls.sni.items():
                yield f"{key}.sni.{server}.certfile", pair.certfile
                yield f"{key}.sni.{server}.keyfile", pair.keyfile


def refusals(config: Config) -> Iterator[tuple[str, str]]:
    """The keys whose file must not even be opened, and why.

    Of a pipe one process gets what is in it, and the others wait for ever; so does who reads a terminal.
    """
    for key, path in read_files(config):
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # whoever reads it will say it better; ValueError: a NUL in it
            continue
        if stat.S_ISFIFO(found.st_mode):
            yield key, f'"{path}": it is a pipe, which can be read only once; name a file'
        elif stat.S_ISCHR(found.st_mode) and not os.path.samestat(found, os.stat(os.devnull)):
            yield key, f'"{path}": it is a device; name a file'


def is_pipe(path: str | Path) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def preload(config: Config, *, hurry: bool) -> None:
    """Import what the children of this config will be made of. ConfigError when a part is not installed.

    In a ``hurry``, what no first request needs is left to the worker, where there is but one that could share it.
    """
    from asgiri.equip import load_engines, loop_factory

    loop_factory(config.loop)
    load_engines(config, all_of_them=not (hurry and config.workers.processes == 1))
    if config.admin.bind is not None or config.metrics.statsd.address is not None:
        import asgiri.admin.main
    if any(listen.proxy_protocol != "off" for listen in config.listen):
        import asgiri.proto.announced  # noqa: F401


def check_interface(config: Config) -> None:
    """ConfigError when the kind of application that is asked for takes a package that is not installed."""
    if config.interface == "wsgi":
        from importlib.util import find_spec

        if find_spec("a2wsgi") is None:
            what = "wsgi takes the package a2wsgi, which is not installed: pip install 'asgiri[wsgi]'"
            raise ConfigError([Problem("", "interface", what)])


def complete(config: Config) -> None:
    """Import what a start in a hurry has left out, and what a reload looks at files with. ImportError, ConfigError.

    For later another release may lie on the disk: a worker, or a reload, would be half of that.
    """
    import asgiri.cli.certificates
    import asgiri.config.source
    import asgiri.supervisor.inquiry
    import asgiri.supervisor.loudness  # noqa: F401
    from asgiri.equip import load_engines

    load_engines(config)
