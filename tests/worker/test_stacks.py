"""A process that is asked for its stacks tells them, whatever it is stuck in, and is not disturbed by the question."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgiri.child import stacks
from asgiri.supervisor.stacks import ASK, Stacks
from tests.e2e.service import eventually

ROOT = Path(__file__).resolve().parents[2]

BEGIN = """
import asyncio, itertools, os, subprocess, sys, threading, time
from asgiri.child import stacks
from asgiri.equip import loop_factory
stacks.register(int(sys.argv[1]))
print(os.getpid(), flush=True)
"""

# What blocks the loop, in the task "main"; others wait.
LOOP = """
async def waits(event):
    await event.wait()

async def others(number):
    event = asyncio.Event()
    tasks = [asyncio.create_task(waits(event), name=f"other-{one}") for one in range(number)]
    await asyncio.sleep(0)
    return tasks

async def main(number):
    tasks = await others(number)
    await stuck()

def run(number):
    with asyncio.Runner(loop_factory=loop_factory(sys.argv[2])) as runner:
        runner.run(main(number))
"""


@contextmanager
def process(code: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], Stacks]]:
    """A process of this code that has a file for its stacks; killed at the end."""
    found = Stacks()
    command = [sys.executable, "-W", "error", "-c", BEGIN + code, str(found.fileno()), *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, pass_fds=[found.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert int(child.stdout.readline()) == child.pid
            yield child, found
        finally:
            child.kill()
            found.close()


def told(child: subprocess.Popen[str], found: Stacks, *wanted: str) -> str:
    """Ask until all of the wanted patterns are in the answer: it may not have come to the place yet."""

    def complete() -> bool:
        found.ask(child.pid)
        return eventually(lambda: all(re.search(one, found.read()) for one in wanted), 1.0)

    assert eventually(complete, 40.0), found.read()  # four suites may share two cores
    return found.read()


def test_the_two_sides_mean_the_same_signal() -> None:
    assert stacks.ASK == ASK


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("line", "in_python"),
    [
        ("time.sleep(600)", True),
        ("while True: pass", True),
        ("threading.Event().wait()", True),
        ("any(itertools.repeat(0))", False),  # in C, and never back in Python
    ],
)
def test_a_loop_that_is_blocked(line: str, in_python: bool, loop: str, tmp_path: Path) -> None:
    module = tmp_path / "blocked.py"
    module.write_text(f"import itertools, threading, time\nasync def stuck():\n    {line}\n", "ascii")
    code = f"{LOOP}\nsys.path.insert(0, {str(tmp_path)!r})\nfrom blocked import stuck\nrun(1)"
    place = r'File ".*blocked\.py", line 3 in stuck'
    with process(code, loop) as (child, found):
        if not in_python:
            assert "asyncio tasks" not in told(child, found, place)
            return
        text = told(child, found, place, "other-0")
    assert re.search(rf'Task "Task-1" \(main\) runs:\n(.*\n)*?  {place}: {re.escape(line)}\n', text)
    assert re.search(r'Task "other-0" \(waits\) waits:\n.*in wait: await fut\n.* in waits.*$', text)
    assert "asyncio tasks: 2 " in text


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_that_only_waits(loop: str) -> None:
    with process(f"{LOOP}\nasync def stuck(): await asyncio.Event().wait()\nrun(0)", loop) as (child, found):
        assert 'Task "Task-1" (main) waits:' in told(child, found, "In no task:", r"in stuck.*\n.* in main.*$")


def test_of_many_tasks_some_are_told() -> None:
    with process(f"{LOOP}\nasync def stuck(): time.sleep(600)\nrun(150)", "asyncio") as (child, found):
        text = told(child, found, r"\nand \d+ more$")
    assert text.endswith("\nand 50 more")
    assert re.findall(r'Task "other-(\d+)"', text) == [str(number) for number in range(100)]
    assert len(text) < 64 << 10


def test_an_import_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n", "ascii")
    with process(f"sys.path.insert(0, {str(tmp_path)!r})\nimport hangs") as (child, found):
        text = told(child, found, r'File ".*hangs\.py", line 2 in <module>: time\.sleep\(600\)\n')
    assert "No asyncio loop runs" in text


def test_threads_are_told() -> None:
    code = "def work(): threading.Event().wait()\nthreading.Thread(target=work, daemon=True).start()\ntime.sleep(600)"
    with process(code) as (child, found):
        text = told(child, found, r"line \d+ in work\n", "No asyncio loop runs")
    assert text.count("most recent call first") == 2


def test_each_answer_is_whole_and_alone() -> None:
    last = BEGIN.count("\n") + 1
    with process("time.sleep(600)") as (child, found):
        first = told(child, found, rf"the main thread is here:\n.*line {last} in <module>.*$")
        for _ in range(3):
            assert told(child, found, "the main thread is here:\n.*$") == first


# C code that is told of a signal by EINTR, as ctypes tells it: -1 where a read was interrupted.
READS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(1)
for _ in range(3):
    print("reads", flush=True)
    print(libc.read(0, buffer, 1), flush=True)
"""


def test_a_healthy_process_is_not_disturbed() -> None:
    with process(READS) as (child, found):
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline() == "reads\n"
            assert eventually(lambda: state_of(child.pid) == "S")
            found.ask(child.pid)
            assert eventually(found.read)
            child.stdin.write("x")
            child.stdin.flush()
            assert child.stdout.readline() == "1\n"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


FORKS = """
def show(pid):
    with open(f"/proc/{pid}/status") as status:
        caught = next(int(line.split()[1], 16) for line in status if line.startswith("SigCgt"))
    files = [os.path.join(f"/proc/{pid}/fd", fd) for fd in os.listdir(f"/proc/{pid}/fd")]
    names = [os.readlink(file) for file in files if os.path.lexists(file)]
    print(bool(caught & 1 << 11), any("asgiri-stacks" in name for name in names), flush=True)

os.set_inheritable(int(sys.argv[1]), False)  # as the master makes it; this test had to pass it on
show(os.getpid())
pid = os.fork()
if pid == 0:
    time.sleep(600)
time.sleep(0.05)
show(pid)
os.kill(pid, 9)
os.waitpid(pid, 0)
with subprocess.Popen(["sleep", "600"]) as child:
    show(child.pid)
    child.kill()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_the_application_starts_has_neither_handler_nor_file() -> None:
    with process(FORKS) as (child, _):
        assert child.stdout is not None
        assert child.stdout.read().split() == ["True", "True", "False", "False", "False", "False"]


def test_a_defect_of_ours_does_not_come_out_in_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> str:
        raise KeyError("a defect")

    tell: Callable[[None], str] = stacks.in_edge
    monkeypatch.setattr(stacks, "describe_tasks", broken)
    assert tell(None) == "\nThe asyncio tasks cannot be told: KeyError\n"


def test_the_file_is_not_inherited() -> None:
    found = Stacks()
    assert not os.get_inheritable(found.fileno())
    found.close()
