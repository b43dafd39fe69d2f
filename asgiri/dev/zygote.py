"""The zygote: a process that has imported what the application imports from elsewhere, and is forked for each worker.

A new worker then imports the user's own modules only. It is forked twice, so that it is nobody's child, and the master,
a subreaper, becomes its parent (prctl(2), PR_SET_CHILD_SUBREAPER): from there on it is a worker like any other.

What an import has started (a thread, an event loop) does not survive a fork, so a process in which that has happened is
no zygote: it steps aside, and says why. So it does when a file that it has imported is changed.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

from setproctitle import setproctitle

from asgiri.child.ties import tie_to_master
from asgiri.config.envfile import read_env_file
from asgiri.config.nodes import printable
from asgiri.dev.modules import is_outside, tops
from asgiri.errors import AsgiriError
from asgiri.link import Aside, Boot, Booted, BootFailed, ChildEnd, ChildMain, Errand, Warm, be
from asgiri.log import setup as log

ERRAND_MOST = 1 << 20  # bytes
DESCRIPTORS = 3  # of the link, to read and to write, and of the stacks
# How long to wait until the kernel has given a worker to the master, in seconds: microseconds, mostly.
ADOPTION = 1.0

# What an import leaves open that a fork must not share, as /proc/self/fd shows it.
_LOOPS = ("anon_inode:[eventpoll]", "anon_inode:[io_uring]")

# A file of a module: modification time in nanoseconds, size.
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
        log.configure(level=config.log.level, format=config.log.format, file=config.log.file, role="zygote")
        if config.env_file is not None:
            os.environ.update(read_env_file(config.env_file))
    except AsgiriError as error:
        boot.link.report(BootFailed(str(error)))
        return error.exit_code
    os.environ.update(config.env)
    why = warm_up(warm)
    if why:
        boot.link.report(Aside(why))
        return 0
    gc.collect()
    gc.freeze()
    boot.link.report(Booted())
    serve(boot, warm, worker_main, stamps())
    return 0


def serve(boot: Boot, warm: Warm, worker_main: ChildMain, before: dict[str, Stamp]) -> None:
    """Fork workers as asked, until told to go."""
    with selectors.DefaultSelector() as selector:
        selector.register(boot.link, selectors.EVENT_READ)
        selector.register(warm.sock, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if boot.link in ready and boot.link.read() != []:  # the master is gone, or wants us to be
                return
            if warm.sock in ready:
                asked = receive(warm.sock)
                if asked is None:
                    return
                if changed := next((file for file, stamp in before.items() if stamp_of(file) != stamp), None):
                    for fd in asked[1]:
                        os.close(fd)
                    boot.link.report(Aside(f"{changed} has changed", again=True))
                    return
                errand, descriptors = asked
                try:
                    fork(boot, warm, errand, descriptors, worker_main, selector)
                finally:
                    for fd in descriptors:
                        os.close(fd)


def receive(sock: socket.socket) -> tuple[Errand, list[int]] | None:
    """What the master asks for; None when it does not make sense, or nobody asks any more."""
    data, descriptors, _, _ = socket.recv_fds(sock, ERRAND_MOST, DESCRIPTORS)
    if len(descriptors) == DESCRIPTORS:
        with suppress(pickle.UnpicklingError, EOFError):
            errand = pickle.loads(data)
            if isinstance(errand, Errand):
                return errand, descriptors
    for fd in descriptors:
        os.close(fd)
    return None


def fork(
    boot: Boot,
    warm: Warm,
    errand: Errand,
    descriptors: list[int],
    worker_main: ChildMain,
    selector: selectors.BaseSelector,
) -> None:
    """Fork the worker and answer with its pid. Who is in between tells it, and is gone at once."""
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    middle = os.getpid()
    pid = 0
    try:
        pid = os.fork()
        if pid:
            warm.sock.send(str(pid).encode())
    finally:
        if pid or os.getpid() == middle:
            os._exit(0)
    selector.close()
    boot.link.close()
    warm.sock.close()
    deadline = time.monotonic() + ADOPTION
    while os.getppid() == middle and time.monotonic() < deadline:
        os.sched_yield()
    orders, reports, stacks = map(os.dup, descriptors)
    for fd in descriptors:
        os.close(fd)
    worker = Boot(
        errand.number,
        errand.generation,
        errand.config,
        [boot.listeners[index] for index in errand.listeners],
        ChildEnd(orders, reports),
        boot.master_pid,
        boot.board,
        boot.board.numbered(errand.slot),
        stacks,
        boot.bulletin,
        boot.transfer,
        errand.first,
    )
    for index, listener in enumerate(boot.listeners):
        if index not in errand.listeners:
            listener.sock.close()
    be(worker_main, worker)


# What is warm


def warm_up(warm: Warm) -> str:
    """Import the modules; why this process is no good as a zygote after that, empty when it is."""
    for signum in (signal.SIGINT, signal.SIGHUP):  # of the whole terminal: they are the master's
        signal.signal(signum, lambda *_: None)
    path = sys.path[:]
    watched = tops(warm.watched)
    sys.path[:] = [entry for entry in path if is_outside(os.path.join(os.path.abspath(entry), ""), watched)]
    tasks, loops = count_tasks(), count_loops()
    try:
        for name in warm.modules:
            if name in sys.modules:
                continue
            try:
                importlib.import_module(name)
            except Exception:  # somebody else's code, that may want what only the application gives it
                continue
            if count_tasks() > tasks:
                return f"import {name} has started a thread"
            if count_loops() > loops:
                return f"import {name} has started an event loop"
    finally:
        sys.path[:] = path
    own = next((file for file in files() if not is_outside(file, watched)), None)
    return f"it would import {own}, which is watched" if own else ""


def count_tasks() -> int:
    """The threads of this process, those that Python does not know of as well."""
    return len(os.listdir("/proc/self/task"))


def count_loops() -> int:
    """What is open that belongs to an event loop."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{fd}") in _LOOPS
    return found


def files() -> Iterator[str]:
    """The files of all modules that are imported, but for asgiri's own."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name.partition(".")[0] not in ("asgiri", "__main__"):
            yield os.path.abspath(file)


def stamps() -> dict[str, Stamp]:
    return {file: stamp for file in files() if (stamp := stamp_of(file))}


def stamp_of(file: str) -> Stamp | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
