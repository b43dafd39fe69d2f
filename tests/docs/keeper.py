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

QUESTIONS = {"--check-config", "--print-config", "--schema", "--version", "--help", "-h"}
PATIENCE = 20.0  # seconds until something that should happen is taken not to


def main() -> int:
    state, python, arguments = Path(sys.argv[1]), sys.argv[2], sys.argv[4:]
    command = [python, "-P", "-W", "error", "-m", "asgiri", *arguments]
    if QUESTIONS & set(arguments) or any(name.startswith("_ASGIRI") for name in os.environ):
        os.execv(python, command)
    # Shells without job control have what they put into the background ignore INT (POSIX, 2.11).
    background = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not background:
        stop(state)
    return start(state, command, background)


def start(state: Path, command: list[str], background: bool) -> int:
    """Start a server; 0 once it serves, its exit code if it never does. One in the background: when it has ended."""
    told, tell = os.pipe()
    if not background and os.fork():
        os.close(tell)
        return int(os.read(told, 8) or b"1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind("")  # a name that the kernel chooses, of the scene's own network namespace
        name = notices.getsockname().decode("ascii").replace("\0", "@")
        server = os.fork()
        if server == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            os.execve(command[0], command, {**os.environ, "NOTIFY_SOCKET": name})
        mark = state / (f"{os.getpid()}.background" if background else f"{server}.foreground")
        code = keep(notices, server, mark, tell)
    (state / f"{server}.end").write_text(f"{code}", "ascii")
    return code


def keep(notices: socket.socket, server: int, mark: Path, tell: int) -> int:
    """Wait for the server's end, and tell when it is ready, or that it never was; its exit code."""
    handle = os.pidfd_open(server)
    deadline = time.monotonic() + PATIENCE
    ready = False
    while True:
        watched = [notices.fileno(), handle]
        found, _, _ = select.select(watched, [], [], None if ready else max(0.0, deadline - time.monotonic()))
        if notices.fileno() in found and not ready and b"READY=1" in notices.recv(65536).split(b"\n"):
            ready = True
            mark.touch()
            os.write(tell, b"0")
        elif notices.fileno() in found:
            notices.recv(65536)
        elif handle in found:
            code = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
            if not ready:
                os.write(tell, b"%d" % (code & 0xFF))
            return code
        elif not found:
            os.kill(server, signal.SIGKILL)


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
