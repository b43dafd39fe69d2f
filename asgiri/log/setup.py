"""The "asgiri" logger: one line an event, as text or JSON, to stderr or to a file that can be reopened.

A line is one ``write(2)`` to a descriptor in append mode, so that master and workers share a file without
mixing their lines. What a peer or an application puts into a message can neither forge a line nor steer a
terminal: control characters are escaped. Logging never fails the program, and waits no longer than a second for a
reader that is stuck: what cannot be written is lost, in silence. Only a program's last words (critical) go to stderr
then.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from datetime import datetime
from typing import Final

from asgiri.errors import ConfigError, Problem
from asgiri.log.file import STDERR, LogFile, check_writable

LOGGER: Final = "asgiri"

# How long a line waits for a reader that does not read, in seconds. Once; the lines after it do not wait.
PATIENCE: Final = 1.0

# Five letters at most, so that messages stay in one column.
_LEVEL_NAMES = {logging.WARNING: "WARN", logging.CRITICAL: "CRIT"}

_WORKER = re.compile(r"worker (?P<worker>\d+) gen (?P<generation>\d+)", re.ASCII)

# C0, DEL and C1, the separators that some readers take for the end of a line, and lone surrogates.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# The parameters are named after the keys of the file, "format" among them.
def configure(*, level: str, format: str, file: str, role: str) -> None:  # noqa: A002
    """Set up the "asgiri" logger of this process, in place of what was set up before.

    ``level`` is the name of a level, ``format`` "text" or "json", ``file`` a path or "-" for stderr, ``role`` who
    writes: "master", "worker 1 gen 2". A file that is open already and cannot be opened anew (its directory is
    gone) goes on being written to. Raises ConfigError, with the old setup left in place, when another one cannot be
    opened; ValueError for an unknown level or format.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    formatter = _FORMATTERS.get(format)
    if threshold is None or formatter is None:
        raise ValueError(f"unknown log level or format: {level!r}, {format!r}")
    before = _handlers()
    try:
        handler = LineHandler(file)
    except OSError as error:
        still_open = next((old for old in before if old.file == file), None)
        if still_open is None:
            raise cannot_open("log.file", file, error) from error
        handler = still_open
    handler.setFormatter(formatter(role))
    logger = logging.getLogger(LOGGER)
    for old in logger.handlers[:]:
        if old is not handler:
            logger.removeHandler(old)
            old.close()
    logger.addHandler(handler)
    logger.setLevel(threshold)
    logger.propagate = False


def set_level(level: int) -> None:
    """Write from this level on, as :mod:`logging` numbers it, until the next :func:`configure`."""
    logging.getLogger(LOGGER).setLevel(level)


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

    def __init__(self, file: str) -> None:
        self.file = file
        self._out = LogFile(file)
        self._patience = PATIENCE
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; one that cannot be written (a closed stderr, a full disk, a stuck reader) is lost."""
        data = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
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

    def close(self) -> None:
        """Close the file. What is written later is lost."""
        self.acquire()
        try:
            self._out.close()
        finally:
            self.release()
        super().close()


class _Formatter(logging.Formatter):
    """What the two formats share: the role, a message that can always be had, and the traceback."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role

    def message(self, record: logging.LogRecord) -> str:
        """The message; where the arguments do not fit it, both are shown as they are; nothing is raised."""
        try:
            return record.getMessage()
        except (TypeError, ValueError, LookupError):
            return f"{record.msg!r} with the arguments {record.args!r}"

    def exc(self, record: logging.LogRecord) -> str:
        """The traceback and the stack of the record, as Python prints them; empty when it has none."""
        parts = []
        if record.exc_info and record.exc_info[0]:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return "\n".join(parts)


class TextFormatter(_Formatter):
    """``2026-11-23 16:08:01.123 INFO  [master] message`` in local time, with tracebacks below it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, and below it its traceback and the text of its ``trace``."""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = _LEVEL_NAMES.get(record.levelno, record.levelname)
        message = escape(self.message(record))
        head = f"{clock}.{int(record.msecs):03d} {level:<5} [{escape(self.role)}] {message}"
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
            **getattr(record, "about", {}),
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


def _trace(record: logging.LogRecord) -> str:
    """The text of ``extra={"trace": ...}``: a traceback made into text elsewhere; empty without one."""
    return str(getattr(record, "trace", ""))


def _handlers() -> list[LineHandler]:
    return [handler for handler in logging.getLogger(LOGGER).handlers if isinstance(handler, LineHandler)]
