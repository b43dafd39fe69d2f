"""Looking at folders: what is in them, what is new, and what is not looked into."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import time
from pathlib import Path

import pytest

from asgiri.dev.filter import Filter
from asgiri.dev.stale import forget_compiled
from asgiri.dev.tree import Tree, changed_ns
from asgiri.supervisor.workshop import now_ns

HOUR_NS = 3600 * 10**9


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for file in ("main.py", "shop/a.py", "shop/b/c.py", "shop/notes.txt", ".git/x.py", "node_modules/x/y.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "env" / "x.py").write_text("")
    return tmp_path


def tree_of(top: Path, *files: Path) -> Tree:
    return Tree(Filter([str(top)], ["*.py"], [], map(str, files)))


def names(paths: list[str], top: Path) -> list[str]:
    return sorted(os.path.relpath(path, top) for path in paths)


def test_the_first_look_finds_folders_and_tells_nothing(top: Path) -> None:
    tree = tree_of(top)
    assert tree.look() == []
    assert names(list(tree.folders), top) == [".", "shop", "shop/b"]
    assert tree.look() == []


def test_the_first_look_tells_what_is_newer_than_somebody_knows(top: Path) -> None:
    while now_ns() <= changed_ns(str(top / "shop/b/c.py")):
        time.sleep(0.001)
    since = now_ns()
    (top / "shop/a.py").write_text("abc")
    os.utime(top / "shop/a.py", ns=(since - HOUR_NS, since - HOUR_NS))  # as of a file that was copied with its times
    assert names(tree_of(top).look(since), top) == ["shop/a.py"]


def test_what_has_changed_come_and_gone(top: Path) -> None:
    tree = tree_of(top, top / "asgiri.yaml")
    tree.look()
    (top / "main.py").write_text("longer than before")
    (top / "shop/a.py").unlink()
    (top / "shop/new.py").write_text("")
    (top / "shop/notes.txt").write_text("longer than before")
    (top / "asgiri.yaml").write_text("")
    assert names(tree.look(), top) == ["asgiri.yaml", "main.py", "shop/a.py", "shop/new.py"]
    assert tree.look() == []


def test_one_file_is_asked_for(top: Path) -> None:
    tree = tree_of(top)
    tree.look()
    path = str(top / "main.py")
    assert not tree.changed(path)
    (top / "main.py").write_text("longer than before")
    assert tree.changed(path)
    assert not tree.changed(path)
    (top / "main.py").unlink()
    assert tree.changed(path)
    assert not tree.changed(str(top / "shop/notes.txt"))


def test_folders_come_and_go(top: Path) -> None:
    tree = tree_of(top)
    tree.look()
    (top / "lib/deep").mkdir(parents=True)
    (top / "lib/deep/x.py").write_text("")
    folders, files = tree.enter(str(top / "lib"))
    assert names(folders, top) == ["lib", "lib/deep"]
    assert names(files, top) == ["lib/deep/x.py"]
    assert tree.enter(str(top / "lib")) == ([], [])
    assert tree.enter(str(top / ".git")) == ([], [])
    assert names(tree.leave(str(top / "lib")), top) == ["lib/deep/x.py"]
    assert names(list(tree.folders), top) == [".", "shop", "shop/b"]


def test_links_may_make_a_circle(top: Path) -> None:
    (top / "shop/up").symlink_to(top)
    (top / "shop/round").symlink_to(top / "shop")
    tree = tree_of(top)
    tree.look()
    assert len(tree.folders) < 10


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "none")
    assert tree.look() == []
    (tmp_path / "none").mkdir()
    (tmp_path / "none/a.py").write_text("")
    assert names(tree.look(), tmp_path) == ["none/a.py"]


def test_compiled_code_that_would_be_taken_for_new_is_removed(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("A = 1\n")
    os.utime(source, (1_000_000, 1_000_000))
    py_compile.compile(str(source))
    compiled = Path(importlib.util.cache_from_source(str(source)))
    source.write_text("A = 2\n")
    os.utime(source, (1_000_000.5, 1_000_000.5))  # the same second, and the same size
    forget_compiled([str(source)])
    assert not compiled.exists()


def test_other_compiled_code_stays(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("A = 1\n")
    py_compile.compile(str(source))
    compiled = Path(importlib.util.cache_from_source(str(source)))
    source.write_text("A = 11\n")
    forget_compiled([str(source), str(tmp_path / "none.py"), "a.txt"])
    assert compiled.exists()
