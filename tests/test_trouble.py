"""Why an application cannot be started, as data: what a person must see first, and never more than fits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from asgiri import tracebacks
from asgiri.dev.modules import modules_from_elsewhere
from asgiri.errors import AppError
from asgiri.loader import load_app
from asgiri.tracebacks import FRAMES_MOST, LINE_MOST, SOURCE_AROUND, TEXT_MOST, Trouble, trouble_of
from asgiri.worker.development import trouble_with

ROOT = Path(__file__).resolve().parent.parent


def trouble(directory: Path, **files: str) -> Trouble:
    """Of importing ``trouble_main`` of these files."""
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)
    path, before = sys.path[:], set(sys.modules)
    try:
        with pytest.raises(AppError) as caught:
            load_app("trouble_main:app", app_dir=str(directory))
        return trouble_with(caught.value)
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            del sys.modules[name]


def places(found: Trouble) -> list[tuple[str, int, str]]:
    return [(os.path.basename(frame.file), frame.line, frame.function) for frame in found.frames]


def marked(found: Trouble) -> str:
    """The line that failed, of the innermost frame."""
    frame = found.frames[-1]
    return frame.source[frame.line - frame.first]


def test_an_exception_with_its_frames_and_their_source(tmp_path: Path) -> None:
    found = trouble(
        tmp_path,
        trouble_main="import trouble_shop\n",
        trouble_shop="# a shop\n\n\n\n\n\ndef price():\n    return 1 / 0\n\n\nprice()\n",
    )
    assert (found.kind, found.text) == ("ZeroDivisionError", "division by zero")
    assert found.message.endswith("failed: ZeroDivisionError: division by zero")
    assert places(found) == [
        ("trouble_main.py", 1, "<module>"),
        ("trouble_shop.py", 11, "<module>"),
        ("trouble_shop.py", 8, "price"),
    ]
    assert marked(found) == "    return 1 / 0"
    assert found.frames[-1].first == 8 - SOURCE_AROUND
    assert len(found.frames[-1].source) == 8
    assert "asgiri/loader.py" not in found.trace
    assert found.trace.endswith("ZeroDivisionError: division by zero\n")


def test_a_syntax_error_has_a_place_of_its_own(tmp_path: Path) -> None:
    found = trouble(tmp_path, trouble_main="import trouble_shop\n", trouble_shop="\ndef price(:\n")
    assert (found.kind, found.text) == ("SyntaxError", "invalid syntax")
    assert places(found) == [("trouble_main.py", 1, "<module>"), ("trouble_shop.py", 2, "")]
    assert marked(found) == "def price(:"
    found = trouble(tmp_path, trouble_main="def price(:\n")
    assert places(found) == [("trouble_main.py", 1, "")]


def test_what_is_wrong_without_any_code_has_a_sentence_alone(tmp_path: Path) -> None:
    found = trouble(tmp_path, trouble_main="")
    assert "has no attribute" in found.message
    assert (found.kind, found.text, found.trace, found.frames) == ("", "", "", ())


def test_of_a_group_the_first_member_counts_and_of_a_chain_what_was_raised(tmp_path: Path) -> None:
    group = "def inner():\n    raise KeyError('colour')\ntry:\n    inner()\nexcept KeyError as error:\n"
    found = trouble(tmp_path, trouble_main=group + "    raise ExceptionGroup('unhandled', [error, OSError()])\n")
    assert (found.kind, found.text) == ("KeyError", "'colour'")
    assert places(found)[-1] == ("trouble_main.py", 2, "inner")
    assert "ExceptionGroup: unhandled" in found.trace
    found = trouble(tmp_path, trouble_main=group + "    raise ValueError('no such colour') from error\n")
    assert (found.kind, found.text) == ("ValueError", "no such colour")
    assert places(found) == [("trouble_main.py", 6, "<module>")]
    assert "KeyError: 'colour'" in found.trace


def test_an_error_without_frames_gives_way_to_its_cause() -> None:
    outer = ValueError("outer")
    try:
        raise KeyError("inner")
    except KeyError as error:
        outer.__cause__ = error
    assert trouble_of(outer, "why").kind == "KeyError"
    outer.__cause__, outer.__context__ = None, outer  # a circle
    assert trouble_of(outer, "why").kind == "ValueError"


def test_it_is_bounded_and_can_be_sent(tmp_path: Path) -> None:
    found = trouble(
        tmp_path,
        trouble_main=f"def deep(n):\n    '''{'x' * 5000}'''\n    return deep(n + 1)\ndeep(0)\n",
    )
    assert len(found.frames) == FRAMES_MOST
    assert max(len(line) for frame in found.frames for line in frame.source) == LINE_MOST
    found = trouble(tmp_path, trouble_main="raise ValueError('\\udc80' + '\\x00' * 10_000_000)\n")
    assert len(found.text) < TEXT_MOST + 10
    assert len(msgspec.json.encode(found)) < 1 << 20
    assert found.text.startswith("\\udc80")


def test_a_text_that_cannot_be_had_does_no_harm(tmp_path: Path) -> None:
    source = "class Bad(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Bad\n"
    assert trouble(tmp_path, trouble_main=source).text == tracebacks.NO_TEXT


def test_the_modules_from_elsewhere(tmp_path: Path) -> None:
    """In a process of its own: what is imported here already is nothing new."""
    installed = tmp_path / "project" / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "far.py").write_text("import fractions\n")
    (tmp_path / "project" / "near.py").write_text("import far, sys\nsys.modules['alias'] = far\n")
    (tmp_path / "project" / "space").mkdir()
    program = (
        "import sys; from asgiri.dev.modules import modules_from_elsewhere as found\n"
        "before = len(sys.modules)\n"
        "import near, space\n"
        "print(*found(before, ['.']))\n"
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path / "project"), str(installed)])
    told = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "project",
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert told.index("fractions") < told.index("far"), "what is imported by another comes before that"
    assert not {"near", "space", "alias", "sys"} & set(told)
    assert modules_from_elsewhere(len(sys.modules), ["."]) == ()
