"""Log files that are rotated while a worker boots: it has them open, and no loop yet."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.e2e.conftest import Start
from tests.e2e.service import eventually, get

APP = """
import os, signal, time
from pathlib import Path
from app import app
Path(os.environ["MARKS"], "imports").touch()
while not Path(os.environ["MARKS"], "go").exists():
    time.sleep(0.005)
"""


def test_a_worker_that_boots_goes_on_in_the_new_files(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(APP, "ascii")
    access = tmp_path / "access.log"
    service = start(
        *("--app-dir", str(tmp_path), "--set", f"log.access.file={access}"),
        app="own:app",
        env={"MARKS": str(tmp_path), "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}"},
    )
    assert eventually((tmp_path / "imports").exists)
    access.rename(tmp_path / "access.log.1")
    service.signal(signal.SIGUSR1)
    service.log.wait("log files are reopened")
    (tmp_path / "go").touch()
    service.ready()
    get(service, "/who")
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    assert "/who" in access.read_text("ascii")
