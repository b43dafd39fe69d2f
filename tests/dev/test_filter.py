"""Which files and folders matter, and when a change is told."""

from __future__ import annotations

import pytest

from asgiri.dev.filter import Filter, Gatherer

TOP = "/home/me/shop"


def matters(path: str, include: str = "*.py", exclude: str = "") -> bool:
    return Filter([TOP], include.split(), exclude.split(), ["/etc/asgiri.yaml", f"{TOP}/.env"]).matters(path)


@pytest.mark.parametrize(
    ("path", "include", "exclude", "yes"),
    [
        ("/home/me/shop/main.py", "*.py", "", True),
        ("/home/me/shop/a/b/c.py", "*.py", "", True),
        ("/home/me/shop/main.pyc", "*.py", "", False),
        ("/home/me/shop/main.py~", "*.py", "", False),
        ("/home/me/shop/.#main.py", "*.py", "", False),
        ("/home/me/shop/.main.py", "*.py", "", False),
        ("/home/me/shop/4913", "*.py", "", False),
        ("/home/me/shopping/main.py", "*.py", "", False),
        ("/home/me/main.py", "*.py", "", False),
        ("/etc/asgiri.yaml", "*.py", "", True),
        ("/home/me/shop/.env", "*.py", "", True),
        ("/home/me/shop/a.html", "*.py *.html", "", True),
        ("/home/me/shop/a.html", "*.py templates/*.html", "", False),
        ("/home/me/shop/templates/a.html", "templates/*.html", "", True),
        ("/home/me/shop/templates/b/a.html", "templates/*.html", "", False),
        ("/home/me/shop/templates/b/a.html", "templates/**/*.html", "", True),
        ("/home/me/shop/templates/a.html", "templates/**/*.html", "", True),
        ("/home/me/shop/x/templates/a.html", "**/templates/*.html", "", True),
        ("/home/me/shop/templates/a.html", "**/templates/*.html", "", True),
        ("/home/me/shop/templates/b/c/d", "templates/**", "", True),
        ("/home/me/shop/main.py", "./main.py", "", True),
        ("/home/me/shop/a/main.py", "./main.py", "", False),
        ("/home/me/shop/a1.py", "a[0-9].py", "", True),
        ("/home/me/shop/ax.py", "a[!0-9].py", "", True),
        ("/home/me/shop/a1.py", "a[!0-9].py", "", False),
        ("/home/me/shop/a[.py", "a[.py", "", True),
        ("/home/me/shop/a?b.py", "a?b.py", "", True),
        ("/home/me/shop/a.b+c.py", "a.b+c.py", "", True),
        ("/home/me/shop/aXb+c.py", "a.b+c.py", "", False),
        ("/home/me/shop/a\nb.py", "*.py", "", True),
        ("/home/me/shop/test_a.py", "*.py", "test_*", False),
        ("/home/me/shop/a/test_a.py", "*.py", "test_*", False),
        ("/home/me/shop/a/b.py", "*.py", "a/*", False),
        ("/home/me/shop/b/b.py", "*.py", "a/*", True),
    ],
)
def test_a_file_matters_that_is_included_and_not_excluded(path: str, include: str, exclude: str, yes: bool) -> None:
    assert matters(path, include, exclude) is yes


@pytest.mark.parametrize(
    ("folder", "exclude", "yes"),
    [
        ("/home/me/shop/a", "", True),
        ("/home/me/shop/a/b", "", True),
        ("/home/me/shop/build", "", True),
        ("/home/me/shop/.git", "", False),
        ("/home/me/shop/.venv", "", False),
        ("/home/me/shop/a/__pycache__", "", False),
        ("/home/me/shop/node_modules", "", False),
        ("/home/me/other", "", False),
        ("/home/me/shop/tests", "tests", False),
        ("/home/me/shop/a/tests", "tests", False),
        ("/home/me/shop/a/tests", "tests/", False),
        ("/home/me/shop/a/tests", "./tests/", True),
        ("/home/me/shop/tests", "./tests/", False),
        ("/home/me/shop/a/b", "a/b", False),
        ("/home/me/shop/b", "a/b", True),
        ("/home/me/shop/a/b/c", "a/**", False),
    ],
)
def test_a_folder_is_entered_unless_it_is_excluded(folder: str, exclude: str, yes: bool) -> None:
    assert Filter([TOP], ["*.py"], exclude.split()).enters(folder) is yes


def test_the_root_of_the_file_system_can_be_watched() -> None:
    assert Filter(["/"], ["*.py"]).matters("/a.py")
    assert Filter(["/"], ["*.py"]).enters("/a")


def test_one_save_is_told_soon_and_a_second_file_waits_for_the_rest() -> None:
    gatherer = Gatherer(0.05)
    assert gatherer.due() is None
    gatherer.note("a", 10.0)
    assert gatherer.due() == pytest.approx(10.01)
    gatherer.note("a", 10.005)  # written twice
    assert gatherer.due() == pytest.approx(10.015)
    gatherer.note("b", 10.010)
    assert gatherer.due() == pytest.approx(10.060)
    gatherer.note("a", 10.050)
    assert gatherer.due() == pytest.approx(10.100)
    assert gatherer.take() == ["a", "b"]
    assert gatherer.due() is None
    assert gatherer.take() == []
    gatherer.note("a", 20.0, is_gone=True)  # by an editor that writes it anew
    assert gatherer.due() == pytest.approx(20.05)
    gatherer.note("a", 20.03)
    assert gatherer.due() == pytest.approx(20.04)


def test_changes_without_end_are_told_after_a_second() -> None:
    gatherer = Gatherer(0.05)
    for number in range(200):
        gatherer.note(f"{number}", 10.0 + number / 100)
    assert gatherer.due() == pytest.approx(11.0)
    assert len(gatherer.take()) == 200


def test_a_long_delay_holds() -> None:
    gatherer = Gatherer(5.0)
    gatherer.note("a", 10.0)
    gatherer.note("b", 10.0)
    assert gatherer.due() == pytest.approx(15.0)
