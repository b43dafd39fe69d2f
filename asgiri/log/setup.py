"""The "asgiri" logger: one line an event, as text or JSON, to stderr or to a file that can be reopened.

A line is one ``write(2)`` to a descriptor in append mode, so that master and workers share a file without
mixing their lines. What a peer or an application puts into a message can neither forge a line nor steer a
terminal: control characters are escaped. Logging never fails the program, and waits no longer than a second for a
reader that is stuck: what cannot be written is lost, in silence. Only a program's last words (critical) go to stderr
then.

Where stderr is systemd's journal, each line begins with its priority (sd-daemon(3)) and has no time of its own. A
system log is in syslog.py.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from asgiri.errors import ConfigError, Problem
from asgiri.log.file import LogFile, check_writable, is_journal
from asgiri.log.request import current
from asgiri.log_target import STDERR, is_syslog

if TYPE_CHECKING:
    from asgiri.log.syslog import SyslogSocket

LOGGER: Final = "asgiri"

# How long a line waits for a reader that does not read, in seconds. Once; the lines after it do not wait.
PATIENCE: Final = 1.0

# What log.level may be.
_LEVELS: Final = {
    name: logging.getLevelNamesMapping()[name.upper()] for name in ("debug", "info", "warning", "error", "critical")
}

# Five letters at most, so that messages stay in one column.
_LEVEL_NAMES = {logging.WARNING: "WARN", logging.CRITICAL: "CRIT"}

_WORKER = re.compile(r"worker (?P<worker>\d+) gen (?P<generation>\d+)", re.ASCII)

# C0, DEL and C1, the separators that some readers take for the end of a line, and lone surrogates.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# What configure has set up last, and an application may have taken away.
_last: list[LineHandler] = []


class Label(Struct, frozen=True):
    """How a system log files the lines of this process: ``log.syslog_facility``, and a name for the program."""

    facility: str = "daemon"
    tag: str = LOGGER


# The parameters are named after the keys of the file, "format" among them.
def configure(
    *,
    level: str,
    format: str,  # noqa: A002
    file: str,
    role: str,
    label: Label = Label(),  # noqa: B008 - it cannot be changed
    capture: bool = False,
) -> None:
    """Set up the "asgiri" logger of this process, in place of what was set up before.

    ``level`` is the name of a level, ``format`` "text" or "json", ``file`` a path, "-" for stderr or a system log
    (filed as ``label`` says), ``role`` who writes: "master", "worker 1 gen 2"; ``capture`` has what others log (the
    root logger, and warnings) written in the same way. A file that is open already and cannot be opened anew (its
    directory is gone) goes on being written to. Raises ConfigError, with the old setup left in place, when another
    one cannot be opened; ValueError for an unknown level or format.
    """
    threshold = _LEVELS.get(level.lower())
    formatter = _FORMATTERS.get(format)
    if threshold is None or formatter is None:
        raise ValueError(f"unknown log level or format: {level!r}, {format!r}")
    before = _handlers()
    try:
        handler = _handler(file, label)
    except OSError as error:
        still_open = next((old for old in before if old.file == file), None)
        if still_open is None:
            raise cannot_open("log.file", file, error) from error
        handler = still_open
    # Who reads these has the time already.
    stamped = not (is_syslog(file) or handler.is_journal)
    handler.setFormatter(formatter(role, stamped=stamped))
    logger, root = logging.getLogger(LOGGER), logging.getLogger()
    for old in before:
        root.removeHandler(old)
        if old is not handler:
            logger.removeHandler(old)
            old.end()
    logger.addHandler(handler)
    _last[:] = [handler]
    logger.setLevel(threshold)
    logger.propagate = False
    if capture:
        root.addHandler(handler)
        root.setLevel(threshold)
        logging.captureWarnings(True)


def _handler(file: str, label: Label) -> LineHandler:
    if is_syslog(file):
        from asgiri.log.syslog import SyslogHandler  # most logs are files, or stderr

        return SyslogHandler(file, label)
    return LineHandler(file, label)


def current_level() -> int:
    """From which level on this process writes, as :mod:`logging` numbers it."""
    return logging.getLogger(LOGGER).level


def set_level(level: int) -> None:
    """Write from this level on, as :mod:`logging` numbers it, until the next :func:`configure`.

    So too what the application logs, where that is captured.
    """
    logging.getLogger(LOGGER).setLevel(level)
    root = logging.getLogger()
    if any(handler in root.handlers for handler in _handlers()):
        root.setLevel(level)


def enable() -> None:
    """Undo what an application's own configuration of logging has done to ours without being asked to.

    ``logging.config`` silences every logger that it does not name (disable_existing_loggers, which is on by default).
    Others take the handlers of all loggers away: where that leaves ours with nowhere to go, it has its own again.
    """
    logger = logging.getLogger(LOGGER)
    if not logger.hasHandlers():
        for handler in _last:
            logger.addHandler(handler)
    for name, found in logging.Logger.manager.loggerDict.items():
        if isinstance(found, logging.Logger) and (name == LOGGER or name.startswith(f"{LOGGER}.")):
            found.disabled = False


def reopen() -> None:
    """Open the log file anew, after a rotation. When that fails, the old file stays, and says why."""
    for handler in _handlers():
        try:
            handler.reopen()
        except OSError as error:
            logging.getLogger(LOGGER).error('cannot reopen the log file "%s": %s', handler.file, error.strerror)


def cannot_open(key: str, file: str, error: OSError) -> ConfigError:
    """What to raise when the file that the config has at ``key`` cannot be opened."""
    return ConfigError([Problem("", key, f'cannot open "{escape(file)}": {error.strerror}')])


def check_file(key: str, file: str) -> None:
    """Raise ConfigError when the file that the config has at ``key`` could not be opened. Makes none, opens none."""
    try:
        check_writable(file)
    except OSError as error:
        raise cannot_open(key, file, error) from error


class LineHandler(logging.Handler):
    """Writes each record with one ``write(2)``. Making one raises OSError when the file cannot be opened."""

    _out: LogFile | SyslogSocket

    def __init__(self, file: str, label: Label) -> None:
        self.file = file
        self._out = self._open(label)
        self.is_journal = file == STDERR and is_journal()
        self._patience = PATIENCE
        super().__init__()

    def _open(self, _: Label) -> LogFile | SyslogSocket:
        return LogFile(self.file)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; one that cannot be written (a closed stderr, a full disk, a stuck reader) is lost."""
        text = self.format(record)
        if self.is_journal:
            text = _with_priority(text, record.levelno)
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[self._out.write(data, self._patience) :]
            self._patience = PATIENCE
        except BlockingIOError:
            self._patience = 0.0
        except OSError:
            if record.levelno >= logging.CRITICAL and self.file != STDERR:
                with suppress(OSError):
                    os.write(2, data)

    def reopen(self) -> None:
        """Go on in the file that has the name now; on OSError nothing changes."""
        self._out.reopen()

    def end(self) -> None:
        """Close the file. What is written later is lost.

        Not ``close``: logging.config closes all the handlers that there are, whoever has made them; so does the
        interpreter's end, after which there still is something to say.
        """
        self.acquire()
        try:
            self._out.close()
        finally:
            self.release()
        self.close()


class _Formatter(logging.Formatter):
    """What the two formats share: the role, a message that can always be had, and the traceback."""

    def __init__(self, role: str, *, stamped: bool = True) -> None:
        super().__init__()
        self.role = role
        self.stamped = stamped

    def message(self, record: logging.LogRecord) -> str:
        """The message; where the arguments do not fit it, both are shown as they are; nothing is raised."""
        try:
            return record.getMessage()
        except (TypeError, ValueError, LookupError):
            with suppress(Exception):
                return f"{record.msg!r} with the arguments {record.args!r}"
        except Exception:  # what is captured is the application's, and so may be __str__
            pass
        return f"a message that cannot be shown ({record.filename}, line {record.lineno})"

    def exc(self, record: logging.LogRecord) -> str:
        """The traceback and the stack of the record, as Python prints them; empty when it has none."""
        parts = []
        if record.exc_info and record.exc_info[0]:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts)


class TextFormatter(_Formatter):
    """``2026-11-23 16:08:01.123 INFO  [master] message`` in local time, with tracebacks below it.

    Not ``stamped``: without the time. A logger that is not ours is named before the message, and the request
    after it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, and below it its traceback and the text of its ``trace``."""
        stamp = ""
        if self.stamped:
            clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
            stamp = f"{clock}.{int(record.msecs):03d} "
        level = _LEVEL_NAMES.get(record.levelno, record.levelname)
        message = self.message(record)
        if not _is_ours(record):
            message = f"{record.name}: {message}"
            if request := current.get():
                message = f"{message} (request {request})"
        head = f"{stamp}{level:<5} [{escape(self.role)}] {escape(message)}"
        below = (self.exc(record), _trace(record))
        return "\n".join([head, *(escape(text.rstrip("\n"), keep="\n\t") for text in below if text)])


class JsonFormatter(_Formatter):
    """One object a line, in ASCII. The timestamp is local time with its UTC offset (RFC 3339 section 5.6).

    A record's ``extra={"about": {...}}`` are fields more.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object: timestamp, level, logger, pid, role (worker, generation), message; exc and trace if any."""
        local = datetime.fromtimestamp(record.created).astimezone()
        fields: dict[str, object] = {
            "timestamp": local.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            **_role_fields(self.role),
            **({"request_id": request} if (request := current.get()) else {}),
            **(getattr(record, "about", {}) if _is_ours(record) else {}),
            "message": self.message(record),
        }
        if exc := self.exc(record):
            fields["exc"] = exc
        if trace := _trace(record):
            fields["trace"] = trace
        import json  # a service that logs texts has no need for it

        return json.dumps(fields)


_FORMATTERS: dict[str, type[_Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def escape(text: str, keep: str = "") -> str:
    """``text`` with its control characters escaped (``\\n``, ``\\x1b``), but for those in ``keep``."""
    return _CONTROL.sub(
        lambda match: match[0] if match[0] in keep else match[0].encode("unicode_escape").decode("ascii"),
        text,
    )


def _role_fields(role: str) -> dict[str, object]:
    """The role, and for a worker its number and generation."""
    if match := _WORKER.fullmatch(role):
        return {"role": "worker", "worker": int(match["worker"]), "generation": int(match["generation"])}
    return {"role": role}


def _with_priority(text: str, level: int) -> str:
    """Each line with the priority of sd-daemon(3) before it."""
    from asgiri.log.syslog import severity  # who is not run by systemd has no need for it

    return "\n".join(f"<{severity(level)}>{line}" for line in text.split("\n"))


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether asgiri has logged it. What an application means by an ``extra`` of the same name is its own."""
    return f"{record.name}.".startswith(f"{LOGGER}.")


def _trace(record: logging.LogRecord) -> str:
    """The text of ``extra={"trace": ...}``: a traceback made into text elsewhere; empty without one."""
    return str(getattr(record, "trace", "")) if _is_ours(record) else ""


def _handlers() -> list[LineHandler]:
    return [handler for handler in logging.getLogger(LOGGER).handlers if isinstance(handler, LineHandler)]
