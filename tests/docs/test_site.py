"""The documentation as a site: it is built without a warning, whole, and asks nobody else for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
import yaml

from docs._site.diagrams import ASSETS, CHARACTER, DIAGRAMS, WIDTH

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SVG = "{http://www.w3.org/2000/svg}"


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, in which a tag calls a function."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SETTINGS: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Settings)


def in_nav(entry: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for one in entry.values() if isinstance(entry, dict) else entry:
            yield from in_nav(one)


def test_the_navigation_has_every_page_once() -> None:
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(in_nav(SETTINGS["nav"])) == sorted(pages)


class Document(HTMLParser):
    """What one page says of itself: ids, links, what it loads, images, and what a reader should be told."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.problems: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links += [given["href"]] if "href" in given else []
        else:
            self.loads += [
                given[name] for name in ("src", "href", "srcset", "data", "poster", "action") if given.get(name)
            ]
        if tag == "img" and not given.get("alt"):
            self.problems.append(f"an image without a text: {given.get('src')}")
        if tag == "html" and not given.get("lang"):
            self.problems.append("no language")


def is_elsewhere(link: str) -> bool:
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def built(directory: Path) -> dict[Path, Document]:
    """The pages of the site, which is built there: a warning fails it."""
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return {path: Document(path.read_text("utf-8")) for path in directory.rglob("*.html") if path.name != "404.html"}


def targets(path: Path, document: Document) -> Iterator[tuple[str, Path, str]]:
    """Each link of a page to another one, or to a place in one: as it stands, the file, and the anchor."""
    for link in document.links:
        if not is_elsewhere(link):
            parts = urlsplit(link)
            yield link, (path.parent / unquote(parts.path)).resolve() if parts.path else path, unquote(parts.fragment)


def faults(directory: Path, pages: dict[Path, Document]) -> Iterator[str]:
    """What is wrong with a site that was built."""
    reached = {directory / "index.html"}
    waiting = [*reached]
    while waiting:
        path = waiting.pop()
        found = {file for _, file, _ in targets(path, pages[path]) if file in pages} - reached
        reached |= found
        waiting += found
    yield from (f"{path}: no page links to it" for path in pages.keys() - reached)
    for path, document in pages.items():
        yield from (f"{path}: {problem}" for problem in document.problems)
        yield from (f"{path}: the id {one} is there twice" for one in set(document.ids) if document.ids.count(one) > 1)
        for link, file, anchor in targets(path, document):
            if not file.exists() or (anchor and file in pages and anchor not in pages[file].ids):
                yield f"{path}: {link} leads nowhere"
        for link in document.loads:
            if is_elsewhere(link) and not link.startswith("data:"):
                yield f"{path}: loads {link}"
            elif not (path.parent / unquote(urlsplit(link).path)).exists():
                yield f"{path}: {link} is not there"
    for path in directory.rglob("*.css"):
        for link in re.findall(r"""(?:url\(|@import)\s*["']?([^"')]+)""", path.read_text("utf-8")):
            if is_elsewhere(link) and not link.startswith("data:"):
                yield f"{path}: loads {link}"


# One test, for it is one build.
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install '.[docs]'")
    pages = built(tmp_path)
    assert len(pages) > len(list(in_nav(SETTINGS["nav"])))  # files of the checkout came along
    assert sorted(faults(tmp_path, pages)) == []


# What the pages link to outside docs/


def test_what_is_outside_docs_gets_a_page() -> None:
    hooks = pytest.importorskip("docs._site.hooks", reason="mkdocs is not installed: pip install '.[docs]'")
    text = "[a](../../config/production.yaml) [b](../../config/) [c](../start.md) [d](../../no/such) [e](https://x.example)"
    assert [*hooks.outside(text, "guide/tls.md", ROOT, "docs")] == ["config/production.yaml", "config"]
    assert [*hooks.outside(f"```text\n{text}\n```\n", "guide/tls.md", ROOT, "docs")] == []
    assert hooks.page_of("config/production.yaml") == "files/config/production.yaml.md"
    assert "- [production.yaml](config/production.yaml.md)\n" in hooks.shown(ROOT, "config")
    assert "asgiri.schema.json" in hooks.members(ROOT / "config")


def test_a_file_is_shown_as_it_is(tmp_path: Path) -> None:
    hooks = pytest.importorskip("docs._site.hooks", reason="mkdocs is not installed: pip install '.[docs]'")
    (tmp_path / "a.md").write_text("```sh\ntrue\n```\n", "utf-8")
    assert hooks.shown(tmp_path, "a.md") == "# a.md\n\n````text\n```sh\ntrue\n```\n````\n"
    (tmp_path / "Dockerfile").write_text("FROM scratch\n", "utf-8")
    assert "```dockerfile\nFROM scratch\n```" in hooks.shown(tmp_path, "Dockerfile")


# The diagrams


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_fresh(name: str) -> None:
    assert (ASSETS / name).read_text("utf-8") == DIAGRAMS[name].svg(), "run python -m docs._site.diagrams"


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_can_be_read(name: str) -> None:
    picture = ElementTree.fromstring(DIAGRAMS[name].svg())
    assert picture.findtext(f"{SVG}title")
    assert len(picture.findtext(f"{SVG}desc", "").split(". ")) > 5
    for text in picture.iter(f"{SVG}text"):
        half = len(text.text or "") * CHARACTER / 2
        if text.get("text-anchor") == "middle":
            assert half <= float(text.get("x", 0)) <= WIDTH - half, text.text
