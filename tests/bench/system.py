"""What Linux tells about the machine and its processes, read from /proc."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Core:
    """Seconds that one core has spent since it started."""

    programs: float
    kernel: float  # interrupts; they belong to no process
    stolen: float  # by other guests of the host
    idle: float

    def __sub__(self, earlier: Core) -> Core:
        return Core(
            self.programs - earlier.programs,
            self.kernel - earlier.kernel,
            self.stolen - earlier.stolen,
            self.idle - earlier.idle,
        )

    @property
    def total(self) -> float:
        return (self.programs + self.kernel + self.stolen + self.idle) or 1.0

    @property
    def busy(self) -> float:
        """The share of the time that was not idle, 0 to 1."""
        return 1 - self.idle / self.total


def core(number: int) -> Core:
    """The times of one core now (proc(5), /proc/stat)."""
    match = re.search(rf"^cpu{number} (.+)$", (PROC / "stat").read_text("ascii"), re.MULTILINE)
    if match is None:
        raise ValueError(f"there is no core {number}")
    user, nice, system, idle, iowait, irq, softirq, steal = (int(field) / TICKS for field in match[1].split()[:8])
    return Core(user + nice + system, irq + softirq, steal, idle + iowait)


def background(cores: list[int], seconds: float = 1.0) -> float:
    """How busy these cores are with others' work: the share of the busiest one."""
    before = [core(number) for number in cores]
    time.sleep(seconds)
    return max((core(number) - first).busy for number, first in zip(cores, before, strict=True))


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat: ``cpu`` is in seconds."""

    pid: int
    state: str
    session: int
    cpu: float


def processes() -> list[Process]:
    """All processes that there are."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
        ticks = int(fields[11]) + int(fields[12])
        found.append(Process(int(entry.name), fields[0], int(fields[3]), ticks / TICKS))
    return found


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of a process that are in memory; ``pss`` counts a page that n processes share as a nth."""

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    """The exact figures of /proc/PID/smaps_rollup; those of /proc/PID/status may lag."""
    text = (PROC / str(pid) / "smaps_rollup").read_text("ascii")
    sizes = {name: int(size) * 1024 / MIB for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return Memory(sizes["Rss"], sizes["Pss"])


def machine() -> dict[str, str]:
    """What a reader of the results wants to know about where they come from."""
    model = re.search(r"^model name\s*:\s*(.+)$", (PROC / "cpuinfo").read_text("utf-8"), re.MULTILINE)
    return {
        "CPU": model[1] if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def tool_versions() -> dict[str, str]:
    """wrk, h2load, nginx and openssl, as far as they are there."""
    found = {}
    for command, pattern in (
        (["wrk", "-v"], r"wrk \S*?([\d.]+)"),
        (["h2load", "--version"], r"nghttp2/([\d.]+)"),
        (["nginx", "-v"], r"nginx/([\d.]+)"),
        (["openssl", "version"], r"OpenSSL (\S+)"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except FileNotFoundError:
            continue
        match = re.search(pattern, done.stdout + done.stderr)
        found[command[0]] = match[1] if match else "?"
    return found


def commit(root: Path) -> str:
    """The commit of the checkout, with a + when the package has changes that are not in it; "" outside of git."""

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *args], capture_output=True, text=True, timeout=30
        ).stdout.strip()

    try:
        short = git("rev-parse", "--short", "HEAD")
        return short + "+" if short and git("status", "--porcelain", "--", "asgiri", "pyproject.toml") else short
    except FileNotFoundError:
        return ""
