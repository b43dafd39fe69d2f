"""What the pages for operators say of sums, keys, metrics and other pages is so: they are read by people in a hurry."""

from __future__ import annotations

import ast
import operator
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = ROOT / "docs" / "operations"
PAGES = [
    *(OPERATIONS / f"{name}.md" for name in ("runbook", "sizing", "tuning", "troubleshooting")),
    ROOT / "docs" / "security.md",
    ROOT / "docs" / "design" / "engines.md",
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

# ASGI's messages look like keys.
MESSAGES = ("lifespan.startup", "lifespan.shutdown", "websocket.disconnect", "websocket.http.")

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(text: str) -> float:
    """What a sum of numbers comes to, with ``x`` for times."""

    def of(node: ast.expr) -> float:
        match node:
            case ast.Constant(int() | float() as number):
                return number
            case ast.BinOp(left, sign, right):
                return float(OPERATORS[type(sign)](of(left), of(right)))
        raise AssertionError(f"this is no sum: {text}")

    return of(ast.parse(text.replace("x", "*"), mode="eval").body)


def test_the_sums_are_right() -> None:
    sums = [one for page in PAGES for one in re.findall(r"`([\d. x+/-]+) = (\d+)`", text_of(page))]
    assert len(sums) > 12
    assert [f"{left} = {value(left)}" for left, right in sums if round(value(left)) != int(right)] == []


def test_the_figures_of_the_overload_bench_are_those_of_its_page() -> None:
    """The worked example of Little's law stands on them."""
    bench = text_of(OPERATIONS / "overload.md")
    row = re.search(r"^\| asgiri, `limits.requests: (\d+)` \|(.*)$", bench, re.MULTILINE)
    assert row is not None
    best, served, p50 = re.findall(r"\d+(?= |$)", re.sub(r"\(.*?\)|\|", " ", row[2]).replace(" ms", ""))[:3]
    sizing = " ".join(text_of(OPERATIONS / "sizing.md").split())
    assert f"answers {best} requests a second" in sizing
    assert f"`{best} x 0.07 = {row[1]}`" in sizing
    assert f"`{served} x 0.0{p50} = " in sizing


@each_page
def test_every_key_that_is_named_is_one(page: Path) -> None:
    """The reference is generated of the schema, so its anchors are all keys and sections that there are."""
    keys = set(re.findall(r'<a id="([^"]+)">', text_of(ROOT / "docs/reference/configuration.md")))
    sections = {key.partition(".")[0] for key in keys}
    named = {name for name, _ in re.findall(r"`([a-z_0-9]+(?:\[\])?(?:\.[a-z_0-9]+)+)(: [^`]*)?`", text_of(page))}
    named = {name.replace("[]", "") for name in named}
    named = {name for name in named if name.partition(".")[0] in sections and not name.startswith(MESSAGES)}
    assert sorted(named - keys) == []


@each_page
def test_every_metric_that_is_named_is_one(page: Path) -> None:
    known = set(re.findall(r"\basgiri_\w+", text_of(OPERATIONS / "metrics.md")))
    named = set(re.findall(r"\basgiri_\w+", text_of(page)))
    assert sorted(named - known) == []


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text_of(page))
    broken = []
    for path, anchor in links:
        to = (page.parent / path).resolve() if path else page
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


@cache
def text_of(page: Path) -> str:
    return page.read_text("utf-8")


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page as GitHub and MkDocs make them of its headings, and those that it names itself."""
    outside = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    plain = (re.sub(r"<[^>]*>|[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings)
    return frozenset([*plain, *re.findall(r'<a id="([^"]+)">', text_of(page))])
