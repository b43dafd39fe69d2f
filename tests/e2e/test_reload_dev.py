"""``reload`` with real saves: what is saved is served, once for each save, whatever happens to whoever watches."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.reloading import MAIN, Developed, Project, project
from tests.e2e.service import Client, eventually

__all__ = ["project"]

COLD = "warm: false"


def reloaded(developed: Developed, mark: int) -> list[str]:
    """What was told of the one reload since, once it is complete and the next would have begun."""
    developed.taken_in(mark)
    return developed.reloads(mark)


def test_one_save_is_one_reload_however_it_is_done(project: Project) -> None:
    developed = project.serve("", COLD).ready()
    top = project.top
    assert reloaded(developed, developed.save("1")) == ["main.py changed"]
    assert developed.ask()["told"] == 1

    mark = len(developed.log)  # as vim does it, with a backup
    (top / "main.py").rename(top / "main.py~")
    project.write("main.py", MAIN.format(told="2"))
    (top / "main.py~").unlink()
    assert reloaded(developed, mark) == ["main.py changed"]
    assert developed.ask()["told"] == 2

    mark = len(developed.log)  # a file beside it, renamed over it
    project.write("main.py.tmp", MAIN.format(told="3"))
    (top / "main.py.tmp").replace(top / "main.py")
    assert reloaded(developed, mark) == ["main.py changed"]
    assert developed.ask()["told"] == 3

    mark = len(developed.log)  # a branch that is checked out
    for number in range(500):
        project.write(f"p{number % 25}/q{number % 5}/m{number}.py", f"X = {number}\n")
    project.write("main.py", MAIN.format(told="__import__('p1.q1.m1').q1.m1.X"))
    developed.until(lambda answer: answer["told"] == 1)
    [what] = developed.reloads(mark)
    assert what.endswith("and 498 more changed"), what
    developed.taken_in(mark)

    mark = developed.save("", "p1/q1/m1.py", "X = 22\n")  # in a folder that was not there
    assert reloaded(developed, mark) == ["p1/q1/m1.py changed"]
    assert developed.ask()["told"] == 22

    mark = len(developed.log)
    (top / "p1").rename(top / "r1")
    developed.log.wait("the reload failed, generation 6 goes on", mark)
    assert developed.ask()["told"] == 22
    mark = developed.save("__import__('r1.q1.m1').q1.m1.X + 1")
    assert reloaded(developed, mark) == ["main.py changed"]
    assert developed.ask()["told"] == 23
    mark = developed.save("", "r1/q1/m1.py", "X = 7\n")
    assert reloaded(developed, mark) == ["r1/q1/m1.py changed"]
    assert developed.ask()["told"] == 8


def test_two_saves_within_a_second_and_of_one_size(project: Project) -> None:
    developed = project.serve().ready().warm()
    for told in range(100, 108):
        assert developed.saved(str(told))["told"] == told


def test_what_is_broken_is_not_served_and_mended_by_the_next_save(project: Project) -> None:
    project.write(".env", "SHOP=a\n")
    developed = project.serve("env_file: .env\n", COLD).ready()
    good = developed.ask()
    mark = developed.save("", text="def broken(:\n")
    developed.log.wait("the reload failed, generation 1 goes on: .*main.py:1: SyntaxError", mark)
    assert developed.ask() == good
    assert developed.saved("1")["told"] == 1

    mark = developed.save("", "asgiri.yaml", "reload: {enabled: true}\nlifespam: off\n")
    developed.log.wait("asgiri.yaml changed: reloading", mark)
    developed.log.wait("the reload is refused, generation .* goes on: .*lifespam", mark)
    assert developed.ask()["told"] == 1
    mark = developed.save("", "asgiri.yaml", project.config("env_file: .env\nenv: {MORE: b}\n", COLD))
    developed.taken_in(mark)
    tells = "[os.environ.get('SHOP'), os.environ.get('MORE')]"
    assert developed.saved(tells)["told"] == ["a", "b"]
    mark = developed.save("", ".env", "SHOP=c\n")
    assert reloaded(developed, mark) == [".env changed"]
    assert developed.ask()["told"] == ["c", "b"]


def test_the_newest_code_serves_in_the_end(project: Project) -> None:
    developed = project.serve("workers: {count: 3}\n").ready().warm()
    client = Client(developed.service.port, "/")
    client.start()
    mark = developed.save("__import__('time').sleep(0.5) or 1")
    developed.log.wait("main.py changed: reloading", mark)
    developed.save("22")  # while the first one boots
    developed.until(lambda answer: answer["told"] == 22)
    assert eventually(
        lambda: (
            len(developed.service.workers()) == 3
            and {" gen 3 " in title for title in developed.service.workers().values()} == {True}
        )
    ), developed.service.workers()
    for _ in range(9):
        assert developed.ask()["told"] == 22
    mark = len(developed.log)
    developed.service.signal(signal.SIGHUP)
    developed.taken_in(mark)
    assert developed.reloads(mark) == ["HUP"]
    client.stop()
    assert client.failures == []


def test_a_watcher_that_dies_is_replaced_and_nothing_is_lost(project: Project) -> None:
    developed = project.serve("", COLD).ready()
    watcher = developed.one("watcher")
    developed.saved("1")
    os.kill(watcher, signal.SIGSTOP)
    mark = developed.save("2")
    os.kill(watcher, signal.SIGKILL)
    assert reloaded(developed, mark) == ["main.py changed"]
    assert developed.ask()["told"] == 2
    assert developed.one("watcher") != watcher
    assert developed.saved("3")["told"] == 3


def test_polling_and_folders_elsewhere(project: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "scratch").mkdir()
    developed = project.serve(
        "", f"polling: true, dirs: ['{other}'], include: ['*.py', '*.html'], exclude: [scratch], {COLD}"
    ).ready()
    developed.log.wait(r"\[watcher\] polling every 0.5 s: reload.polling says so")
    (other / "scratch/a.py").write_text("")
    project.write("main.py", MAIN.format(told="11"))
    (other / "page.html").write_text("x")
    assert reloaded(developed, 0) == [f"{other}/page.html changed"]
    assert developed.ask()["told"] == 11
