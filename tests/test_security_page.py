"""docs/security.md names a test for each defence: here it is seen that they are there."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def found_in(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, functions)]
    return frozenset(name for name in found if name.startswith("test_"))


def test_every_test_that_is_named_exists() -> None:
    assert [f"{file}::{name}" for file, name in NAMED if name not in found_in(file)] == []


def test_every_defence_names_one() -> None:
    """The tables below "What is defended" have three columns, of which the last one is tests and nothing else."""
    defended = PAGE.partition("## What is defended")[2].partition("\n## ")[0]
    rows = [
        row for row in re.findall(r"^\| (.+) \|$", defended, re.MULTILINE) if not row.startswith(("against", "---"))
    ]
    assert len(rows) > 30
    proofs = [row.rpartition(" | ")[2] for row in rows]
    assert [proof for proof in proofs if not re.fullmatch(r"`tests/\S+`( `tests/\S+`)*", proof)] == []
    assert sum(proof.count("::") for proof in proofs) >= len(NAMED)


def test_every_dependency_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = [re.split(r"[^\w-]", one)[0] for one in project["dependencies"]]
    supply = PAGE.partition("## What it is built on")[2].partition("\n## ")[0]
    table = re.findall(r"^\| ([\w, -]+) \|", supply, re.MULTILINE)
    assert sorted(names) == sorted(name for row in table if row not in ("package", "---") for name in row.split(", "))
