"""Every command and snippet of README and docs is run, or read by the tool that it is written for: see README.md."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.docs.checks import CHECKS
from tests.docs.markdown import Snippet, Words
from tests.docs.pages import pages, scenes, snippets
from tests.docs.scene import SHELLS, Outcome, Scene, isolated, missing
from tests.pki import Pki

SNIPPETS = snippets()
# Blocks that are only shown, with the reason on the page: few, or the word is an excuse.
MOST_SHOWN = 12


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.id)
def test_snippet(snippet: Snippet, tmp_path: Path, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> None:
    if snippet.language == "text" or "shown" in snippet.words:
        assert_nothing_to_run(snippet)
        return
    print(snippet.place)  # shown where it fails
    if check := CHECKS.get(snippet.language):
        check(snippet, tmp_path, pki)
    if staged(snippet):
        outcome = played(snippet, tmp_path_factory, pki)
        if outcome.trouble:
            pytest.fail(f"{snippet.place}: {outcome.trouble}\n{outcome.output}", pytrace=False)
    else:
        assert check, f'no language that is checked: "{snippet.language}"'


def staged(snippet: Snippet) -> bool:
    return any(snippet in scene for scene in scenes(pages()[snippet.page]))


def played(snippet: Snippet, directories: pytest.TempPathFactory, pki: Pki) -> Outcome:
    """What came of a block in its scene, which is played once."""
    if not isolated():
        pytest.skip("no namespaces of one's own here (unshare, ip): blocks are not run")
    scene = next(scene for scene in scenes(pages()[snippet.page]) if snippet in scene)
    if absent := missing(scene):
        pytest.skip(f"{', '.join(absent)} is not installed")
    return play(scene, directories, pki)[snippet.id]


_PLAYED: dict[tuple[Snippet, ...], dict[str, Outcome]] = {}


def play(blocks: tuple[Snippet, ...], directories: pytest.TempPathFactory, pki: Pki) -> dict[str, Outcome]:
    if blocks not in _PLAYED:
        certificates = {"cert.pem": pki.certfile, "key.pem": pki.keyfile, "ca.pem": pki.ca_file}
        scene = Scene(blocks, directories.mktemp("scene"), certificates)
        scene.run()
        _PLAYED[blocks] = scene.outcomes
    return _PLAYED[blocks]


def assert_nothing_to_run(snippet: Snippet) -> None:
    """What is called text holds no commands."""
    typed = [line for line in snippet.text.splitlines() if line.lstrip().startswith("$ ")]
    assert snippet.language != "text" or not typed, f"{snippet.place}: commands, in a block of text: {typed}"


@cache
def words_of(comment: str) -> Words:
    return Words.of(comment)


def test_each_block_has_a_language_and_words_that_there_are() -> None:
    wrong = []
    for snippet in SNIPPETS:
        if snippet.language not in {*CHECKS, *SHELLS, "text"} and "shown" not in snippet.comment:
            wrong.append(f'{snippet.place}: no language that is checked: "{snippet.language}"')
        try:
            words_of(snippet.comment)
        except ValueError as error:
            wrong.append(f"{snippet.place}: {error}")
    wrong += [f"{page.name}:{line}: a comment for no block" for page in pages().values() for line in page.stray]
    assert not wrong, "\n".join(wrong)


def test_ids_are_unique() -> None:
    assert [one for one, count in Counter(snippet.id for snippet in SNIPPETS).items() if count > 1] == []


def test_few_blocks_are_only_shown() -> None:
    shown = [f"{one.place}: {one.words.one('shown')}" for one in SNIPPETS if "shown" in one.words]
    assert len(shown) <= MOST_SHOWN, "\n".join(shown)
