"""The log level that asgirictl has set, for the master and all workers, those that are forked later too.

It holds until it is reset, a reload brings another ``log.level``, or another master takes over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from asgiri.config.keys import nearest
from asgiri.config.nodes import printable
from asgiri.link import Order
from asgiri.log import setup as log
from asgiri.supervisor.verbs import LEVELS, AskLoglevel

if TYPE_CHECKING:
    from asgiri.supervisor.children import Child
    from asgiri.supervisor.scoreboard import Scoreboard

logger = logging.getLogger("asgiri.master")


class Loudness:
    """``configured`` is the config's level; ``children`` are those that are told."""

    def __init__(self, board: Scoreboard, configured: str, children: Callable[[], Iterable[Child]]) -> None:
        self._board = board
        self._configured = configured
        self._children = children
        self._set = ""  # empty: the config's

    @property
    def level(self) -> str:
        return self._set or self._configured

    @property
    def is_set(self) -> bool:
        return bool(self._set)

    def answer(self, asked: AskLoglevel) -> dict[str, str]:
        """What is logged now. ValueError, which says so, for a level that is none, or two wishes at once."""
        level = None if asked.level is None else asked.level.lower()
        if level is not None and asked.reset:
            raise ValueError("a level, or its reset: not both")
        if level is not None and level not in LEVELS:
            known = ", ".join(LEVELS)
            raise ValueError(
                f'unknown level "{printable(level[:100])}"{nearest(level[:100], LEVELS)}; there are {known}'
            )
        if level is not None or asked.reset:
            self._change(level or "")
        return {"level": self.level, "configured": self._configured}

    def take(self, configured: str) -> None:
        """A config is in effect, and has been applied to the master's log."""
        if configured != self._configured:
            self._configured = configured
            if self._set:
                self._change("")
        elif self._set:
            log.set_level(_number(self._set))

    def _change(self, level: str) -> None:
        before = self.level
        self._set = level
        louder = _number(self.level) < _number(before)
        if louder:
            log.set_level(_number(self.level))
        who = "asgirictl" if level else "the config, as before asgirictl"
        logger.info("the log level is %s from now on, set by %s", self.level, who)
        log.set_level(_number(self.level))
        self._board.master.log_level = _number(level) if level else 0
        for child in self._children():
            if child.hears_levels:
                child.link.send(Order.LOOK)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
