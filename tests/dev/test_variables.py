"""Who has set a variable: the application, or a package from elsewhere while it was imported."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from asgiri.dev.variables import Variables

FAR = """
import os
os.environ.setdefault("RV_FAR", "1")
os.environ["RV_BOTH"] = "far"
def load():
    os.environ["RV_LOADED"] = "2"
"""
OWN = """
import os
import rv_far
rv_far.load()
os.environ["RV_OWN"] = "3"
os.environ["RV_BOTH"] = "own"
"""


def test_what_a_package_sets_when_it_is_imported_is_not_the_applications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    putenv, names = os.putenv, ("RV_FAR", "RV_BOTH", "RV_LOADED", "RV_OWN")
    for folder, name, text in (("lib", "rv_far", FAR), ("project", "rv_own", OWN)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    variables = Variables((str(tmp_path / "project"),))
    try:
        importlib.import_module("rv_own")
        assert variables.take() == {"RV_LOADED": "2", "RV_OWN": "3", "RV_BOTH": "own"}
        assert os.putenv is putenv
    finally:
        os.putenv = putenv
        for name in names:
            os.environ.pop(name, None)
        for name in ("rv_far", "rv_own"):
            sys.modules.pop(name, None)


def test_the_working_directory_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the worker comes to say what it cannot find."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    project.rmdir()
    assert Variables((".",)).take() == {}
