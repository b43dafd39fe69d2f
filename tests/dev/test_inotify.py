"""inotify on real directories: what is told, and when."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgiri.dev.inotify import Happened, Inotify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Inotify]:
    inotify = Inotify()
    inotify.add(str(tmp_path))
    yield inotify
    inotify.close()


def told(inotify: Inotify) -> list[Happened]:
    """What is told by now: the kernel has queued it before the call that has caused it returns."""
    return inotify.read()


def test_a_write_is_told_when_the_file_is_closed(watch: Inotify, tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    with file.open("w") as open_file:
        open_file.write("half of it")
        open_file.flush()
        assert told(watch) == []
    assert told(watch) == [Happened(str(file))]
    assert select.select([watch], [], [], 0)[0] == []


def test_a_rename_over_a_file_tells_both_names(watch: Inotify, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("")
    told(watch)
    (tmp_path / "new").rename(tmp_path / "main.py")
    assert told(watch) == [Happened(str(tmp_path / "new")), Happened(str(tmp_path / "main.py"))]
    (tmp_path / "main.py").unlink()
    assert told(watch) == [Happened(str(tmp_path / "main.py"))]


def test_directories_come_and_go(watch: Inotify, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    assert told(watch) == [Happened(str(folder), came=True)]
    watch.add(str(folder))
    assert len(watch) == 2
    assert str(folder) in watch
    (folder / "a.py").write_text("")
    assert told(watch) == [Happened(str(folder / "a.py"))]
    folder.rename(tmp_path / "store")
    happened = told(watch)
    assert Happened(str(folder), gone=True) in happened
    assert Happened(str(tmp_path / "store"), came=True) in happened
    assert str(folder) not in watch
    (tmp_path / "store" / "b.py").write_text("")
    assert told(watch) == []  # nobody watches it under that name


def test_what_is_removed_is_told_no_more(watch: Inotify, tmp_path: Path) -> None:
    watch.remove(str(tmp_path))
    watch.remove(str(tmp_path))
    (tmp_path / "main.py").write_text("")
    assert told(watch) == []
    assert len(watch) == 0


def test_a_directory_of_two_names_is_told_of_by_the_first(watch: Inotify, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "alias").symlink_to("shop")
    watch.add(str(tmp_path / "shop"))
    watch.add(str(tmp_path / "alias"))
    watch.remove(str(tmp_path / "alias"))
    told(watch)
    (tmp_path / "shop/a.py").write_text("")
    assert told(watch) == [Happened(str(tmp_path / "shop/a.py"))]


def test_links_are_told_though_nothing_is_written(watch: Inotify, tmp_path: Path) -> None:
    (tmp_path / "a.py").symlink_to("nowhere")
    assert told(watch) == [Happened(str(tmp_path / "a.py"))]
    (tmp_path / "b.py").write_text("")
    (tmp_path / "c.py").hardlink_to(tmp_path / "b.py")
    assert told(watch)[-1] == Happened(str(tmp_path / "c.py"))


def test_what_is_no_directory_is_refused(watch: Inotify, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        watch.add(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        watch.add(str(tmp_path / "file"))


def test_names_that_are_not_utf8(watch: Inotify, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.py"
    with open(path, "w"):
        pass
    assert told(watch) == [Happened(os.fsdecode(path))]
