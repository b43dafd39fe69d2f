"""The log of a process of the service, as its config wants it."""

from __future__ import annotations

import logging

from asgiri.config.schema import Config
from asgiri.link import Boot
from asgiri.log import setup as log


def configure(config: Config, role: str, *, runs_app: bool = False) -> None:
    """Set up the log of this process; ``role`` is who writes. Raises ConfigError when it cannot be opened.

    What others log is captured, if that is asked for, where the application is: a process that ``runs_app``.
    """
    log.configure(
        level=config.log.level,
        format=config.log.format,
        file=config.log.file,
        role=role,
        label=label(config),
        capture=runs_app and config.log.capture,
    )


def adopt_level(boot: Boot) -> None:
    """Log from the level on that asgirictl has set; without one, or with none that it could be, from the config's."""
    numbers = logging.getLevelNamesMapping()
    told = boot.board.master.log_level
    log.set_level(told if told in numbers.values() and told else numbers[boot.config.log.level.upper()])


def label(config: Config) -> log.Label:
    """How a system log files the lines."""
    return log.Label(config.log.syslog_facility, config.process.title)
