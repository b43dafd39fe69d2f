"""The configuration as it is printed: it loads to the same, other parsers read it, and each value says its origin."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings

from asgiri import __version__
from asgiri.config.decode import Decoder
from asgiri.config.keys import keys_of
from asgiri.config.load import Found, Loaded, load
from asgiri.config.nodes import Faults, Mapping, Node, Scalar, Sequence
from asgiri.config.schema import Config, Listen, Tls
from asgiri.config.settings import Setting
from asgiri.config.show import resolved
from asgiri.config.source import parse_file
from tests.config.strategies import sections

ROOT = Path(__file__).resolve().parents[2]


def as_printed(config: Config, origins: dict[str, str] | None = None, **more: Any) -> str:
    return resolved(Loaded(config, more.pop("found", None), origins or {}, more.pop("written", {})))


def texts(node: Node) -> Iterator[str]:
    """What is written at each place, in order."""
    if isinstance(node, Scalar):
        yield node.text
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from texts(item)
    else:
        for name, entry in node.entries.items():
            yield name
            yield from texts(entry.value)


def texts_of_pyyaml(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            assert isinstance(name, str)
            yield name
            yield from texts_of_pyyaml(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_of_pyyaml(one)
    else:
        yield "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@settings(deadline=None, max_examples=40)
@given(sections(Config))
def test_what_is_printed_loads_to_the_same(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    text = as_printed(config)
    faults = Faults()
    file = tmp_path_factory.getbasetemp() / "printed.yaml"
    file.write_text(text, "utf-8")
    tree = parse_file(file, "", {}, faults)
    assert isinstance(tree, Mapping)
    assert Decoder(faults).section(Config, tree) == config  # what is wrong between keys is not our concern
    faults.raise_any()
    if "${" not in text:
        assert list(texts_of_pyyaml(yaml.safe_load(text))) == list(texts(tree))


def test_every_key_of_the_schema_is_there_in_its_order() -> None:
    config = Config(listen=(Listen(bind="127.0.0.1:1", tls=Tls(certfile="a")),))

    def keys(section: type[msgspec.Struct]) -> Iterator[str]:
        for name, key in keys_of(section).items():
            yield name
            below = key.element().section if key.container == "list" else key.section
            if below is not None:
                yield from keys(below)

    lines = as_printed(config).splitlines()
    found = [line.strip().removeprefix("- ").partition(":")[0] for line in lines if line and line[0] != "#"]
    assert found == list(keys(Config))


FILE = """\
loop: uvloop
env: {A: "1"}
listen:
  - bind: 127.0.0.1:1
    http:
      - h2
  - bind: 127.0.0.1:2
    tls: null
workers:
  count: 2
  drain_timeout: 5s
"""


def test_each_value_says_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "a b.yaml"
    file.write_text(FILE, "utf-8")
    environ = {"ASGIRI_WORKERS__DRAIN_TIMEOUT": "6s", "ASGIRI_HTTP1__ENGINE": "h11"}
    flags = [
        Setting("APP", "app", "shop:app"),
        Setting("--workers", "workers.count", "3"),
        Setting("--set", "env.B", "2"),
    ]
    lines = resolved(load(str(file), environ, flags)).splitlines()
    assert lines[0] == (
        f"# asgiri {__version__}, asgiri --print-config: what {file}, the environment and the flags come to."
    )
    said = [" ".join(line.split()) for line in lines]
    for expected in (
        "app: shop:app # from argument APP",
        f"loop: uvloop # from {file}:1",
        f"env: # from {file}:2",
        f'A: "1" # from {file}:2',
        'B: "2" # from flag --set',
        f"listen: # from {file}:4",
        f"- bind: 127.0.0.1:1 # from {file}:4",
        f"http: [h2] # from {file}:6",
        "backlog: 2048 # default",
        f"tls: null # from {file}:8",
        "count: 3 # from flag --workers",
        "drain_timeout: 6s # from ASGIRI_WORKERS__DRAIN_TIMEOUT",
        "engine: h11 # from ASGIRI_HTTP1__ENGINE",
        "drain_delay: 0s # default",
    ):
        assert expected in said


@pytest.mark.parametrize(
    ("environ", "flags", "line"),
    [
        ({"PORT": "81"}, [], "- bind: 0.0.0.0:81 # from PORT"),
        ({"WEB_CONCURRENCY": "5"}, [], "count: 5 # from WEB_CONCURRENCY"),
        ({"ASGIRI_ENV": "{A: b}"}, [], "env: {A: b} # from ASGIRI_ENV"),
        ({}, [Setting("--bind", "listen", ("unix:a",))], "- bind: unix:a # from flag --bind"),
        ({}, [Setting("--no-access-log", "log.access.enabled", False)], "enabled: false # from flag --no-access-log"),
    ],
)
def test_variables_and_flags_are_named(environ: dict[str, str], flags: list[Setting], line: str) -> None:
    assert line in [" ".join(one.split()) for one in resolved(load(None, environ, flags)).splitlines()]


def test_a_file_with_a_strange_name_does_no_harm(tmp_path: Path) -> None:
    file = Path("--odd\napp: none:such\n")
    text = as_printed(Config(app="a:b"), {"app": f"{file}:3", "loop": "APP:1"}, found=Found(file))
    assert yaml.safe_load(text)["app"] == "a:b"
    assert "# from --odd\\napp: none:such\\n:3" in text
    assert "# from APP:1" in text


def test_comments_stand_below_each_other_as_far_as_that_is_pretty() -> None:
    long = "x" * 60
    lines = as_printed(Config(app=f"{long}:app", env={"A": "b", "C": long})).splitlines()
    assert f"app: {long}:app  # default" in lines
    assert "app_dir: .       # default" in lines
    start = lines.index("env:    # default")
    assert lines[start + 1 : start + 3] == ["  A: b  # default", f"  C: {long}  # default"]


def test_what_variables_were_put_into_is_shown_as_the_file_has_it() -> None:
    written = {
        "process.user": "${NOBODY:-}",
        "env.TOKEN": "${TOKEN}",
        "listen[0].http[0]": "${HTTP}",
        "app": "$${ ${APP}",
    }
    config = Config(app="${ a:b", env={"TOKEN": "a secret", "B": "c"}, listen=(Listen(bind="unix:a", http=("h2",)),))
    text = as_printed(config, written=written)
    assert "a secret" not in text
    said = [" ".join(line.split()) for line in text.splitlines()]
    assert 'app: "$${ ${APP}" # default' in said
    assert 'env: {TOKEN: "${TOKEN}", B: c} # default' in said
    assert 'http: ["${HTTP}"] # default' in said
    assert "user: ${NOBODY:-} # default" in said  # in quotes it would be an empty text, and not null
    assert yaml.safe_load(text)["process"]["user"] == "${NOBODY:-}"


VARIABLES = """\
app: ${APP}
root_path: "/${A}-$${A}"
env: {A: "${A} b", "${A}": c, D: "$${A}"}
env_file: ${NONE:-}
lifespan: "${MODE:-off}"
listen:
  - bind: unix:/run/${NAME:-web}.sock
    http: ["${HTTP}"]
    owner: "${NONE:-}"
workers:
  count: ${COUNT}
  max_memory: ${COUNT}MiB
log:
  access: {enabled: "${ON}"}
"""


def test_a_file_with_variables_loads_to_the_same_again(tmp_path: Path) -> None:
    environ = {"APP": "shop:app", "A": "a # secret: ${B}", "HTTP": "h2", "COUNT": "4", "ON": "true"}
    first, second = (tmp_path / name for name in ("first.yaml", "second.yaml"))
    first.write_text(VARIABLES, "utf-8")
    once = load(str(first), environ)
    assert (once.config.app, once.config.env_file, once.config.workers.count) == ("shop:app", None, 4)
    assert once.config.env == {"A": "a # secret: ${B} b", "${A}": "c", "D": "${A}"}
    text = resolved(once)
    assert "secret" not in text
    second.write_text(text, "utf-8")
    again = load(str(second), environ)
    assert again.config == once.config
    assert again.written == once.written
    assert resolved(again).count("${") == text.count("${") == VARIABLES.count("${")


def test_what_could_be_a_variable_is_none(tmp_path: Path) -> None:
    odd = "${A} $${ $$${A:-} ${"
    file = tmp_path / "printed.yaml"
    config = Config(root_path=odd, env={odd: odd}, response_headers={"X": "${A}"})
    file.write_text(as_printed(config), "utf-8")
    assert load(str(file), {"A": "a"}).config == config


# The command


def asgiri(*arguments: str, directory: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "asgiri", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more.pop("env", {})},
        text=True,
        encoding="utf-8",
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        **more,
    )


def test_what_the_command_prints_can_be_its_file(tmp_path: Path) -> None:
    (tmp_path / "asgiri.yaml").write_text(FILE, "utf-8")
    flags = ["-w", "3", "--http", "h2", "--certfile", "none.pem", "--set", "env.B=ü ${X}", "none:such"]
    first = asgiri(*flags, "--print-config", directory=tmp_path, stdout=subprocess.PIPE, env={"LC_ALL": "C"})
    assert (first.returncode, first.stderr) == (0, "")  # the certificate and the application are not looked at
    said = [" ".join(line.split()) for line in first.stdout.splitlines()]
    assert said.count("http: [h2] # from flag --http") == 2
    assert said.count("certfile: none.pem # from flag --certfile") == 2
    assert said.count("keyfile: null # default") == 2  # that nobody has named
    (tmp_path / "again.yaml").write_text(first.stdout, "utf-8")
    again = asgiri("-c", "again.yaml", "--print-config", directory=tmp_path, stdout=subprocess.PIPE)
    assert yaml.safe_load(again.stdout) == yaml.safe_load(first.stdout)


def test_a_wrong_configuration_is_told_whole_and_not_printed(tmp_path: Path) -> None:
    (tmp_path / "asgiri.yaml").write_text("loop: fast\nnone: 1\n", "utf-8")
    found = asgiri("--print-config", "-w", "0", directory=tmp_path, stdout=subprocess.PIPE)
    assert (found.returncode, found.stdout) == (2, "")
    assert [line.partition(": expected")[0].partition(": unknown")[0] for line in found.stderr.splitlines()] == [
        "asgiri: asgiri.yaml:1:7: loop", "asgiri: asgiri.yaml:2:1", "asgiri: --workers: workers.count",
    ]  # fmt: skip


def test_printing_and_checking_are_not_done_in_one(tmp_path: Path) -> None:
    found = asgiri("--print-config", "--check-config", directory=tmp_path, stdout=subprocess.PIPE)
    assert (found.returncode, found.stdout) == (2, "")
    assert "--print-config and --check-config each stand alone" in found.stderr


def test_what_cannot_be_printed_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        found = asgiri("--print-config", directory=tmp_path, stdout=full)
    assert (found.returncode, found.stderr) == (
        1, "asgiri: cannot write to the standard output: No space left on device\n",
    )  # fmt: skip
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" -m asgiri --print-config >&-', sys.executable],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert (closed.returncode, closed.stderr) == (1, "asgiri: cannot write to the standard output: it is closed\n")
