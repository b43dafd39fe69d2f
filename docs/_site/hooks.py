"""MkDocs hooks: what the pages link to outside docs/ comes along.

On GitHub a link to ../config/production.yaml shows that file. There is no repository that a site could link to, so each
such file, and each folder with the files in it, gets a page of its own below files/: its text as it is, highlighted.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

HOME: Final = "files"
LINK: Final = re.compile(r"(?<=\]\()(\.\./[^)#\s]*)(?=[)#])")
FENCE: Final = re.compile(r"^( *)(`{3,}|~{3,})[^\n]*\n.*?^\1\2[`~]* *$", re.MULTILINE | re.DOTALL)
# A heading with an anchor of its own, as the generated reference has one for each key.
ANCHOR: Final = re.compile(r'^(#+) <a id="([^"]+)"></a>(.*)$', re.MULTILINE)
# A table's cell in which code has a bar: GitHub wants it escaped, Python-Markdown takes it as it is.
CODE: Final = re.compile(r"`[^`\n]+`")
LANGUAGES: Final = {
    ".conf": "nginx",
    ".hcl": "hcl",
    ".json": "json",
    ".lua": "lua",
    ".py": "python",
    ".service": "ini",
    ".sh": "sh",
    ".socket": "ini",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file and folder outside docs/ that a page links to."""
    root, docs = roots(config)
    found: dict[str, None] = {}  # a set that keeps its order
    for file in files.documentation_pages():
        for target in outside(file.content_string, file.src_uri, root, docs):
            found.update(dict.fromkeys([target, *(f"{target}/{name}" for name in members(root / target))]))
    for target in found:
        page = File.generated(config, page_of(target), content=shown(root, target), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Lead the links there, give headings their anchors as ids, and mend code in tables."""
    root, docs = roots(config)
    here = page.file.src_uri

    def led(found: re.Match[str]) -> str:
        target = resolved(found[1], here, root, docs)
        return found[1] if target is None else posixpath.relpath(page_of(target), posixpath.dirname(here) or ".")

    def changed(prose: str) -> str:
        prose = CODE.sub(lambda code: code[0].replace("\\|", "|"), prose)
        return ANCHOR.sub(r"\1 \3 {#\2}", LINK.sub(led, prose))

    return outside_fences(markdown, changed)


def roots(config: MkDocsConfig) -> tuple[Path, str]:
    """The checkout, and where in it the pages are (``docs``)."""
    docs = Path(config.docs_dir)
    return docs.parent, docs.name


def outside(markdown: str, here: str, root: Path, docs: str) -> Iterator[str]:
    """What a page links to that is there, but not within docs/, as paths in the checkout."""
    for link in LINK.findall(FENCE.sub("", markdown)):
        if (target := resolved(link, here, root, docs)) is not None:
            yield target


def resolved(link: str, here: str, root: Path, docs: str) -> str | None:
    """The path in the checkout that a link of the page ``here`` means; None within docs/, or where nothing is.

    Of the latter MkDocs itself says that it leads nowhere.
    """
    target = posixpath.normpath(posixpath.join(docs, posixpath.dirname(here), link))
    if target.split("/")[0] in (docs, "..", ".") or not (root / target).exists():
        return None
    return target


def members(folder: Path) -> list[str]:
    """The names of the files right in a folder; nothing for what is none."""
    if not folder.is_dir():
        return []
    return sorted(one.name for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))


def page_of(target: str) -> str:
    return f"{HOME}/{target}.md"


def shown(root: Path, target: str) -> str:
    """The page of a file, or of a folder, as Markdown."""
    path = root / target
    if path.is_dir():
        return f"# {target}/\n\n" + "".join(f"- [{name}]({path.name}/{name}.md)\n" for name in members(path))
    text = path.read_text("utf-8")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    language = "dockerfile" if path.name.startswith("Dockerfile") else LANGUAGES.get(path.suffix, "text")
    return f"# {target}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    """The page with its prose changed, and its code as it is."""
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])
