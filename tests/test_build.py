"""What setup.py has compiled: all of it is there, and nothing else hangs on a half of it."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

from asgiri import build, statuses

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "asgiri"


def hot() -> set[str]:
    """The modules that setup.py names, as ``codec/events``."""
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    values = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOT"
    )
    found: tuple[str, ...] = ast.literal_eval(next(values))
    assert sorted(found) == list(found), "in order, and each once"
    return set(found)


def classes() -> dict[str, tuple[str, list[str]]]:
    """Name of a class -> its module, as in :func:`hot`, and its bases' names."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = module, [ast.unparse(base) for base in node.bases]
    return found


@pytest.mark.parametrize("module", sorted(hot()))
def test_what_is_compiled_is_there(module: str) -> None:
    assert (PACKAGE / f"{module}.py").is_file()


def test_who_inherits_from_a_compiled_class_is_compiled() -> None:
    known, compiled = classes(), hot()
    astray = [
        f"{name} of {module} inherits from {base} of {known[base][0]}"
        for name, (module, bases) in known.items()
        for base in bases
        if base in known and known[base][0] in compiled and module not in compiled
    ]
    assert not astray, "interpreted classes cannot inherit from compiled ones: add the module to setup.py"


def test_it_says_whether_it_is_compiled() -> None:
    assert build.COMPILED is (Path(statuses.__file__).suffix != ".py")
    assert re.fullmatch(r"compiled|not compiled", build.BUILD)


def test_a_wrong_wish_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools")
    monkeypatch.setenv("ASGIRI_COMPILE", "yes")
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")  # which runs setup() only as a program
    with pytest.raises(SystemExit, match="ASGIRI_COMPILE: expected auto, 0 or 1, got 'yes'"):
        setup["extensions"]()
