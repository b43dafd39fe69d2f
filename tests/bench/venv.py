"""The virtual environment of the servers: made once and kept, with asgiri installed from the checkout each time."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"
# What building and compiling asgiri takes; kept there, so that a second run needs no network.
BUILDS: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
# A case needs the first; the second is used by who finds it; the third is the client of the WebSocket cases.
COMMON = ("starlette", "aiofastnet", "picows")
PATIENCE = 600  # seconds that pip may take


class VenvError(Exception):
    """The virtual environment cannot be made, or asgiri cannot be installed in it."""


class Venv:
    """``failures`` maps a requirement that could not be installed to the last line of pip.

    ``notes`` tells what a reader of the results should know: a peer without its faster part, a changed version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.bin = self.path / "bin"
        self.failures: dict[str, str] = {}
        self.notes: list[str] = []

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    def prepare(self, interpreter: str, requirements: list[str], faster: list[str]) -> None:
        """Make it where there is none, install what it lacks, and asgiri as the checkout is now. Raises VenvError.

        ``faster`` are requirements with an extra that a server can do without.
        """
        if not (self.bin / "python").exists():
            must(run(interpreter, "-m", "venv", str(self.path)), "the virtual environment")
        present = self.packages()
        if "mypy" not in present:
            must(self.pip("install", "--upgrade", *BUILDS), "what builds asgiri")
        for requirement in [*COMMON, *requirements]:
            if not all(name in present for name in needed(requirement)):
                self._install(requirement)
        for requirement in faster:
            self._add_extra(requirement)
        self.pip("uninstall", "--yes", "asgiri")
        extras = ",".join(self.extras())
        target = f"{ROOT}[{extras}]" if extras else str(ROOT)
        must(self.pip("install", "--no-build-isolation", target), "asgiri")
        self.notes += changes(present, self.packages())

    def _install(self, requirement: str) -> None:
        done = self.pip("install", requirement)
        if done.returncode:
            self.failures[requirement] = last_line(done)

    def _add_extra(self, requirement: str) -> None:
        """Add an extra to the version that is there: pip would rather take an older server than no extra."""
        present = self.packages()
        name = needed(requirement)[0]
        if name not in present or all(one in present for one in needed(requirement)):
            return
        done = self.pip("install", f"{requirement}=={present[name]}")
        if done.returncode:
            self.notes.append(f"{name} {present[name]} ran without what {requirement} adds: {last_line(done)}")

    def extras(self) -> list[str]:
        """asgiri's extras that make it faster; ``fast`` is the one."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        return [name for name in project.get("optional-dependencies", {}) if name == "fast"]

    def pip(self, *args: str) -> subprocess.CompletedProcess[str]:
        return run(self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", *args)

    def packages(self) -> dict[str, str]:
        """Normalised name -> version of all that is installed."""
        done = self.pip("list", "--format", "json")
        must(done, "pip")
        return {normalised(one["name"]): one["version"] for one in json.loads(done.stdout)}

    def version(self) -> str:
        """Implementation and version of its interpreter, as in ``CPython 3.13.0``."""
        code = "import platform as p; print(p.python_implementation(), p.python_version())"
        done = run(self.python, "-c", code)
        must(done, "the interpreter")
        return done.stdout.strip()


def add_options(parser: argparse.ArgumentParser) -> None:
    """What the benchmarks of a few servers can be told: their environment, and the cores."""
    parser.add_argument("--python", default=sys.executable, metavar="PATH", help="the servers' interpreter")
    parser.add_argument("--venv", type=Path, metavar="DIR", help="their environment; default: below .bench, kept")
    parser.add_argument("--reuse", action="store_true", help="take the environment as it is, and install nothing")
    parser.add_argument("--server-core", type=int, default=0, metavar="N")
    parser.add_argument("--client-core", type=int, default=1, metavar="N")


def chosen(args: argparse.Namespace, requirements: list[str], faster: list[str]) -> Venv:
    """The environment that these options name, with these servers in it. VenvError when that cannot be."""
    if shutil.which("taskset") is None:
        raise VenvError("taskset is missing (util-linux)")
    venv = Venv(args.venv or default_path(args.python))
    if not args.reuse:
        CACHE.mkdir(exist_ok=True)
        venv.prepare(args.python, requirements, faster)
    return venv


def default_path(interpreter: str) -> Path:
    """Where the environment of this interpreter is kept: one for each version."""
    code = "import sys; print('%s-%d.%d%s' % (sys.implementation.name, *sys.version_info[:2], sys.abiflags))"
    done = run(interpreter, "-c", code)
    must(done, interpreter)
    return CACHE / done.stdout.strip()


def needed(requirement: str) -> list[str]:
    """The names that must be installed for a requirement: its own, and what its extra brings."""
    name, _, extra = requirement.partition("[")
    brings = {"uvicorn[standard]": ["uvloop", "httptools"], "gunicorn[fast]": ["gunicorn-h1c"]}
    return [normalised(name), *(brings[requirement] if extra else [])]


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """A note for each package whose version changed while others were installed; new ones are none."""
    return [
        f"{name} went from {version} to {after.get(name, 'nothing')} while the servers were installed"
        for name, version in sorted(before.items())
        if name != "asgiri" and after.get(name) != version
    ]


def normalised(name: str) -> str:
    """A package's name as comparisons take it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run without what the caller's environment might set for Python. Raises VenvError when it cannot be run."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env["ASGIRI_COMPILE"] = "1"  # or else fail: slower figures would look like others
    try:
        return subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VenvError(f"{command[0]}: {error}") from error


def must(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        raise VenvError(f"{what}: {done.stderr.strip() or done.stdout.strip()}")


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr.strip() or done.stdout.strip()).splitlines() or ["no output"])[-1]
