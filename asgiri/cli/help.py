"""``asgiri --help``: the flags under their headings, described as the schema describes their keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from asgiri.cli.flags import FLAGS, key_at, words

if TYPE_CHECKING:
    import click

    from asgiri.cli.flags import Flag
    from asgiri.config.keys import Key

EXAMPLES: Final = """\
Examples:
  asgiri                                  the demo, on http://127.0.0.1:8000
  asgiri -w 4 -b 0.0.0.0:8000 main:app    four workers for main.py's app
  asgiri -c /etc/asgiri/asgiri.yaml       everything else is in the file
"""

# The flags have as many columns, on the whole page: descriptions stand under each other.
_COLUMN: Final = 22

# Null is a word of the file; who leaves a flag out has the default.
_NULL: Final = re.compile(r"\bnull(?: is|:) ")


def write_flags(formatter: click.HelpFormatter) -> None:
    """All flags, group by group, in the order of the table."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for flag in FLAGS:
        if not flag.is_argument:
            groups.setdefault(flag.group, []).append((spelling(flag).ljust(_COLUMN), description(flag)))
    *_, last = groups
    groups[last].append(("-h, --help".ljust(_COLUMN), "Show this page and exit."))
    for group, rows in groups.items():
        with formatter.section(group):
            formatter.write_dl(rows, col_max=_COLUMN)


def write_examples(formatter: click.HelpFormatter) -> None:
    formatter.write_paragraph()
    formatter.write(EXAMPLES)


def spelling(flag: Flag) -> str:
    """The flag as it is typed, with what it takes: ``-w, --workers N|auto``."""
    names = ", ".join(flag.names) + (f" / {flag.off}" if flag.off else "")
    return f"{names} {_value(flag)}" if flag.value else names


def _value(flag: Flag) -> str:
    found = words(flag)
    if not found:
        return flag.value
    if flag.key and len(key_at(flag.key).types) > 1:  # a number, say, or a word
        return "|".join((flag.value, *found))
    return f"[{'|'.join(found)}]"


def description(flag: Flag) -> str:
    """What the flag is for. Of one that sets a key the schema knows it; of one that fills a list, what an entry is."""
    if not flag.key:
        return flag.text
    key = key_at(flag.key)
    entry = key_at(f"{flag.key}[].{key.entry}") if key.entry else key
    text = _NULL.sub("default: ", str(entry.meta.description))
    if flag.repeats:
        text += " Repeatable."
    if default := _default(key):
        text += f" [default: {default}]"
    return text


def _default(key: Key) -> str:
    """The default as it is typed; empty where leaving a flag out needs no explanation."""
    if key.entry and isinstance(key.default, tuple):
        return ", ".join(str(getattr(one, key.entry)) for one in key.default)
    if isinstance(key.default, tuple):
        return ", ".join(map(str, key.default))
    if key.default is True:
        return "yes"
    return "" if key.default in (None, False, "") else str(key.default)
