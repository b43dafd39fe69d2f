"""The zygote: a process that has imported what the application imports from elsewhere, and is forked for each worker.

A new worker then imports the user's own modules only. It is forked twice, so that it is nobody's child, and the master,
a subreaper, becomes its parent (prctl(2), PR_SET_CHILD_SUBREAPER): from there on it is a worker like any other.

What an import has started or opened (a thread, an event loop, a connection) does not survive a fork, so a process in
which that has happened is no zygote: it steps aside, and says why. So it does when a file that it has read is changed.
It has no listeners and finishes nothing: the master kills it when there shall be none.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import pickle
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import PathFinder
from itertools import takewhile
from typing import Any

from msgspec import Struct
from setproctitle import setproctitle

from asgiri.child.logs import configure
from asgiri.child.ties import tie_to_master
from asgiri.config.envfile import read_env_file
from asgiri.config.nodes import printable
from asgiri.config.schema import Listen
from asgiri.dev.modules import is_outside, own_folders, tops
from asgiri.errors import AsgiriError
from asgiri.link import Aside, Boot, Booted, BootFailed, ChildEnd, ChildMain, Errand, Warm, be, flush_streams
from asgiri.sockets.listener import Listener
from asgiri.supervisor.scoreboard import State

ERRAND_MOST = 1 << 20  # bytes
DESCRIPTORS_MOST = 253  # unix(7), SCM_RIGHTS
DESCRIPTORS_LEAST = 4  # of the ticket, of the link, to read and to write, and of the stacks
# How long to wait until the kernel has given a worker to the master, in seconds: microseconds, mostly.
ADOPTION = 1.0
# How long a thread that an import has started is given to end, in seconds.
THREAD_SECONDS = 0.25

# A file: modification time in nanoseconds, size.
Stamp = tuple[int, int]


def main(boot: Boot, worker_main: ChildMain) -> int:
    """Be the zygote; the exit status. ``worker_main`` is what the processes that it forks are to be."""
    warm = boot.warm
    assert warm is not None
    tie_to_master(boot.master_pid)
    boot.slot.introduce(os.getpid(), boot.number, boot.generation)
    config = boot.config
    setproctitle(printable(f"{config.process.title}: zygote"))
    try:
        configure(config, "zygote", runs_app=True)
        if config.env_file is not None:
            os.environ.update(read_env_file(config.env_file))
    except AsgiriError as error:
        boot.link.report(BootFailed(str(error)))
        return error.exit_code
    os.environ.update(config.env)
    try:
        os.getcwd()
    except OSError:  # asgiri.supervisor.home goes back when it is there again
        boot.link.report(Aside("the working directory is gone", again=True))
        return 0
    why = warm_up(warm, tops(own_folders(config)), config.app_dir)
    if why:
        boot.link.report(Aside(why))
    else:
        before = stamps([*files(), *([config.env_file] if config.env_file is not None else [])])
        gc.collect()
        gc.freeze()
        boot.slot.state = State.SERVING
        boot.link.report(Booted())
        serve(boot, warm, worker_main, before)
    atexit._clear()  # what the imports have registered is the workers' to do
    return 0


def serve(boot: Boot, warm: Warm, worker_main: ChildMain, before: dict[str, Stamp]) -> None:
    """Fork workers as asked, until told to go."""
    with selectors.DefaultSelector() as selector:
        selector.register(boot.link, selectors.EVENT_READ)
        selector.register(warm.sock, selectors.EVENT_READ)

        def let_go() -> None:
            selector.close()
            boot.link.close()
            warm.sock.close()

        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if boot.link in ready and boot.link.read() != []:  # the master is gone, or wants us to be
                return
            if warm.sock in ready:
                asked = receive(warm.sock)
                if asked is None:  # another one is asked, once it is up
                    selector.unregister(warm.sock)
                    continue
                try:
                    if changed := next((file for file, stamp in before.items() if stamp_of(file) != stamp), None):
                        boot.link.report(Aside(f"{changed} has changed", again=True))
                        return
                    fork(boot, asked, worker_main, let_go)
                finally:
                    for fd in asked.descriptors:
                        os.close(fd)


class Asked(Struct, frozen=True):
    """An errand, and the descriptors that came with it."""

    errand: Errand
    descriptors: list[int]


def receive(sock: socket.socket) -> Asked | None:
    """What the master asks for; None when it does not make sense, or nobody asks any more."""
    data, descriptors, _, _ = socket.recv_fds(sock, ERRAND_MOST, DESCRIPTORS_MOST)
    if len(descriptors) >= DESCRIPTORS_LEAST:
        with suppress(pickle.UnpicklingError, EOFError):
            errand = pickle.loads(data)
            if isinstance(errand, Errand) and len(descriptors) == DESCRIPTORS_LEAST + errand.has_deposit + len(
                errand.listens
            ):
                return Asked(errand, descriptors)
    for fd in descriptors:
        os.close(fd)
    return None


def fork(boot: Boot, asked: Asked, worker_main: ChildMain, let_go: Callable[[], None]) -> None:
    """Fork the worker, which tells its pid. Who is in between is gone at once. Where that fails nobody tells."""
    flush_streams()  # or the worker would write what is in their buffers once more
    try:
        between = os.fork()
    except OSError:
        return
    if between:
        os.waitpid(between, 0)
        return
    middle = os.getpid()
    try:
        os.fork()
    finally:
        if os.getpid() == middle:
            os._exit(0)
    let_go()
    be(worker_main, as_asked(boot, asked, middle), is_warm=True)


def as_asked(boot: Boot, asked: Asked, middle: int) -> Boot:
    """In the fresh worker: what it has to be, once the master is its parent, and knows that. ``middle`` was that."""
    errand = asked.errand
    ticket, orders, reports, stacks, *sockets = asked.descriptors
    deposit = sockets.pop(0) if errand.has_deposit else -1
    deadline = time.monotonic() + ADOPTION
    while os.getppid() == middle and time.monotonic() < deadline:
        os.sched_yield()
    with socket.socket(fileno=ticket) as master:
        with suppress(OSError):
            master.send(str(os.getpid()).encode())
        if not master.recv(1):  # it did not wait, and has forked one itself
            os._exit(0)
    os.umask(errand.umask)
    reseed()
    return Boot(
        errand.number,
        errand.generation,
        errand.config,
        list(map(listener_of, errand.listens, sockets)),
        ChildEnd(orders, reports),
        boot.master_pid,
        boot.board,
        boot.board.numbered(errand.slot),
        stacks,
        boot.bulletin,
        boot.transfer,
        errand.first,
        deposit=deposit,
    )


def listener_of(listen: Listen, fd: int) -> Listener:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return Listener.passed_on(listen, sock, "", None)


def reseed() -> None:
    """Have the workers of one zygote be different at random. Python's own generator sees to that by itself."""
    numbers = sys.modules.get("numpy.random")
    if numbers is not None:
        numbers.seed()


# What is warm


def warm_up(warm: Warm, watched: tuple[str, ...], app_dir: str) -> str:
    """Import the modules; why this process is no good as a zygote after that, empty when it is.

    ``watched`` are the :func:`tops` of the user's own folders, which are not looked into.
    """
    path, before = sys.path[:], set(sys.modules)
    others = [entry for entry in path if is_outside(os.path.join(os.path.abspath(entry), ""), watched)]
    own = [os.path.abspath(app_dir), *(entry for entry in path if entry not in others)]
    sys.path[:] = others
    tasks, shared = count_tasks(), count_shared()
    try:
        with as_the_application_was(warm.environ), muted():
            for name in warm.modules:
                if name in sys.modules:
                    continue
                try:
                    importlib.import_module(name)
                except BaseException:  # somebody else's code, that may want what only the application gives it
                    continue
                if has_more_tasks(tasks):
                    return f"import {name} has started a thread"
                if has_children():
                    return f"import {name} has started a process"
                if what := next((what for what, count in count_shared().items() if count > shared[what]), None):
                    return f"import {name} has opened {what}"
    finally:
        added = [entry for entry in sys.path if entry not in others]
        first = sum(1 for _ in takewhile(added.__contains__, sys.path))
        sys.path[:] = [*added[:first], *path, *added[first:]]  # as imports have made it, if they have
    if file := next((file for file in files() if not is_outside(file, watched)), None):
        return f"it would import {file}, which is watched"
    fresh = sorted(name for name in sys.modules.keys() - before if "." not in name)
    if shadowed := next((name for name in fresh if is_in(own, name)), None):
        return f"it would import a {shadowed} that is not the application's own"
    return ""


def is_in(folders: list[str], name: str) -> bool:
    """Whether there is such a module; a folder without __init__.py is the last that Python takes."""
    spec = PathFinder.find_spec(name, folders)
    return spec is not None and spec.origin is not None


@contextmanager
def as_the_application_was(environ: dict[str, str]) -> Iterator[None]:
    """With what the application had set when it imported the modules: they may have looked.

    What they set themselves stays: each worker has it, and none imports them again.
    """
    before = dict(os.environ)
    os.environ.update(environ)
    during = dict(os.environ)
    try:
        yield
    finally:
        own = {name: value for name, value in os.environ.items() if during.get(name) != value}
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({**before, **own})


@contextmanager
def muted() -> Iterator[None]:
    """Without what modules print when they are imported: the first worker has shown it.

    The streams stay, for who asks whether they are terminals, or keeps them.
    """
    is_over = False

    def mute(stream: Any) -> None:
        write = stream.write
        stream.write = lambda text: write(text) if is_over else len(text)

    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]
    for stream in streams:
        mute(stream)
    try:
        yield
    finally:
        is_over = True
        for stream in streams:
            del stream.write


def count_tasks() -> int:
    """The threads of this process, those that Python does not know of as well."""
    return len(os.listdir("/proc/self/task"))


def has_more_tasks(tasks: int) -> bool:
    """Whether there are more threads than ``tasks``. One that was joined is in the kernel for a moment longer."""
    deadline = time.monotonic() + THREAD_SECONDS
    while count_tasks() > tasks:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.001)
    return False


def has_children() -> bool:
    """Whether a process was started and not waited for."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def count_shared() -> dict[str, int]:
    """What is open that two processes must not share."""
    found = dict.fromkeys(("an event loop", "a connection"), 0)
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            kind = os.readlink(f"/proc/self/fd/{fd}")
            if kind in ("anon_inode:[eventpoll]", "anon_inode:[io_uring]"):
                found["an event loop"] += 1
            elif kind.startswith("socket:"):
                found["a connection"] += 1
    return found


def files() -> Iterator[str]:
    """The files of all modules that are imported, but for asgiri's own."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name.partition(".")[0] not in ("asgiri", "__main__"):
            yield os.path.abspath(file)


def stamps(paths: list[str]) -> dict[str, Stamp]:
    return {file: stamp for file in paths if (stamp := stamp_of(file))}


def stamp_of(file: str) -> Stamp | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
