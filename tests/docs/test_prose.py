"""What README and docs name is there: commands, keys, variables, flags, metrics, files; and links lead somewhere."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import click
import pytest

from asgiri.config.load import load
from asgiri.config.schema import Config
from asgiri.ctl.command import command as ctl
from asgiri.errors import ConfigError
from tests.docs import names
from tests.docs.checks import parse_asgiri, within
from tests.docs.markdown import Page
from tests.docs.pages import ROOT, pages

PAGES = sorted(pages())

# They tell of what was, or of other servers: what stands there need not be ours, or be there today.
PAST = {"docs/changelog.md"}
OTHERS = {"docs/guide/migrating.md", "docs/benchmarks.md"}

# Flags of other programs that the pages speak of.
FOREIGN_FLAGS = {"--install-cert", "--reloadcmd"}  # acme.sh
FOREIGN_FLAGS |= {"--seconds", "--limit-concurrency", "--backpressure"}  # tests.bench, uvicorn, granian
FOREIGN_FLAGS |= {"--ulimit", "--kill-who", "--kill-whom"}  # docker, systemctl

# Messages of ASGI that are called as a section of the file is.
MESSAGES = re.compile(
    r"(http|websocket|lifespan)\.(connect|accept|send|receive|close|disconnect|request|http\.|startup|shutdown).*"
)

# What stands for something in a command that is shown: a word in capitals, or one in angle brackets.
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|<[\w -]+>|\.\.\.|…")


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> Page:
    return pages()[request.param]


def assert_none(page: Page, found: Iterator[tuple[int, str]]) -> None:
    wrong = [f"{page.name}:{line}: {what}" for line, what in found]
    assert not wrong, "\n".join(wrong)


# Links


def test_links_lead_somewhere(page: Page) -> None:
    assert_none(page, broken_links(page))


def broken_links(page: Page) -> Iterator[tuple[int, str]]:
    for line, target in page.links():
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / page.name).parent.joinpath(path).resolve() if path else ROOT / page.name
        if not found.exists() or (found.is_dir() and found.is_relative_to(ROOT / "docs")):
            yield line, f"there is no {target}"  # what is below docs/ is a site, and a folder there is no page
        elif anchor:
            name = str(found.relative_to(ROOT))
            if name in pages() and anchor not in pages()[name].anchors:
                yield line, f"there is no heading for {target}"


# Commands


def test_commands_of_ours_parse(page: Page) -> None:
    if page.name not in PAST:
        assert_none(page, wrong_commands(page))


def wrong_commands(page: Page) -> Iterator[tuple[int, str]]:
    for line, span in page.spans():
        for words in commands_in(span):
            try:
                parse(words)
            except (click.ClickException, ConfigError) as error:
                yield line, f"`{span}`: {error.message if isinstance(error, click.ClickException) else error}"


def commands_in(span: str) -> Iterator[list[str]]:
    """The commands of ours in what stands between backticks, each as its words."""
    span = re.sub(r"<\([^)]*\)", "FILE", span)
    try:
        parts = list(shlex.shlex(span, posix=True, punctuation_chars=";&|"))
        words = shlex.split(span)
    except ValueError:
        return
    if not any(re.fullmatch(r"[;&|]+", part) for part in parts):
        found = [words]
    else:
        found = [shlex.split(part) for part in re.split(r"&&|\|\||;|\||&", span)]
    for one in found:
        while one and re.fullmatch(r"[A-Z_]+=.*", one[0]):
            one.pop(0)
        if one[:3] in (["python", "-m", "asgiri"], ["python3", "-m", "asgiri"]):
            one = ["asgiri", *one[3:]]
        if (
            one
            and one[0] in ("asgiri", "asgirictl")
            and len(one) > 1
            and not re.match(r"\d+\.\d|<|\[OPTIONS\]", one[1])
        ):
            yield one


def parse(words: list[str]) -> None:
    """The command is one of ours: flags and verbs are there, and values are good where they are no placeholders."""
    name, *arguments = words
    arguments = [word for word in arguments if word not in ("...", "…")]
    if name == "asgirictl":
        parse_ctl(["1" if PLACEHOLDER.fullmatch(word.strip("[]")) else word for word in arguments])
    elif any(PLACEHOLDER.search(word) for word in arguments):
        from asgiri.cli.command import command

        command.make_context("asgiri", arguments)
    else:
        parse_asgiri(arguments)


def parse_ctl(arguments: list[str]) -> None:
    """Options before the verb, the verb, and what is its own. click's errors."""
    if {"-h", "--help", "--version"} & set(arguments):
        return
    context = click.Context(ctl, info_name="asgirictl")
    _, (verb, *own), _ = ctl.make_parser(context).parse_args(list(arguments))
    if (found := ctl.get_command(context, verb)) is None:
        raise click.UsageError(f"no verb {verb}")
    found.make_context(verb, own, parent=context)


def test_flags_are_flags(page: Page) -> None:
    if page.name not in PAST | OTHERS:
        assert_none(page, unknown_flags(page))


def unknown_flags(page: Page) -> Iterator[tuple[int, str]]:
    """Flags that stand alone: those behind a command are of that command."""
    known = names.flags() | names.ctl_flags() | FOREIGN_FLAGS
    for line, span in page.spans():
        if (found := re.match(r"(--[a-z][\w-]*)(?:[ =].*)?$", span)) and found[1] not in known:
            yield line, f"`{span}`: no flag of asgiri's or asgirictl's"


# Keys and variables


def test_keys_are_keys(page: Page) -> None:
    if page.name not in PAST:
        assert_none(page, unknown_keys(page))


_PATH = re.compile(r"[a-z0-9_]+(?:\[\])?(?:\.(?:[a-z0-9_]+(?:\[\])?))+")


def unknown_keys(page: Page) -> Iterator[tuple[int, str]]:
    for line, span in page.spans():
        path = span.partition(":")[0].partition("=")[0].strip()
        first = path.partition(".")[0].removesuffix("[]")
        if (
            "<" in span
            or not _PATH.fullmatch(path)
            or first not in names.sections()
            or path.endswith((".py", ".md", ".yaml", ".js"))
        ):
            continue
        if not names.is_key(path) and not MESSAGES.fullmatch(path):
            yield line, f"`{span}`: there is no key {path}"


def test_values_of_keys_load(page: Page, tmp_path: Path) -> None:
    if page.name not in PAST:
        assert_none(page, wrong_values(page, tmp_path / "asgiri.yaml"))


def wrong_values(page: Page, file: Path) -> Iterator[tuple[int, str]]:
    """``limits.requests: 64``, ``proxy: {trusted: [127.0.0.1]}``: as the file has it."""
    for line, span in page.spans():
        path, colon, value = span.partition(": ")
        if not colon or not re.fullmatch(r"[a-z0-9_.]+", path) or not names.is_key(path) or "..." in value:
            continue
        if PLACEHOLDER.fullmatch(value) or "<" in value:
            continue
        *above, name = path.split(".")
        file.write_text(within(f"{name}: {value}", ".".join(above)), "utf-8")
        try:
            load(str(file), {})
        except ConfigError as error:
            yield line, f"`{span}`: {error}"


def test_defaults_are_the_defaults(page: Page, tmp_path: Path) -> None:
    if page.name not in PAST:
        assert_none(page, wrong_defaults(page, tmp_path / "asgiri.yaml"))


def wrong_defaults(page: Page, file: Path) -> Iterator[tuple[int, str]]:
    """A number, duration or size in parentheses behind a key is what the key is where nobody says anything."""
    for number, line in enumerate(page.prose, 1):
        for path, said in re.findall(r"`([a-z0-9_]+\.[a-z0-9_.]+)` \((\d+ ?(?:[a-z]{1,2}|[KMG]iB)?)\)", line):
            if not names.is_key(path):
                continue
            *above, name = path.split(".")
            file.write_text(within(f"{name}: {said.replace(' ', '')}", ".".join(above)), "utf-8")
            get = attrgetter(path)
            if get(load(str(file), {}).config) != get(Config()):
                yield number, f"`{path}` ({said}): that is not its default"


def test_variables_are_read(page: Page) -> None:
    assert_none(page, unknown_variables(page))


def unknown_variables(page: Page) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(page.text.splitlines(), 1):
        for name in re.findall(r"(?<![\w])ASGIRI_[A-Z0-9_]+", line):
            if name not in names.environment() and "_SERVICE_" not in name:
                yield number, f"{name} is no variable that asgiri reads"


# Signals


def test_signals_are_signals(page: Page) -> None:
    assert_none(page, unknown_signals(page))


def unknown_signals(page: Page) -> Iterator[tuple[int, str]]:
    for line, span in page.spans():
        for name in re.findall(r"\bkill -(?:s )?([A-Z]\w*)|\bSIG([A-Z]\w*)", span):
            if f"SIG{name[0] or name[1]}" not in signal.Signals.__members__:
                yield line, f"`{span}`: there is no signal {name[0] or name[1]}"


# Metrics


def test_metrics_are_counted(page: Page) -> None:
    if page.name not in PAST:
        assert_none(page, unknown_metrics(page))


def unknown_metrics(page: Page) -> Iterator[tuple[int, str]]:
    """With their labels, where some stand behind them, and the values that those of the catalogue can have."""
    for line, span in page.spans():
        for name, labels in re.findall(r"\b(asgiri_[a-z_]+)(\{[^}]*\})?", span):
            if name not in names.metric_names():
                if not any(other.startswith(name) for other in names.metric_names()) or not span.endswith(("_", "*")):
                    yield line, f"`{span}`: there is no metric {name}"
                continue
            named = re.findall(r"(\w+)(?:(?:=~|!~|!=|=)\"[^\"]*\"(?:\|\"[^\"]*\")*)?(?:,|\}|$)", labels)
            if unknown := set(named) - names.labels_of(name):
                yield line, f"`{span}`: {name} has no labels {sorted(unknown)}"


# Files


def test_files_are_there(page: Page) -> None:
    if page.name not in PAST:
        assert_none(page, missing_files(page))


def missing_files(page: Page) -> Iterator[tuple[int, str]]:
    """Of the checkout: below asgiri/, from the root, or beside the page. ``python -m MODULE`` of ours, too."""
    for line, span in page.spans():
        if found := re.match(r"(?:python3? -m )((?:tests|asgiri)(?:\.\w+)+)", span):
            path = ROOT.joinpath(*found[1].split("."))
            if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
                yield line, f"`{span}`: there is no module {found[1]}"
        elif re.fullmatch(r"[a-z0-9_]+/[\w./-]*\w\.(?:py|md|yaml|json|service|socket)", span):
            bases = (ROOT, ROOT / "asgiri", (ROOT / page.name).parent)
            ours = any((base / span.partition("/")[0]).is_dir() for base in bases) and not re.search("[A-Z]{2}", span)
            if ours and not any((base / span).exists() for base in bases):
                yield line, f"there is no {span}"
