"""The zygote with real processes: workers that start warm are workers like any other, and else they start cold."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time

import pytest

from tests.e2e.reloading import ELSEWHERE, MAIN, Project, descriptors, is_warm, project
from tests.e2e.service import eventually, processes

__all__ = ["project"]


def test_workers_start_with_what_is_not_watched_and_are_the_masters_children(project: Project) -> None:
    project.outside("elsewhere.py", ELSEWHERE + "import os\nSEEN = [os.environ.get(x) for x in ('SHOP', 'MODE')]\n")

    def main(told: str) -> str:
        sets = "BEFORE = os.environ.get('MODE')\nos.environ['MODE'] = 'x'\nimport elsewhere"
        return MAIN.format(told=f"[{told}, BEFORE, *elsewhere.SEEN]").replace("import elsewhere", sets)

    project.write("main.py", main("1"))
    developed = project.serve("env: {SHOP: a}\n").ready().warm()
    assert not is_warm(developed.ask())
    developed.taken_in(developed.save("", text=main("22")))
    second = developed.ask()
    assert second["first"] == developed.one("zygote")
    assert second["told"] == [22, None, "a", "x"], "what the application sets is there when others are imported, only"
    assert second["ppid"] == developed.service.pid
    assert developed.service.workers() == {second["pid"]: "asgiri: worker 1 gen 2 [main:app]"}


def test_what_a_package_sets_in_the_environment_is_there_in_warm_workers(project: Project) -> None:
    far = "import os\nif 'FAR' not in os.environ:\n    os.environ['FAR'] = 'far'\n"
    project.outside("elsewhere.py", ELSEWHERE + far)
    project.write("main.py", MAIN.format(told="[1, os.environ.get('FAR')]"))
    developed = project.serve().ready().warm()
    assert developed.ask()["told"] == [1, "far"]
    for told in (22, 333):
        developed.taken_in(developed.save("", text=MAIN.format(told=f"[{told}, os.environ.get('FAR')]")))
        answer = developed.ask()
        assert answer["told"] == [told, "far"]
        assert is_warm(answer)


def test_fifty_reloads_leave_nothing_open(project: Project) -> None:
    developed = project.serve().ready().warm()
    before = developed.saved("0")
    pids = [developed.service.pid, developed.one("zygote"), developed.one("watcher")]
    open_before = [descriptors(pid) for pid in pids]
    answer = before
    for number in range(1, 51):
        answer = developed.saved(str(number))
        assert answer["told"] == number
        assert is_warm(answer)
    assert [developed.service.pid, developed.one("zygote"), developed.one("watcher")] == pids
    assert eventually(lambda: [descriptors(pid) for pid in pids] == open_before), str(developed.log)
    assert answer["fds"] <= before["fds"] + 1
    assert "WARN" not in str(developed.log)


def test_it_steps_aside_where_an_import_starts_a_thread(project: Project) -> None:
    more = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    project.outside("elsewhere.py", ELSEWHERE + more)
    developed = project.serve().ready()
    developed.log.wait(r"DEBUG \[master\] no zygote: import elsewhere has started a thread")
    for told in (1, 2):
        answer = developed.saved(str(told))
        assert answer["told"] == told
        assert not is_warm(answer)
    assert len(developed.log.find("no zygote")) == 1
    assert "WARN" not in str(developed.log)


def test_what_it_has_read_and_what_is_configured_may_change(project: Project) -> None:
    project.outside("elsewhere.py", ELSEWHERE + "VALUE = 1\n")
    project.write(".env", "SHOP=a\nGONE=b\n")
    tells = "[elsewhere.VALUE, os.environ.get('SHOP'), os.environ.get('GONE')]"
    developed = project.serve("env_file: .env\n").ready().warm()
    assert developed.saved(tells)["told"] == [1, "a", "b"]

    mark = len(developed.log)
    project.outside("elsewhere.py", ELSEWHERE + "VALUE = 22\n")
    cold = developed.saved(f"{tells} ")
    assert cold["told"] == [22, "a", "b"]
    assert not is_warm(cold)
    developed.log.wait(r"no zygote: .*/elsewhere.py has changed", mark)
    developed.warm(mark)
    warm = developed.saved(tells)
    assert is_warm(warm)
    assert warm["told"] == [22, "a", "b"]

    mark = developed.save("", ".env", "SHOP=c\n")
    developed.taken_in(mark)
    assert developed.ask()["told"] == [22, "c", None], "a variable that is gone is gone"
    developed.warm(mark)

    mark = developed.save("", "asgiri.yaml", project.config("process: {umask: '007'}\nenv_file: .env\n"))
    developed.taken_in(mark)
    assert is_warm(developed.saved("os.umask(0)")), "the umask is no reason to start cold"
    assert developed.ask()["told"] == 7

    mark = developed.save("", "asgiri.yaml", project.config("env_file: .env\n", "warm: false"))
    developed.taken_in(mark)
    assert not is_warm(developed.saved("1"))
    assert eventually(lambda: "asgiri: zygote" not in developed.service.members().values())
    mark = developed.save("", "asgiri.yaml", project.config("env_file: .env\n"))
    developed.taken_in(mark)
    developed.warm(mark)
    assert is_warm(developed.saved("2"))


def test_without_it_workers_start_cold_and_another_one_comes(project: Project) -> None:
    developed = project.serve().ready().warm()
    killed = developed.one("zygote")
    mark = len(developed.log)
    os.kill(killed, signal.SIGKILL)
    assert developed.saved("1")["told"] == 1
    developed.warm(mark)
    assert is_warm(developed.saved("2"))

    stopped = developed.one("zygote")
    assert stopped != killed
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    mark = developed.save("3")
    developed.taken_in(mark)
    assert time.monotonic() - began < 5.0
    cold = developed.ask()
    assert (cold["told"], is_warm(cold)) == (3, False)
    developed.log.wait("WARN .*the zygote does not answer within 1 s", mark)
    developed.warm(mark)
    assert is_warm(developed.saved("4"))
    assert len(developed.service.workers()) == 1


def test_a_worker_that_comes_too_late_goes(project: Project) -> None:
    # Forks of the zygote, and those only, are slow.
    slow = "import time\nos.register_at_fork(after_in_child=lambda: time.sleep(1.2))\n"
    project.outside("elsewhere.py", ELSEWHERE + slow)
    developed = project.serve().ready().warm()
    mark = developed.save("1")
    developed.taken_in(mark)
    answer = developed.ask()
    assert not is_warm(answer)
    developed.warm(mark)
    # The one in between, and the worker it forks, have a title still: that of the zygote. A zombie has none.
    left = ["asgiri: master [main:app]", "asgiri: watcher", "asgiri: worker 1 gen 2 [main:app]", "asgiri: zygote"]
    assert eventually(lambda: sorted(processes(developed.service.pid).values()) == left)
    assert list(developed.service.workers()) == [answer["pid"]]
    assert len(developed.log.find("worker 1 gen 2 is ready", mark)) == 1


def test_a_warm_worker_ends_as_any_other(project: Project) -> None:
    more = """
import atexit

def note_end():
    with open("ends", "a") as file:
        print(os.getpid(), file=file)

atexit.register(note_end)
"""
    project.outside("elsewhere.py", ELSEWHERE + more)
    developed = project.serve("workers: {boot_timeout: 1}\n").ready().warm()
    pids = [developed.ask()["pid"], *(developed.saved(told)["pid"] for told in ("1", "2"))]
    ends = project.top / "ends"
    assert eventually(lambda: ends.exists() and len(ends.read_text().split()) == 2)
    assert list(map(int, ends.read_text().split())) == pids[:2], "each worker, once; and nobody else"

    mark = len(developed.log)
    os.kill(pids[-1], signal.SIGKILL)
    developed.log.wait("was killed by SIGKILL", mark)
    replaced = developed.until(lambda answer: answer["pid"] != pids[-1])
    assert is_warm(replaced)
    assert replaced["ppid"] == developed.service.pid
    # Stacks: of the application's code, without that of who has forked it.
    mark = developed.save("__import__('time').sleep(60)")
    developed.log.wait("No asyncio loop runs", mark)
    developed.log.wait('asgiri/link.py", line .* in be: ', mark)
    told = developed.log.since(mark)
    assert told.count('main.py", line 5 in <module>') == 2
    assert "zygote.py" not in told, told
    assert developed.ask()["pid"] == replaced["pid"]


def test_a_port_that_is_dropped_is_closed(project: Project) -> None:
    developed = project.serve("listen: [{bind: '127.0.0.1:0'}, {bind: 'unix:other.sock'}]\n", bind=False).ready().warm()
    sock = project.top / "other.sock"
    kept = project.top / "kept.sock"
    os.link(sock, kept)  # the file goes, the name of the socket stays
    assert is_warm(developed.saved("1"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(kept))
    mark = developed.save("", "asgiri.yaml", project.config("listen: [{bind: '127.0.0.1:0'}]\n"))
    developed.taken_in(mark)
    developed.log.wait("no longer listening on unix:other.sock", mark)

    def is_refused() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(kept)) == errno.ECONNREFUSED

    assert eventually(is_refused)
    assert is_warm(developed.saved("2")), "the zygote is the same"


def test_ends_leave_nothing(project: Project) -> None:
    # An application that leaves a process behind, which becomes the master's.
    leaves = "__import__('subprocess').run(['sh', '-c', 'sh -c \"exit 3\" & sleep 0.05 & :']).returncode"
    developed = project.serve().ready().warm()
    assert developed.saved(leaves)["told"] == 0
    assert eventually(lambda: "" not in processes(developed.service.pid).values())
    assert eventually(lambda: not [t for t in developed.service.members().values() if t.startswith("sleep")])
    assert is_warm(developed.saved("1"))
    assert "WARN" not in str(developed.log)
    assert "ERROR" not in str(developed.log)
    began = time.monotonic()
    developed.service.signal(signal.SIGTERM)
    assert developed.service.wait() == 0
    assert time.monotonic() - began < 1.0
    assert developed.service.members() == {}
    assert "WARN" not in str(developed.log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_ends_at_once(project: Project, number: signal.Signals) -> None:
    slow = "import time\nif FIRST != 0 and __import__('sys').argv and os.path.exists('slow'): time.sleep(60)\n"
    project.outside("elsewhere.py", ELSEWHERE + slow)
    developed = project.serve().ready().warm()
    assert is_warm(developed.saved("1"))
    # A zygote that is busy with an import ends, too.
    os.kill(developed.one("zygote"), signal.SIGKILL)
    project.write("slow", "")
    developed.log.wait("the zygote process was killed")
    developed.one("zygote")
    began = time.monotonic()
    developed.service.signal(number)
    developed.service.wait()
    assert eventually(lambda: developed.service.members() == {}, patience=1.0 - (time.monotonic() - began))


def test_an_upgrade_has_a_zygote_and_a_watcher_of_its_own(project: Project) -> None:
    developed = project.serve().ready().warm()
    old = {developed.one("zygote"), developed.one("watcher")}
    mark = len(developed.log)
    developed.service.signal(signal.SIGUSR2)
    developed.log.wait("the upgrade is complete", mark)
    developed.warm(mark)
    assert eventually(lambda: not old & developed.service.members().keys())
    assert {developed.one("zygote"), developed.one("watcher")}.isdisjoint(old)
    answer = developed.saved("1")
    assert is_warm(answer)
    assert answer["ppid"] in developed.service.masters()
