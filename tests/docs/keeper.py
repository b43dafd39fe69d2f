"""``asgiri``, as a snippet calls it: the real one, and a server that has begun to serve does not hold the snippet up.

A script, run in a scene (scene.py) by the wrapper ``bin/asgiri``: ``keeper.py STATE PYTHON -- ARGUMENTS``. What ends by
itself (``--check-config``) is run, and that is all. A server in the foreground is waited for until it says READY=1
(sd_notify(3)); then the snippet goes on, as its reader does in another terminal. It ends by a TERM when the next server
comes, or the scene ends; how it ended stands in ``STATE/N.end``. One in the background (``&``) is left to the snippet.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

QUESTIONS = {"--check-config", "--print-config", "--schema", "--version", "--help", "-h"}
PATIENCE = 20.0  # seconds until something that should happen is taken not to


def main() -> int:
    state, python, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[4:]
    command = [python, "-P", "-W", "error", "-m", "asgiri", *arguments]
    if QUESTIONS & set(arguments) or any(name.startswith("_ASGIRI") for name in os.environ):
        os.execv(python, command)
    # Shells without job control have what they put into the background ignore INT (POSIX, 2.11).
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        watch(state, command)
    stop(state)
    return start(state, command)


def watch(state: Path, command: list[str]) -> NoReturn:
    """Become the server, for the shell to signal and to wait for. Somebody who is no child of it sees it get ready."""
    server, notices, name = os.getpid(), *listening()
    if (helper := os.fork()) == 0:
        if os.fork() == 0:
            process = os.pidfd_open(server)
            if wait_for(notices, process):
                (state / f"{server}.background").touch()
                hear(notices, process)
        os._exit(0)
    os.waitpid(helper, 0)
    be(command, name)


def start(state: Path, command: list[str]) -> int:
    """Start a server that goes on; 0 once it serves, its exit code if it never does."""
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        return int(os.read(told, 8) or b"1")
    notices, name = listening()
    if (server := os.fork()) == 0:
        be(command, name)
    process = os.pidfd_open(server)
    ready = wait_for(notices, process)
    if ready:
        (state / f"{server}.foreground").touch()
        os.write(tell, b"0")
        hear(notices, process)
    code = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
    (state / f"{server}.end").write_text(f"{code}", "ascii")
    if not ready:
        os.write(tell, b"%d" % (code & 0xFF))
    return 0


def listening() -> tuple[socket.socket, str]:
    """A socket for what a service tells its manager, and its name for NOTIFY_SOCKET."""
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind("")  # a name that the kernel chooses, of the scene's own network namespace
    return notices, notices.getsockname().decode("ascii").replace("\0", "@")


def be(command: list[str], name: str) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.execve(command[0], command, {**os.environ, "NOTIFY_SOCKET": name})


def wait_for(notices: socket.socket, process: int) -> bool:
    """Whether the process gets ready; False when it ends, or has to be ended."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found, _, _ = select.select([notices.fileno(), process], [], [], max(0.0, deadline - time.monotonic()))
        if notices.fileno() in found:
            if b"READY=1" in notices.recv(65536).split(b"\n"):
                return True
        elif process in found:
            return False
        else:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            return False


def hear(notices: socket.socket, process: int) -> None:
    """Take what the service tells, until it ends: a manager that does not is a warning in its log."""
    while process not in select.select([notices.fileno(), process], [], [])[0]:
        notices.recv(65536)


def stop(state: Path) -> int:
    """TERM to each server that is in the foreground, and wait for its end; 1 where one does not end by 0."""
    bad = 0
    for mark in state.glob("*.foreground"):
        end = mark.with_suffix(".end")
        if not end.exists():
            try:
                os.kill(int(mark.stem), signal.SIGTERM)
            except ProcessLookupError:
                pass  # it is just ending
        deadline = time.monotonic() + PATIENCE
        while not (end.exists() and end.read_text("ascii")):
            if time.monotonic() > deadline:
                print(f"the server {mark.stem} does not end", file=sys.stderr)
                return 1
            time.sleep(0.005)
        if code := end.read_text("ascii").strip("0"):
            print(f"the server {mark.stem} ended with {code} after a TERM", file=sys.stderr)
            bad = 1
        mark.unlink()
    return bad


def settle(state: Path, job: int) -> int:
    """Wait until the server that this job of the shell's keeps serves, or the job has ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (state / f"{job}.background").exists() or not Path(f"/proc/{job}").exists():
            return 0
        time.sleep(0.005)
    print("the server in the background is not ready", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if sys.argv[1] == "--stop":
        sys.exit(stop(Path(sys.argv[2])))
    if sys.argv[1] == "--settle":
        sys.exit(settle(Path(sys.argv[2]), int(sys.argv[3])))
    sys.exit(main())
