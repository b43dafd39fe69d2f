"""The pages of the project, each read once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.docs.markdown import Page, Snippet, read

ROOT = Path(__file__).resolve().parents[2]


@cache
def pages() -> dict[str, Page]:
    """By path from the checkout: README.md, and all below docs/."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [str(path.relative_to(ROOT)) for path in found]
    return {name: read(path.read_text("utf-8"), name) for name, path in zip(names, found, strict=True)}


def snippets() -> list[Snippet]:
    return [snippet for page in pages().values() for snippet in page.snippets]


def scenes(page: Page) -> list[tuple[Snippet, ...]]:
    """The blocks of a page that a shell runs, those together that go on (``then``) from the one above."""
    from tests.docs.scene import SHELLS

    found: list[list[Snippet]] = []
    for snippet in page.snippets:
        staged = snippet.language in SHELLS or "file" in snippet.words
        if "shown" in snippet.words or not staged:
            continue
        if "then" in snippet.words and found:
            found[-1].append(snippet)
        else:
            found.append([snippet])
    return [tuple(one) for one in found]
