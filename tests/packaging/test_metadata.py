"""What the package says of itself, and what it asks for."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trove_classifiers import classifiers

import asgiri
from tests.packaging.smoke import FILES, FOLDERS

ROOT = Path(__file__).resolve().parents[2]
TOLD: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = TOLD["project"]


def test_classifiers_are_ones_that_an_index_takes_in_order_and_each_once() -> None:
    given = PROJECT["classifiers"]
    assert set(given) <= classifiers
    assert given == sorted(set(given))


def test_the_pythons_that_are_named_are_those_that_are_asked_for() -> None:
    minors = [int(found[1]) for line in PROJECT["classifiers"] if (found := re.search(r":: 3\.(\d+)$", line))]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert TOLD["tool"]["ruff"]["target-version"] == f"py3{minors[0]}"
    assert sys.version_info[1] in minors, "a Python on which the tests run is one that the package names"


def test_the_licence_is_named_by_its_spdx_word_and_comes_along() -> None:
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text("utf-8").startswith("MIT License\n")
    assert not [line for line in PROJECT["classifiers"] if line.startswith("License ::")], "the word says it (PEP 639)"


def test_the_version_has_an_entry_in_the_changelog() -> None:
    changelog = (ROOT / "docs/changelog.md").read_text("utf-8").splitlines()
    assert any(re.match(rf"## {re.escape(asgiri.__version__)}\b", line) for line in changelog)


def test_one_line_sets_all_links() -> None:
    pytest.importorskip("setuptools")
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")  # which runs setup() only as a program
    assert setup["urls"]("") == {}
    links = setup["urls"]("https://host.example/owner/name")
    assert set(links) == {"Homepage", "Documentation", "Changelog", "Source", "Issues"}
    assert all(link.startswith("https://host.example/owner/name") for link in links.values())
    for link in (links["Documentation"], links["Changelog"]):
        assert link.startswith("https://host.example/owner/name/blob/main/docs/")


def test_a_source_distribution_is_told_of_all_that_is_written_here() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text("utf-8").split()
    assert {*FOLDERS, *FILES} - {"asgiri", "LICENSE", "README.md", "pyproject.toml", "setup.py"} <= set(manifest)


def closure() -> set[str]:
    """The distributions that `pip install asgiri` brings here, by their names."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in PROJECT["dependencies"]]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or not (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += map(Requirement, importlib.metadata.requires(name) or ())
    return found


@pytest.mark.parametrize("name", sorted(closure()))
def test_what_is_installed_with_it_came_as_a_wheel_of_its_publisher(name: str) -> None:
    wheel = importlib.metadata.distribution(name).read_text("WHEEL")
    assert wheel, f"{name} was not installed from a wheel"
    tags = [line.partition(": ")[2] for line in wheel.splitlines() if line.startswith("Tag: ")]
    # What pip compiles at home is a wheel of this very machine: linux_x86_64, where an index takes manylinux only.
    assert not [tag for tag in tags if tag.rpartition("-")[2].startswith("linux")], f"{name} was compiled here"
