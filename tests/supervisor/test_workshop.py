"""What the master counts and watches under reload."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from asgiri.config.load import Loaded
from asgiri.config.schema import Config
from asgiri.supervisor.workshop import Lookout, Stopwatch


def test_the_time_that_a_save_takes() -> None:
    now = 1.0
    watch = Stopwatch(lambda: now)
    watch.begin(1)
    watch.ask("HUP")
    watch.begin(1)  # another one of the first generation
    watch.begin(2)
    now = 1.0314
    watch.ask("the change")  # waits for what is under way
    watch.begin(2)
    assert watch.serves(2) == "generation 2 serves, 31 ms after HUP"
    watch.begin(2)
    now = 3.0
    watch.begin(3)
    assert watch.serves(3) == "generation 3 serves, 2.0 s after the change"
    watch.ask("asgirictl")  # and comes to nothing
    watch.begin(4)
    watch.ask("asgirictl")
    watch.begin(3)
    watch.begin(5)
    assert watch.serves(5) == "generation 5 serves, 0 ms after asgirictl"


def test_a_working_directory_that_is_gone_when_a_config_comes_into_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watcher goes on as it is, and polls."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    project.rmdir()
    none = cast("Any", None)
    Lookout(none, none, lambda: none, lambda _what: ()).look(Loaded(Config(), None, {}, {}), 2)
