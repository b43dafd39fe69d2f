"""An heir that goes at the worst moment, for the master that started it."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from asgiri.supervisor.messages import HandOver
from asgiri.supervisor.notify import Notifier
from asgiri.supervisor.signals import HANDLED, SignalQueue
from asgiri.supervisor.succession import Succession
from asgiri.supervisor.upgrade import READY, Recipe, Upgrade


@pytest.fixture
def signals() -> Iterator[SignalQueue]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    queue = SignalQueue()
    yield queue
    queue.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def begun(
    signals: SignalQueue, selector: selectors.BaseSelector, code: str, boot_timeout: float = 30.0
) -> tuple[Succession, list[int]]:
    """A succession whose heir is a program of this ``code``, and the pids that were handed over to."""
    handed: list[int] = []

    def hand(pid: int) -> list[HandOver]:
        handed.append(pid)
        return [HandOver()]

    recipe = Recipe((sys.executable, "-S", "-c", code), os.getcwd(), {}, 0o022)
    succession = Succession(recipe, Notifier(None), selector, signals, hand)
    succession.begin([], boot_timeout)
    return succession, handed


def test_an_heir_whose_exit_and_end_of_file_come_at_once(signals: SignalQueue) -> None:
    with selectors.DefaultSelector() as selector:
        succession, handed = begun(signals, selector, "")
        [(key, _)] = selector.select(20)
        pid, _ = os.waitpid(-1, 0)
        succession.note_exit(pid, "exited with status 0")  # the signal was looked at first
        assert list(key.data()) == []
        assert not succession.is_under_way
        assert not handed


def test_nothing_is_handed_over_to_an_heir_that_was_ready_and_has_died(signals: SignalQueue) -> None:
    code = "import json, os; os.write(json.loads(os.environ['_ASGIRI_HEIR'])['channel'], b'READY\\n')"
    with selectors.DefaultSelector() as selector:
        succession, handed = begun(signals, selector, code)
        pid, _ = os.waitpid(-1, 0)
        [(key, _)] = selector.select(20)
        assert list(key.data()) == []
        assert not handed
        succession.note_exit(pid, "exited with status 0")
        assert not succession.is_under_way


def test_an_heir_that_is_ready_is_handed_over_to(signals: SignalQueue) -> None:
    code = "import json, os; c = json.loads(os.environ['_ASGIRI_HEIR'])['channel']"
    code = f"{code}; os.write(c, b'READY\\n'); os.read(c, 9)"
    with selectors.DefaultSelector() as selector:
        succession, handed = begun(signals, selector, code)
        [(key, _)] = selector.select(20)
        assert list(key.data()) == [HandOver()]
        assert handed == [os.waitpid(-1, 0)[0]]
        assert not succession.is_under_way


def test_an_heir_that_is_too_slow_is_said_to_be(signals: SignalQueue, caplog: pytest.LogCaptureFixture) -> None:
    with selectors.DefaultSelector() as selector:
        succession, _ = begun(signals, selector, "import time; time.sleep(60)")
        deadline = succession.deadline()
        assert deadline is not None
        succession.tick(deadline - 1)
        assert "not ready in time" not in caplog.text
        succession.tick(deadline)
        assert "not ready in time" in caplog.text
        succession.note_exit(os.waitpid(-1, 0)[0], "was killed by SIGTERM")


def test_an_heir_that_lets_go_of_the_channel_and_lives_is_not_waited_for_for_ever(signals: SignalQueue) -> None:
    code = "import json, os, time; os.close(json.loads(os.environ['_ASGIRI_HEIR'])['channel']); time.sleep(60)"
    with selectors.DefaultSelector() as selector:
        succession, _ = begun(signals, selector, code, boot_timeout=0.0)
        assert succession.deadline() is None
        [(key, _)] = selector.select(20)
        assert list(key.data()) == []
        deadline = succession.deadline()
        assert deadline is not None
        succession.tick(deadline)
        succession.note_exit(os.waitpid(-1, 0)[0], "was killed by SIGTERM")
        assert not succession.is_under_way


@pytest.mark.parametrize(("said", "expected"), [(b"", False), (READY, True), (b"READ", None), (b"hello!", None)])
def test_what_the_channel_says(said: bytes, expected: bool | None) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        upgrade = Upgrade(0, ours, time.monotonic())
        theirs.send(said)
        assert upgrade.is_ready() is expected
        upgrade.close()
