"""What the master orders the admin child to do: its log's level is no reason to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing

import pytest

from asgiri.admin.main import hear
from asgiri.config.schema import Config, Log
from asgiri.link import Boot, Order, make_link
from asgiri.log.setup import LOGGER
from asgiri.server import Server
from asgiri.supervisor.scoreboard import Scoreboard
from tests.proto.fakes import hello, in_loop


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    logger = logging.getLogger(LOGGER)
    before = logger.level
    yield
    logger.setLevel(before)


@in_loop
async def test_a_level_is_taken_and_only_an_order_to_go_ends_it() -> None:
    board = Scoreboard(1)
    slot = board.take()
    assert slot is not None
    ours, theirs = make_link()
    boot = Boot(0, 1, Config(log=Log(level="error")), [], theirs, 1, board, slot, -1)
    told = asyncio.Event()
    with closing(ours), closing(theirs):
        for number, level in ((logging.DEBUG, logging.DEBUG), (0, logging.ERROR)):
            board.master.log_level = number
            ours.send(Order.LOOK)
            hear(boot, Server(hello), told)
            assert (logging.getLogger(LOGGER).level, told.is_set()) == (level, False)
        ours.send(Order.LOOK)
        ours.send(Order.RETIRE)
        hear(boot, Server(hello), told)
        assert told.is_set()
