"""What is made of the schema: fresh, complete, and true. The sample is read as people use it, comments taken away."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from asgiri.cli import commands
from asgiri.cli.docs import GENERATED, flags, main, stale, write
from asgiri.cli.flags import FLAGS
from asgiri.config.docs import reference
from asgiri.config.keys import keys_of
from asgiri.config.load import Loaded, load
from asgiri.config.sample import sample
from asgiri.config.schema import Config, Listen, SniPair, Tls, Workers
from asgiri.config.settings import COMMON_VARIABLES, variables
from asgiri.ctl.command import command
from asgiri.errors import ExitCode
from asgiri.supervisor.signals import STOPS, VERBS
from tests.config.test_schema import EVERY_KEY

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "config").glob("*.yaml"))
PAGE = reference(flags())

NAMES = "|".join({path.rpartition(".")[2].rstrip("[]{}") for path in EVERY_KEY})
COMMENTED = re.compile(rf"^( *)# ( *(?:- )?(?:{NAMES}):(?: .*)?)$", re.MULTILINE)


def loaded(text: str, directory: Path) -> Loaded:
    file = directory / "asgiri.yaml"
    file.write_text(text, "utf-8")
    return load(str(file), {})


# Fresh


@pytest.mark.parametrize("path", GENERATED)
def test_what_is_generated_is_fresh(path: str) -> None:
    assert path not in stale(), "run python -m asgiri.cli.docs"


def test_what_is_generated_says_so_and_what_is_stale_is_told(tmp_path: Path) -> None:
    assert stale(tmp_path) == list(GENERATED)
    for path in GENERATED:
        write(path, tmp_path)
        assert "; change asgiri/c" in (tmp_path / path).read_text("utf-8")
    assert stale(tmp_path) == []
    (tmp_path / "config" / "asgiri.yaml").write_text("app: null\n", "utf-8")
    assert stale(tmp_path) == ["config/asgiri.yaml"]


def test_the_command_checks_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pyproject.toml").touch()
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[0].startswith("docs/reference/configuration.md is stale: run python -m")
    assert main([], tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[1] == "docs/reference/commands.md is written"
    assert main(["--check"], tmp_path) == 0


def test_the_command_says_how_it_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--chekc"]) == 2
    assert capsys.readouterr().err == "usage: python -m asgiri.cli.docs [--check]\n"
    assert main([], tmp_path) == 2
    assert "is no checkout" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# The reference page


def entry(path: str) -> str:
    """What the page says of a key."""
    anchor = re.escape(path.replace("[]", "").replace("{}", ".NAME"))
    found = re.search(rf'^### <a id="{anchor}"></a>`[^\n]*`\n(.*?)(?=^##|\Z)', PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"{path} is not on the page"
    return found[1]


@pytest.mark.parametrize("path", [path for path, key in EVERY_KEY.items() if not key.section or key.optional])
def test_a_key_is_on_the_page_with_all_that_there_is_to_say(path: str) -> None:
    key, text = EVERY_KEY[path], entry(path)
    assert f"\n{key.meta.description}\n" in text
    assert "- expected: " in text
    assert "- default: " in text
    assert all(f"`{example}`" in text for example in key.examples)
    assert ("restart" in text) == key.stays
    own = [name for name, one in variables().items() if one == path]
    assert all(f"`{name}`" in text for name in own)
    assert bool(own) == ("[" not in path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("workers.count", '- expected: a number of 1 or more or "auto"'),
        ("workers.count", "- default: `1`"),
        ("workers.count", "- set by: `ASGIRI_WORKERS__COUNT`, `WEB_CONCURRENCY`, `-w`, `--workers`"),
        ("app", "- set by: `ASGIRI_APP`, `APP`"),
        ("log.access.enabled", "- set by: `ASGIRI_LOG__ACCESS__ENABLED`, `--access-log`, `--no-access-log`"),
        ("listen", "- default: `[{bind: 127.0.0.1:8000}]`"),
        ("listen", "- set by: `ASGIRI_LISTEN`, `PORT`, `-b`, `--bind`"),
        ("listen[].bind", "- default: none, it must be given"),
        ("listen[].http", '- expected: a list of one at least, each "h2" or "http/1.1"'),
        ("listen[].http", "- set by: `--http`"),
        ("listen[].tls", "- expected: a [section](#listen.tls.keys), or null"),
        ("timeouts.keep_alive", "- default: `1m15s`"),
        ("process.chdir", "- reload: leaves it; an upgrade or a restart takes it"),
        ("process.user", "- reload: takes it"),
        ("env", "- expected: a mapping of names, each a text"),
    ],
)
def test_what_the_page_says(path: str, line: str) -> None:
    assert line in entry(path).splitlines()


def slugs(text: str) -> set[str]:
    """The anchors of a page: its own, and those that a Markdown renderer makes of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings} | ids(text)


def ids(text: str) -> set[str]:
    found = re.findall(r'<a id="([^"]*)">', text)
    assert sorted(set(found)) == sorted(found)
    return set(found)


def test_no_link_of_the_page_leads_nowhere() -> None:
    home = ROOT / "docs" / "reference"
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", PAGE):
        assert (home / target).exists(), target
        if anchor:
            text = PAGE if not target else (home / target).read_text("utf-8")
            assert anchor in slugs(text), f"{target}#{anchor}"


def test_the_flags_are_all_those_that_set_a_key() -> None:
    found = flags()
    assert set(found) <= {path.replace("{}", ".NAME") for path in EVERY_KEY}
    assert found["workers.count"] == ["-w", "--workers"]
    assert found["listen[].tls.certfile"] == ["--certfile"]


@pytest.mark.parametrize(("name", "path"), COMMON_VARIABLES.items())
def test_the_common_variables_set_these_keys(name: str, path: str) -> None:
    assert load(None, {name: "7"}).origins[path] == name


# The page of the commands


def test_the_page_of_the_commands_has_every_flag_and_every_verb() -> None:
    page = commands.page()
    typed = set(re.split(r"[`, /]+", page))
    assert {name for flag in FLAGS for name in flag.names} <= typed
    for name, verb in command.commands.items():
        assert re.search(rf"^\| `{name}(?: [^`]*)?` \| {re.escape(str(verb.help))} \|$", page, re.MULTILINE), name
    assert re.search(r"^\| `reload --timeout DURATION` \| With --wait: ", page, re.MULTILINE)


def test_the_page_of_the_commands_has_every_signal_and_every_exit_code() -> None:
    assert sorted(commands.SIGNALS) == sorted({*STOPS, *VERBS})
    assert list(commands.EXITS) == list(ExitCode)


# The samples


def test_the_sample_serves_the_demo(tmp_path: Path) -> None:
    assert loaded(sample(), tmp_path).config == Config(app="asgiri.demo:app", workers=Workers(count=2))


def test_what_the_sample_comments_out_is_the_default(tmp_path: Path) -> None:
    listener = Listen(bind="unix:/run/asgiri/asgiri.sock", mode=0o660, group="www-data")
    www = SniPair(certfile="/etc/asgiri/www.pem", keyfile="/etc/asgiri/www.key")
    tls = Tls(certfile="/etc/asgiri/cert.pem", keyfile="/etc/asgiri/key.pem", sni={"www.example.org": www})
    listeners = (*Config().listen, Listen(bind="0.0.0.0:8443", tls=tls), listener)
    found = loaded(COMMENTED.sub(r"\1\2", sample()), tmp_path)
    assert found.config == Config(app="asgiri.demo:app", workers=Workers(count=2), listen=listeners)
    there = {re.sub(r"\[\d+\]", "[]", path).replace(".www.example.org", "{}") for path in found.origins}
    missing = {path for path, key in EVERY_KEY.items() if not key.container and path not in there}
    assert missing == set()


def test_a_line_of_the_sample_is_no_longer_than_one_of_ours() -> None:
    assert max(map(len, sample().splitlines())) <= 120


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_says_who_it_is_for_and_what_an_editor_reads(path: Path) -> None:
    first, second, third = path.read_text("utf-8").splitlines()[:3]
    assert first == "# yaml-language-server: $schema=./asgiri.schema.json"
    assert second == "#"
    assert "or " in third
    assert (path.parent / "asgiri.schema.json").exists()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_loads_without_a_variable(path: Path) -> None:
    assert load(str(path), {}).config.target == "asgiri.demo:app"


# The examples, each in its place


NEEDED = {
    "listen[]": {"bind": "unix:a"},
    "tls": {"certfile": "a", "client_certs": "required", "client_ca": "a"},
    "sni{}": {"certfile": "a", "keyfile": "a"},
}


def around(path: str, example: str) -> str:
    """A file in which a key has this value, and what else its sections cannot do without."""
    *within, name = path.split(".")
    text = f"{name}: {example}"
    for section in reversed(within):
        others = [f"{key}: {value}" for key, value in NEEDED.get(section, {}).items() if not text.startswith(f"{key}:")]
        text = f"{{{', '.join([*others, text])}}}"
        if section.endswith("[]"):
            text = f"[{text}]"
        elif section.endswith("{}"):
            text = f"{{a.example: {text}}}"
        text = f"{section.rstrip('[]{}')}: {text}"
    return text


EXAMPLES: list[tuple[str, Any]] = [(path, example) for path, key in EVERY_KEY.items() for example in key.examples]


@pytest.mark.parametrize(("path", "example"), EXAMPLES)
def test_an_example_is_loaded(tmp_path: Path, path: str, example: str) -> None:
    found = loaded(around(path, example), tmp_path)
    assert found.config != Config()
    assert any(one.startswith(path.partition("[")[0].partition("{")[0]) for one in found.origins)


def test_keys_have_examples_where_the_default_shows_nothing() -> None:
    silent = {
        path
        for path, key in EVERY_KEY.items()
        if key.default in (None, {}, ()) and not key.examples and not key.section
    }
    assert silent <= {"listen[].mode", "listen[].owner", "listen[].tls.ciphers", "process.group", "process.umask"} | {
        "process.chdir",
        "proxy.trusted",
        "reload.exclude",
    }
    assert keys_of(Config)["app"].examples
