"""What a page of Markdown has in it, as GitHub reads it: fenced blocks, headings, links, code in the prose. Pure.

Blocks come with what the comment on the line before their fence says: ``<!-- snippet: WORDS -->``. README.md beside
this file has the words.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

# CommonMark 4.5: three or more backticks or tildes; behind backticks there is no other one on the line.
_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<marks>`{3,}|~{3,})[ \t]*(?P<info>[^`]*?)[ \t]*")
_COMMENT = re.compile(r"[ \t]*<!--[ \t]*snippet:[ \t]*(?P<words>.*?)[ \t]*-->[ \t]*")
_HEADING = re.compile(r"(?P<marks>#{1,6})[ \t]+(?P<title>.*?)(?:[ \t]+#+)?[ \t]*")
_ANCHOR = re.compile(r'<a (?:id|name)="([^"]+)"></a>')
_LINK = re.compile(r"!?\[[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*\]\((?P<target>[^()\s]+(?:\([^()\s]*\))?)(?:\s+\"[^\"]*\")?\)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fenced block. ``line`` is that of its fence; ``heading`` the slug of the last heading above it; ``words`` are
    what the comment says, ``text`` is without the fence's own indentation.
    """

    page: str
    line: int
    heading: str
    ordinal: int  # among those below the heading, from 1 on
    language: str
    comment: str
    text: str

    @property
    def id(self) -> str:
        """Stays when lines are put in above: page, heading, and which one below it."""
        return f"{self.page}#{self.heading}-{self.ordinal}"

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @cached_property
    def words(self) -> Words:
        return Words.of(self.comment)


@dataclass(frozen=True)
class Words:
    """What a comment says, taken apart. ``flags`` are words without anything behind them."""

    flags: frozenset[str]
    values: dict[str, tuple[str, ...]]

    # Words that take what is behind them, and how many: 0 is all, to the end.
    TAKES: ClassVar[dict[str, int]] = {"shown": 0, "with": 0, "file": 1, "in": 1, "fails": 1}
    ALONE: ClassVar = frozenset({"then", "kubernetes", "prometheus", "compose", "envoy"})

    @classmethod
    def of(cls, comment: str) -> Words:
        """ValueError for a word that there is not, or one without what belongs to it."""
        if comment.startswith("shown"):
            reason = comment.removeprefix("shown").removeprefix(":").strip()
            if len(reason.split()) < 3:
                raise ValueError(f'"shown" has no reason: "{comment}"')
            return cls(frozenset(), {"shown": (reason,)})
        flags, values = set(), {}
        words = shlex.split(comment)
        while words:
            word = words.pop(0)
            if word in cls.ALONE:
                flags.add(word)
            elif word in cls.TAKES:
                count = cls.TAKES[word] or len(words)
                taken, words = tuple(words[:count]), words[count:]
                if not taken or len(taken) < count:
                    raise ValueError(f'nothing behind "{word}": "{comment}"')
                values[word] = taken
            else:
                raise ValueError(f'no such word of a snippet\'s: "{word}"')
        return cls(frozenset(flags), values)

    def __contains__(self, word: object) -> bool:
        return word in self.flags or word in self.values

    def __bool__(self) -> bool:
        return bool(self.flags or self.values)

    def one(self, word: str, otherwise: str = "") -> str:
        return self.values.get(word, (otherwise,))[0]

    def all(self, word: str) -> tuple[str, ...]:
        return self.values.get(word, ())


@dataclass(frozen=True)
class Page:
    """A page, taken apart. ``prose`` has the lines that are in no block, and an empty one for each that is."""

    name: str
    text: str = field(repr=False)
    snippets: tuple[Snippet, ...]
    anchors: frozenset[str]
    prose: tuple[str, ...]
    stray: tuple[int, ...]  # lines of comments that no fence follows

    def links(self) -> list[tuple[int, str]]:
        """Line and target of each link, code left out."""
        text = _SPAN.sub(lambda span: re.sub(r"[^\n]", "x", span[0]), "\n".join(self.prose))
        return [(_line(text, found.start()), found["target"]) for found in _LINK.finditer(text)]

    def spans(self) -> list[tuple[int, str]]:
        """Line and text of what stands between backticks in the prose; one that goes over a line's end is one line."""
        text = "\n".join(self.prose)
        return [(_line(text, found.start()), " ".join(found[2].split())) for found in _SPAN.finditer(text)]


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def read(text: str, name: str = "page.md") -> Page:
    """The page. ValueError for a fence that is never closed."""
    return _Reader(name).read(text)


def slug(title: str) -> str:
    """The anchor that GitHub makes of a heading: code and links by their text, lower case, no punctuation."""
    title = re.sub(r"<[^>]+>", "", title)
    title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title)
    title = re.sub(r"[^\w\- ]", "", title.replace("`", "").strip().lower())
    return title.replace(" ", "-")


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name
        self._snippets: list[Snippet] = []
        self._anchors: set[str] = set()
        self._prose: list[str] = []
        self._stray: list[int] = []
        self._heading = "top"
        self._seen: Counter[str] = Counter()
        self._blocks = 0

    def read(self, text: str) -> Page:
        lines = text.splitlines()
        at = 0
        while at < len(lines):
            line = lines[at]
            fence = _FENCE.fullmatch(line)
            if fence:
                at = self._block(lines, at, fence)
                continue
            if _COMMENT.fullmatch(line) and not (at + 1 < len(lines) and _FENCE.fullmatch(lines[at + 1])):
                self._stray.append(at + 1)
            self._outside(line)
            at += 1
        return Page(
            self._name, text, tuple(self._snippets), frozenset(self._anchors), tuple(self._prose), tuple(self._stray)
        )

    def _outside(self, line: str) -> None:
        self._prose.append(line)
        self._anchors.update(_ANCHOR.findall(line))
        if heading := _HEADING.fullmatch(line):
            name = slug(heading["title"])
            again = self._seen[name]
            self._seen[name] += 1
            self._heading = f"{name}-{again}" if again else name
            self._anchors.add(self._heading)
            self._blocks = 0

    def _block(self, lines: list[str], at: int, fence: re.Match[str]) -> int:
        """Take the block that begins at this line; which line is behind it."""
        closing = re.compile(rf"[ \t]*{re.escape(fence['marks'][0])}{{{len(fence['marks'])},}}[ \t]*")
        end = next((number for number in range(at + 1, len(lines)) if closing.fullmatch(lines[number])), None)
        if end is None:
            raise ValueError(f"{self._name}:{at + 1}: the block is never closed")
        before = _COMMENT.fullmatch(lines[at - 1]) if at else None
        self._blocks += 1
        body = [_dedented(line, fence["indent"]) for line in lines[at + 1 : end]]
        self._snippets.append(
            Snippet(
                page=self._name,
                line=at + 1,
                heading=self._heading,
                ordinal=self._blocks,
                language=fence["info"].split(" ")[0].lower(),
                comment=before["words"] if before else "",
                text="".join(f"{line}\n" for line in body),
            )
        )
        self._prose.extend([""] * (end + 1 - at))
        return end + 1


def _dedented(line: str, indent: str) -> str:
    """The line without as much of the fence's indentation as it has; a tab is four columns."""
    if not indent:
        return line
    rest = line.lstrip(" \t")
    lead = line[: len(line) - len(rest)].expandtabs(4)
    return lead[len(indent.expandtabs(4)) :] + rest


@dataclass(frozen=True)
class Command:
    """A ``$ `` line of a console block with what continues it, and what must come out."""

    line: int  # in the block, from 1 on
    command: str
    output: tuple[str, ...]


def commands(text: str) -> list[Command]:
    """The commands of a console block. ValueError where output stands before the first one."""
    found: list[tuple[int, list[str], list[str]]] = []
    continued = False
    for number, line in enumerate(text.splitlines(), 1):
        if continued:
            found[-1][1].append(line.removeprefix("> "))
        elif line.startswith("$ "):
            found.append((number, [line[2:]], []))
        elif found:
            found[-1][2].append(line)
        elif line.strip():
            raise ValueError(f"output before any command: {line!r}")
        continued = bool(found) and not found[-1][2] and found[-1][1][-1].endswith("\\")
    return [Command(number, "\n".join(lines), tuple(_trimmed(output))) for number, lines, output in found]


def _trimmed(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
