"""What a wheel or a source distribution must do in a clean environment: `python tests/packaging/smoke.py FILE BUILD`.

FILE is one that `python -m build` has made, BUILD is compiled or plain. A new virtual environment gets the file and
what it depends on, wheels only. There, with nothing of the checkout in sight, `installed.py` runs the commands and a
service, and `embedding.py` is run, and checked with the mypy of the Python that runs this. Exits with 1 and says what
failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILDS = {"compiled": "1", "plain": "0"}  # what ASGIRI_COMPILE says to a build
# What a source distribution has of the checkout, where the checkout has it.
FOLDERS = (".ci", "asgiri", "config", "deploy", "docs", "systemd", "tests")
FILES = (".dockerignore", "Dockerfile", "LICENSE", "README.md", "dev", "mkdocs.yml", "pyproject.toml", "setup.py")
COMPILED = {".pyc", ".so"}


def below(folder: str) -> set[str]:
    """The files in a folder of the checkout that a person wrote."""
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix not in COMPILED)
    return {path.relative_to(ROOT).as_posix() for path in paths}


def contents(file: Path) -> None:
    """That all is in it, and in a wheel nothing but the package. AssertionError says what is missing or too much."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
        foreign = {name for name in names if not name.startswith("asgiri") and "__mypyc" not in name}
        assert not foreign, f"more than the package: {sorted(foreign)}"
        expected = below("asgiri")
    else:
        with tarfile.open(file) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        expected = {name for name in FILES if (ROOT / name).exists()}.union(*map(below, FOLDERS))
    assert expected <= names, f"missing: {sorted(expected - names)}"


def smoke(file: Path, build: str) -> None:
    """Install it, and use it. CalledProcessError for what fails; what it says goes to where this says its own."""
    contents(file)
    with tempfile.TemporaryDirectory(prefix="smoke-") as made:
        place = Path(made)
        venv.create(place / "venv", with_pip=True, symlinks=True)
        python = str(place / "venv" / "bin" / "python")
        (work := place / "work").mkdir()
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
        env |= {"ASGIRI_COMPILE": BUILDS[build], "XDG_RUNTIME_DIR": str(work)}

        def run(*words: str) -> None:
            subprocess.run(words, cwd=work, env=env, check=True, timeout=900)

        wheels = ["--only-binary=:all:", *(["--no-binary=asgiri"] if file.suffix != ".whl" else [])]
        run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wheels, str(file.resolve()))
        run(python, "-I", str(HERE / "installed.py"), build)
        shutil.copy(HERE / "embedding.py", work)
        run(python, "embedding.py")
        types = (sys.executable, "-m", "mypy", "--strict", "--cache-dir=/dev/null", f"--python-executable={python}")
        run(*types, "embedding.py")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in BUILDS:
        raise SystemExit("usage: python tests/packaging/smoke.py WHEEL-OR-SDIST compiled|plain")
    try:
        smoke(Path(sys.argv[1]), sys.argv[2])
    except (AssertionError, subprocess.SubprocessError) as error:
        raise SystemExit(f"{sys.argv[1]}: {error}") from error
