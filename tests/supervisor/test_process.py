"""The pid file, and the standard streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asgiri.config.schema import Process
from asgiri.errors import ConfigError
from asgiri.supervisor.process import PidFile, Standing


def test_a_pid_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "master.pid").mkdir()
    with pytest.raises(ConfigError, match="cannot write"):
        PidFile(str(tmp_path / "master.pid")).write()
    assert os.listdir(tmp_path) == ["master.pid"]


def test_a_pid_file_is_not_written_through_a_link_of_others(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was", "ascii")
    (tmp_path / f".master.pid.{os.getpid()}").symlink_to(tmp_path / "precious")
    file = PidFile(str(tmp_path / "master.pid"))
    file.write()
    assert (tmp_path / "precious").read_text("ascii") == "as it was"
    assert (tmp_path / "master.pid").read_text("ascii") == f"{os.getpid()}\n"
    file.remove()
    assert os.listdir(tmp_path) == ["precious"]


def test_a_master_that_hands_over_leaves_the_pid_file_to_the_next_one(tmp_path: Path) -> None:
    """Who looks for it between the two finds one, and what is removed could be the next one's already."""
    standing = Standing(Process(pidfile=str(tmp_path / "master.pid")), 0o022)
    standing.show()
    standing.disown()
    standing.leave()
    assert (tmp_path / "master.pid").read_text("ascii") == f"{os.getpid()}\n"


def test_programs_that_are_executed_have_the_standard_streams_that_were_filled() -> None:
    code = """
import os, sys
from asgiri.supervisor.process import fill_standard_streams
os.close(0)
fill_standard_streams()
os.execv("/bin/sh", ["sh", "-c", "[ -e /proc/self/fd/0 ] && echo there"])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert found.stdout == "there\n", found
