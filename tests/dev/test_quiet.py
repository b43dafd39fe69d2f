"""The access log under reload: what pages of asgiri's own ask for is left out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from asgiri.dev.quiet import QuietLog
from asgiri.log.access import open_access_log, this_process


@pytest.mark.parametrize(
    ("root", "target", "kept"),
    [
        ("", b"/.asgiri/events?since=3", False),
        ("/shop", b"/shop/.asgiri/reload.js", False),
        ("/a b/", b"/a%20b/.asgiri/reload.js", False),
        ("/shop", b"/.asgiri/events", False),  # the proxy has taken it off
        ("", b"/.asgirific", True),
        ("", b"/page?to=/.asgiri/events", True),
        ("", b"*", True),
    ],
)
def test_what_is_left_out(tmp_path: Path, root: str, target: bytes, kept: bool) -> None:
    file = tmp_path / "access.log"
    log = open_access_log(str(file), "text", this_process(1, 1), lambda _seconds, _call: None)
    quiet = QuietLog(log, root)
    quiet.record("127.0.0.1:1", "GET", target, "HTTP/1.1", [], 200, 2, time.perf_counter(), 1, 1, "5f3a9c1e-1-1")
    log.close()
    assert bool(file.read_text()) is kept
