"""``python -m asgiri.cli.docs [--check]``: writes what is made of the schema and the flags, or says what is stale."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from asgiri.cli import commands
from asgiri.cli.flags import FLAGS
from asgiri.config.docs import reference
from asgiri.config.json_schema import json_schema_text
from asgiri.config.sample import sample

ROOT = Path(__file__).resolve().parents[2]


def flags() -> dict[str, list[str]]:
    """Dotted path of a key -> the flags that set it."""
    return {path: [*flag.names, *filter(None, [flag.off])] for flag in FLAGS if (path := flag.key or flag.each)}


GENERATED: dict[str, Callable[[], str]] = {
    "docs/reference/configuration.md": lambda: reference(flags()),
    "docs/reference/commands.md": commands.page,
    "config/asgiri.yaml": sample,
    "config/asgiri.schema.json": json_schema_text,
}


def stale(root: Path = ROOT) -> list[str]:
    """The generated files, by their path in the checkout, that are not what they would be if they were made now."""
    return [path for path, text in GENERATED.items() if _read(root / path) != text()]


def write(path: str, root: Path = ROOT) -> None:
    """Write one of the generated files."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(GENERATED[path](), "utf-8")


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return ""


def main(arguments: list[str], root: Path = ROOT) -> int:
    """The exit code: 0 when all is as it should be, with --check 1 when something is stale."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m asgiri.cli.docs [--check]", file=sys.stderr)
        return 2
    if not (root / "pyproject.toml").exists():
        print(f"{root} is no checkout of asgiri: an installed one has no documentation to write", file=sys.stderr)
        return 2
    found = stale(root)
    for path in found:
        if arguments:
            print(f"{path} is stale: run python -m asgiri.cli.docs", file=sys.stderr)
        else:
            write(path, root)
            print(f"{path} is written")
    return 1 if found and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
