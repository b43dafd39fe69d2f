"""The reader of Markdown: pages in, blocks, headings, links and code out."""

from __future__ import annotations

import pytest

from tests.docs.markdown import Command, Words, commands, read, slug

PAGE = """\
# A page: `code`, and more

Some `asgiri --reload` in prose, ``with ` inside``, and a [link](other.md#there "title"), and
`broken over
lines`.

```sh
asgiri main:app   # `not` a [span](x.md)
```

## Twice

- an item

  <!-- snippet: with service NAME=a -->
  ```yaml
  proxy:
    trusted: []

  ```

## Twice

=== "Tab"

\t~~~~python title="x.py"
\tif True:
\t    a = "```"
\t~~~~

<!-- snippet: then -->

````text
```
````

<a id="here"></a>[`key`](#twice-1)
"""


def test_blocks() -> None:
    found = [(one.id, one.line, one.language, one.comment, one.text) for one in read(PAGE, "p.md").snippets]
    assert found == [
        ("p.md#a-page-code-and-more-1", 7, "sh", "", "asgiri main:app   # `not` a [span](x.md)\n"),
        ("p.md#twice-1", 16, "yaml", "with service NAME=a", "proxy:\n  trusted: []\n\n"),
        ("p.md#twice-1-1", 26, "python", "", 'if True:\n    a = "```"\n'),
        ("p.md#twice-1-2", 33, "text", "", "```\n"),
    ]


def test_a_comment_without_a_block_is_told() -> None:
    assert read(PAGE).stray == (31,)
    assert read("<!-- snippet: then -->").stray == (1,)
    assert read("<!-- snippet: then -->\n```sh\n```").stray == ()


def test_what_is_not_in_blocks() -> None:
    page = read(PAGE)
    assert page.spans() == [
        (1, "code"),
        (3, "asgiri --reload"),
        (3, "with ` inside"),
        (4, "broken over lines"),
        (37, "key"),
    ]
    assert page.links() == [(3, "other.md#there"), (37, "#twice-1")]
    assert page.anchors == {"a-page-code-and-more", "twice", "twice-1", "here"}


def test_a_block_without_an_end() -> None:
    with pytest.raises(ValueError, match=r"^p\.md:2: the block is never closed$"):
        read("\n```sh\nasgiri", "p.md")


def test_a_longer_or_another_fence_does_not_end_it() -> None:
    (one,) = read("````\n```\n~~~~\n`````\n").snippets
    assert (one.text, one.language) == ("```\n~~~~\n", "")


def test_hashes_in_a_block_are_no_headings() -> None:
    assert read("```ini\n# asgiri.socket\n```").anchors == frozenset()


# As github-slugger has them.
@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("Before a start or a reload: `--check-config`", "before-a-start-or-a-reload---check-config"),
        ("Health: /livez and /readyz", "health-livez-and-readyz"),
        ("Applications that are not ASGI 3", "applications-that-are-not-asgi-3"),
        ("[Linked](x.md) and _under_score", "linked-and-_under_score"),
    ],
)
def test_slugs(title: str, anchor: str) -> None:
    assert slug(title) == anchor


def test_words() -> None:
    words = Words.of("then file main.py in spec.template with certificates A='b c'")
    assert words.flags == {"then"}
    assert (words.one("file"), words.one("in"), words.all("with")) == (
        "main.py",
        "spec.template",
        ("certificates", "A=b c"),
    )
    assert "shown" not in words
    assert "then" in words
    assert Words.of("shown: it needs two machines").one("shown") == "it needs two machines"
    assert not Words.of("").flags


@pytest.mark.parametrize("comment", ["thne", "file", "shown", "shown: no", "with", "in"])
def test_wrong_words(comment: str) -> None:
    with pytest.raises(ValueError, match=r'no such word|nothing behind|"shown" has no reason'):
        Words.of(comment)


def test_commands_of_a_console() -> None:
    text = "$ echo a \\\n>   b\na b\n...\n\n$ true\n$ cat\n\nlate\n"
    assert commands(text) == [
        Command(1, "echo a \\\n  b", ("a b", "...")),
        Command(6, "true", ()),
        Command(7, "cat", ("", "late")),
    ]
    with pytest.raises(ValueError, match="output before any command"):
        commands("late\n$ true\n")
