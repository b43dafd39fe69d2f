"""A working directory that goes and comes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asgiri.supervisor.home import Home


def test_a_directory_that_was_made_anew_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    home = Home()
    assert not home.enter_again(), "it is there"
    project.rmdir()
    assert not home.enter_again(), "there is nothing to enter"
    project.mkdir()
    assert home.enter_again()
    assert os.getcwd() == str(project)
    assert not home.enter_again()
