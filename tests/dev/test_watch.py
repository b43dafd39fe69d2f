"""The watcher on real folders: one save is told once, and soon; whatever happens around it."""

from __future__ import annotations

import errno
import os
import select
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asgiri.dev.elsewhere import Watchfiles
from asgiri.dev.inotify import Happened
from asgiri.dev.watch import POLL_SECONDS, Watcher, file_system_of, name_of, polls
from asgiri.link import Watch
from asgiri.supervisor.workshop import now_ns

PATIENCE = 10.0


def watch_of(top: Path, *, files: tuple[str, ...] = (), polling: bool | None = False, since_ns: int = 0) -> Watch:
    return Watch((str(top),), ("*.py",), (), files, 0.05, polling, since_ns)


class Watched:
    """A watcher, and what it has told."""

    def __init__(self, watch: Watch) -> None:
        self.watcher = Watcher(watch)

    def wait(self, seconds: float = PATIENCE) -> list[str]:
        """The next that it tells, by name; nothing when it has nothing to tell any more, or only after so long."""
        return sorted(map(os.path.basename, self._next(seconds)))

    def _next(self, seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            due = self.watcher.due()
            select.select(self.watcher.files(), [], [], max(0.0, min(deadline, due or deadline) - now))
            if told := self.watcher.read(time.monotonic()):
                return told
        return []

    def paths(self) -> list[str]:
        """The same, by path."""
        return sorted(self._next(PATIENCE))

    def is_quiet(self) -> bool:
        """Whether nothing is on its way: the kernel has queued it before the call that caused it has returned."""
        return self.watcher.read(time.monotonic()) == [] and self.watcher.due() is None


@contextmanager
def watching(watch: Watch) -> Iterator[Watched]:
    watched = Watched(watch)
    yield watched
    for source in watched.watcher.files():
        source.close()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = tmp_path / "project"
    (top / "shop").mkdir(parents=True)
    (top / "main.py").write_text("a")
    (top / "shop/a.py").write_text("a")
    return top


def test_a_save_is_told_once_and_sooner_than_the_delay(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        assert watched.is_quiet()
        began = time.monotonic()
        (top / "main.py").write_text("ab")
        assert watched.wait() == ["main.py"]
        assert time.monotonic() - began < PATIENCE / 2
        assert watched.is_quiet()


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(lambda path: path.write_text("abc"), id="in place"),
        pytest.param(lambda path: (path.unlink(), path.write_text("abc")), id="removed and made anew"),
        pytest.param(
            lambda path: (path.with_name("4913").write_text("x"), path.with_name("4913").replace(path)),
            id="renamed over",
        ),
        pytest.param(
            lambda path: (path.rename(path.with_name("main.py~")), path.write_text("abc")), id="a backup is kept"
        ),
        pytest.param(lambda path: path.unlink(), id="removed"),
        pytest.param(lambda path: (path.touch(), path.open("a").close()), id="touched"),
    ],
)
def test_however_a_file_is_saved(top: Path, save: Callable[[Path], object]) -> None:
    with watching(watch_of(top)) as watched:
        save(top / "main.py")
        assert watched.wait() == ["main.py"]
        assert watched.is_quiet()


def test_a_storm_is_told_once(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        for number in range(500):
            folder = top / f"p{number % 20}"
            folder.mkdir(exist_ok=True)
            (folder / f"m{number}.py").write_text("x")
            if number % 50 == 0:  # as the watcher would, in a process of its own
                assert watched.watcher.read(time.monotonic()) == []
        assert len(watched.wait()) == 500
        assert watched.is_quiet()


def test_a_folder_that_comes_is_watched_with_what_is_in_it_already(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        (top / "new/deep").mkdir(parents=True)
        (top / "new/deep/b.py").write_text("x")
        assert watched.wait() == ["b.py"]
        (top / "new/deep/b.py").write_text("xy")
        assert watched.wait() == ["b.py"]
        (top / "new").rename(top / "newer")
        assert watched.wait() == ["b.py", "b.py"]
        (top / "newer/deep/b.py").write_text("xyz")
        assert watched.wait() == ["b.py"]
        shutil.rmtree(top / "newer")
        assert watched.wait() == ["b.py"]
        assert watched.is_quiet()


def test_what_does_not_matter_is_not_told(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        (top / "notes.txt").write_text("x")
        (top / ".hidden.py").write_text("x")
        (top / "__pycache__").mkdir()
        (top / "__pycache__/a.py").write_text("x")
        assert watched.is_quiet()


def test_files_outside_of_the_folders(top: Path, tmp_path: Path) -> None:
    config = tmp_path / "etc/asgiri.yaml"
    config.parent.mkdir()
    config.write_text("a")
    with watching(watch_of(top, files=(str(config),))) as watched:
        (config.parent / "other.yaml").write_text("x")
        assert watched.is_quiet()
        config.write_text("ab")
        assert watched.wait() == ["asgiri.yaml"]


def test_what_has_changed_before_it_began(top: Path) -> None:
    (top / "ready").write_text("ab")
    stamps = [path.stat().st_ctime_ns for path in (top / "ready", top / "main.py", top / "shop/a.py")]
    while now_ns() <= max(stamps):  # that clock goes in ticks, and a stamp may be ahead of it (multigrain timestamps)
        time.sleep(0.001)
    with watching(watch_of(top, since_ns=now_ns())) as watched:
        assert watched.is_quiet()
    since = now_ns()
    (top / "ready").rename(top / "main.py")  # written before, and not called so
    with watching(watch_of(top, since_ns=since)) as watched:
        assert watched.wait() == ["main.py"]


def test_a_folder_that_goes_and_comes_again(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        top.rename(top.with_name("away"))
        assert watched.wait() == ["a.py", "main.py"]
        top.with_name("away").rename(top)
        assert watched.wait() == ["a.py", "main.py"]
        assert watched.watcher.files() != []
        (top / "main.py").write_text("abc")
        assert watched.wait() == ["main.py"]


def test_a_folder_that_is_another_one_before_anybody_has_looked(top: Path, tmp_path: Path) -> None:
    config = tmp_path / "etc/asgiri.yaml"
    config.parent.mkdir()
    config.write_text("a")
    with watching(watch_of(top, files=(str(config),))) as watched:
        for folder in (top, config.parent):
            folder.rename(folder.with_name("away"))
            folder.mkdir()
            assert watched.wait() == (["a.py", "main.py"] if folder == top else ["asgiri.yaml"])
            shutil.rmtree(folder.with_name("away"))
        for path in (top / "main.py", config):
            path.write_text("ab")
            assert watched.wait() == [path.name]


def test_where_no_more_folders_can_be_watched_it_polls(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        inotify = watched.watcher.files()[0]

        def refuse(directory: str) -> None:
            raise OSError(errno.ENOSPC, "no space left")

        inotify.add = refuse  # type: ignore[method-assign]
        for name in ("a", "b", "c"):
            (top / name).mkdir()
            (top / name / "new.py").write_text("x")
        assert watched.wait() == ["new.py", "new.py", "new.py"]
        assert watched.watcher.files() == []
        (top / "c/new.py").write_text("xy")
        assert watched.wait() == ["new.py"]


def test_a_file_that_is_gone_is_waited_for_a_little_longer(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        (top / "main.py").unlink()
        now = time.monotonic()
        assert watched.watcher.read(now) == []
        assert watched.watcher.due() == pytest.approx(now + 0.05)
        (top / "main.py").write_text("ab")
        assert watched.wait() == ["main.py"]


def test_a_link_to_what_is_watched_already_changes_nothing(top: Path) -> None:
    (top / "alias").symlink_to(top / "shop")
    (top / "shop/up").symlink_to(top)
    with watching(watch_of(top)) as watched:
        (top / "shop/b.py").write_text("x")
        assert watched.paths() == [str(top / "shop/b.py")]
        (top / "late").symlink_to(top / "shop")
        for link in ("alias", "shop/up", "late"):
            (top / link).unlink()
        assert watched.is_quiet()
        for text in ("xy", "xyz"):
            (top / "shop/b.py").write_text(text)
            (top / "main.py").write_text(text)
            assert watched.paths() == [str(top / "main.py"), str(top / "shop/b.py")]


def test_linked_folders(top: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/b.py").write_text("x")
    with watching(watch_of(top)) as watched:
        (top / "lib").symlink_to(tmp_path / "elsewhere")
        assert watched.paths() == [str(top / "lib/b.py")]
        (tmp_path / "elsewhere/b.py").write_text("xy")
        assert watched.paths() == [str(top / "lib/b.py")]
        (top / "lib").unlink()
        assert watched.paths() == [str(top / "lib/b.py")]
        (tmp_path / "elsewhere/b.py").write_text("x")
        assert watched.is_quiet()


def test_linked_files(top: Path, tmp_path: Path) -> None:
    for name in ("elsewhere/b.py", "elsewhere/asgiri.yaml", "further/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (top / "b.py").symlink_to(tmp_path / "elsewhere/b.py")
    (top / "asgiri.yaml").symlink_to(tmp_path / "elsewhere/asgiri.yaml")
    with watching(watch_of(top, files=(str(top / "asgiri.yaml"),))) as watched:
        for name in ("b.py", "asgiri.yaml"):
            (tmp_path / "elsewhere" / name).write_text("xy")
            assert watched.paths() == [str(top / name)]
        (top / "c.py").symlink_to(tmp_path / "further/c.py")
        assert watched.paths() == [str(top / "c.py")]
        (tmp_path / "further/c.py").write_text("xy")
        assert watched.paths() == [str(top / "c.py")]
        (top / "d.py").hardlink_to(top / "main.py")
        assert watched.paths() == [str(top / "d.py")]
        (tmp_path / "elsewhere/other.py").write_text("x")
        assert watched.is_quiet()


def test_a_virtual_environment_that_is_made_meanwhile(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        (top / "env").mkdir()
        assert watched.is_quiet()
        (top / "env/pyvenv.cfg").write_text("home = /usr\n")
        assert watched.is_quiet()
        (top / "env/bin").mkdir()
        (top / "env/bin/activate_this.py").write_text("x")
        (top / "whole/pyvenv.cfg").parent.mkdir()
        (top / "whole/pyvenv.cfg").write_text("")
        (top / "whole/a.py").write_text("")
        assert watched.is_quiet()


def test_beside_the_config_file_nothing_matters_that_did_not(top: Path) -> None:
    config = top / ".config/asgiri.yaml"
    config.parent.mkdir()
    config.write_text("a")
    with watching(watch_of(top, files=(str(config),))) as watched:
        (config.parent / "a.py").write_text("x")
        (config.parent / "folder").mkdir()
        (config.parent / "folder/a.py").write_text("x")
        assert watched.is_quiet()
        shutil.rmtree(config.parent)
        assert watched.paths() == [str(config)]
        config.parent.mkdir()
        config.write_text("ab")
        assert watched.paths() == [str(config)]
        assert watched.watcher.files() != []


def test_more_than_the_kernel_could_keep(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(watch_of(top)) as watched:
        inotify = watched.watcher.files()[0]
        (top / "new/deep").mkdir(parents=True)
        inotify.read()  # that is lost
        monkeypatch.setattr(inotify, "read", lambda: [Happened("", lost=True)])
        real = inotify.add

        def late(directory: str) -> None:
            """Something comes just before it is watched."""
            if directory == str(top / "new/deep"):
                (top / "new/deep/b.py").write_text("x")
            real(directory)

        monkeypatch.setattr(inotify, "add", late)
        watched.watcher.read(time.monotonic())
        monkeypatch.undo()
        assert watched.wait() == ["b.py"]
        (top / "new/deep/b.py").write_text("xy")
        assert watched.wait() == ["b.py"]


def test_polling_sees_the_same(top: Path) -> None:
    with watching(watch_of(top, polling=True)) as watched:
        assert watched.watcher.files() == []
        assert watched.wait(0.01) == []
        (top / "main.py").write_text("ab")
        (top / "new").mkdir()
        (top / "new/b.py").write_text("x")
        assert watched.wait(POLL_SECONDS + PATIENCE) == ["b.py", "main.py"]


def test_watchfiles_tells_where_the_kernel_has_no_inotify(top: Path) -> None:
    source = Watchfiles([str(top)])
    try:
        deadline = time.monotonic() + PATIENCE
        happened: set[str] = set()
        number = 0
        while str(top / "main.py") not in happened and time.monotonic() < deadline:
            (top / "main.py").write_text("x" * number)  # it does not say from when on it listens
            number += 1
            if select.select([source], [], [], 0.1)[0]:
                happened |= {one.path for one in source.read()}
        assert str(top / "main.py") in happened
    finally:
        source.close()


def test_when_it_polls(tmp_path: Path) -> None:
    assert polls(watch_of(tmp_path, polling=True)) == "reload.polling says so"
    assert polls(watch_of(tmp_path, polling=False)) == ""
    assert polls(watch_of(Path("/proc"), polling=None)) == ""
    assert file_system_of("/proc/self") == "proc"
    assert file_system_of("/sys") == "sysfs"


def test_names_are_as_a_person_would_say_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert name_of(str(tmp_path / "shop/a.py")) == "shop/a.py"
    assert name_of("/etc/asgiri.yaml") == "/etc/asgiri.yaml"


def test_a_folder_that_is_made_just_before_the_one_above_it_is_watched(top: Path) -> None:
    with watching(watch_of(top)) as watched:
        inotify = watched.watcher.files()[0]
        add = inotify.add

        def add_late(directory: str) -> None:
            if directory == str(top / "new"):
                (top / "new/deep").mkdir()
                (top / "new/deep/b.py").write_text("x")
            add(directory)

        inotify.add = add_late  # type: ignore[method-assign]
        (top / "new").mkdir()
        assert watched.wait() == ["b.py"]
        (top / "new/deep/b.py").write_text("xy")
        assert watched.wait() == ["b.py"]
