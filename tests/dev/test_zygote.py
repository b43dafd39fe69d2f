"""What a zygote makes of packages with surprising habits: each in a process of its own, which imports them for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asgiri.config.schema import Config, Process, Reload
from asgiri.supervisor.warm import wants_one

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import atexit, json, os, sys
from asgiri.dev.modules import tops
from asgiri.dev.zygote import warm_up
from asgiri.link import Warm
names, environ = json.loads(sys.argv[1])
path = sys.path[:]
why = warm_up(Warm(None, tuple(names), environ), tops(["."]), ".")
there = [name for name in names if name in sys.modules]
import probe
added = [entry for entry in sys.path if entry not in path]
print(json.dumps([why, there, added, os.environ.get("MODE"), probe.VALUE, os.environ.get("PROBE")]))
sys.stdout.flush()
os._exit(0)
"""


class Warmed:
    """What came of it; ``output`` is all that was written besides."""

    def __init__(self, tmp_path: Path, modules: dict[str, str], environ: dict[str, str], own: dict[str, str]) -> None:
        lib, project = tmp_path / "lib", tmp_path / "project"
        for folder, files in ((lib, {"probe.py": "VALUE = None\n", **modules}), (project, own)):
            folder.mkdir()
            for name, text in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
        names = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in modules]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps([names, environ])],
            cwd=project,
            env={"PYTHONPATH": f"{project}:{lib}:{ROOT}"},
            capture_output=True,
            text=True,
            check=True,
        )
        *output, last = done.stdout.splitlines()
        self.output = "\n".join(output) + done.stderr
        told: list[Any] = json.loads(last)
        self.why, self.there, self.added, mode, self.value, self.left = told
        assert mode is None, "the environment is as it was"


def warmed(
    tmp_path: Path, modules: dict[str, str], environ: dict[str, str] | None = None, own: dict[str, str] | None = None
) -> Warmed:
    return Warmed(tmp_path, modules, environ or {}, own or {})


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "started a thread"),
        ("import asyncio\nLOOP = asyncio.new_event_loop()", "opened an event loop"),
        ("import socket\nPAIR = socket.socketpair()", "opened a connection"),
        ("import subprocess\nCAT = subprocess.Popen(['cat'], stdin=subprocess.PIPE)", "started a process"),
    ],
)
def test_what_does_not_survive_a_fork(tmp_path: Path, code: str, why: str) -> None:
    assert warmed(tmp_path, {"far.py": code, "later.py": ""}).why == f"import far has {why}"


def test_what_was_started_and_has_ended_is_no_reason(tmp_path: Path) -> None:
    code = """
import asyncio, socket, subprocess, threading
thread = threading.Thread(target=int)
thread.start()
thread.join()
asyncio.run(asyncio.sleep(0))
socket.socket().close()
subprocess.run(["true"], check=True)
"""
    assert warmed(tmp_path, {"far.py": code}).why == ""


@pytest.mark.parametrize(
    "code", ["raise RuntimeError", "raise SystemExit(3)", "raise KeyboardInterrupt", "import nothing"]
)
def test_one_that_wants_more_than_there_is_stays_cold(tmp_path: Path, code: str) -> None:
    found = warmed(tmp_path, {"far.py": code, "fine.py": "", "space/deep/mod.py": "", "json/nothing.py": ""})
    assert found.why == ""
    assert found.there == ["fine", "space.deep.mod"]


def test_what_it_prints_was_printed_by_the_first_worker(tmp_path: Path) -> None:
    code = """
import logging, sys, warnings
print("printed")
sys.stderr.write("written")
warnings.warn("warned")
logging.basicConfig(stream=sys.stderr)
logging.error("logged")
say = sys.stdout.write
"""
    found = warmed(tmp_path, {"far.py": code, "probe.py": "import far\nVALUE = far.say('said later\\n')\n"})
    assert (found.why, found.value) == ("", len("said later\n"))
    assert found.output == ""


def test_streams_that_were_kept_speak_afterwards(tmp_path: Path) -> None:
    code = "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(message)s')\nsay = sys.stdout.write\n"
    own = {"probe.py": "import far, logging\nfar.say('said later\\n')\nlogging.error('logged later')\nVALUE = 1\n"}
    found = warmed(tmp_path, {"far.py": code}, own=own)
    assert (found.why, found.value) == ("", 1)
    assert found.output == "said later\nlogged later"


def test_what_the_application_has_of_its_own_is_never_taken_from_elsewhere(tmp_path: Path) -> None:
    modules = {"far.py": "import helpers\n", "helpers.py": "", "data.py": ""}
    own = {"helpers.py": "", "data/notes.txt": ""}  # a folder that is no package does not shadow anything
    (tmp_path / "other").mkdir()
    assert warmed(tmp_path, modules, own=own).why == "it would import a helpers that is not the application's own"
    assert warmed(tmp_path / "other", modules, own={"data/notes.txt": ""}).why == ""


def test_where_a_package_looks_for_others_stays(tmp_path: Path) -> None:
    code = "import sys\nsys.path.insert(0, '/first')\nsys.path.append('/last')\n"
    own = {"probe.py": "import sys\nVALUE = [sys.path[0], sys.path[-1]]\n"}
    found = warmed(tmp_path, {"far.py": code}, own=own)
    assert (found.why, found.added, found.value) == ("", ["/first", "/last"], ["/first", "/last"])


def test_code_that_is_watched_is_not_imported_by_other_ways(tmp_path: Path) -> None:
    own = {"near.py": ""}
    code = f"import sys\nsys.path.insert(0, {str(tmp_path / 'project')!r})\nimport near\n"
    assert warmed(tmp_path, {"far.py": code}, own=own).why.endswith("near.py, which is watched")


def test_what_the_application_had_set_is_seen(tmp_path: Path) -> None:
    own = {"probe.py": "import far\nVALUE = far.MODE\n"}
    assert warmed(tmp_path, {"far.py": "import os\nMODE = os.environ['MODE']\n"}, {"MODE": "x"}, own).value == "x"


def test_what_a_package_sets_itself_stays(tmp_path: Path) -> None:
    """Or the workers would do without: the package is not imported by them."""
    far = {"far.py": "import os\nos.environ.setdefault('PROBE', 'far')", "probe.py": "import os\nVALUE = None"}
    late = {"late.py": "import os, probe\nprobe.VALUE = os.environ.get('PROBE'), os.environ.get('MODE')"}
    found = warmed(tmp_path, {**far, **late, "zz.py": ""}, {"MODE": "own"})
    assert found.value == ["far", "own"]
    assert found.left == "far"


def test_no_zygote_where_workers_are_another_user() -> None:
    assert wants_one(Config())
    assert not wants_one(Config(reload=Reload(warm=False)))
    assert not wants_one(Config(process=Process(user="nobody")))
    assert not wants_one(Config(process=Process(group="nogroup")))
