"""The command line: what it offers, what it refuses, and what its flags stand for."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import click
import pytest
from click.testing import CliRunner

from asgiri import __version__
from asgiri.cli.command import command, from_flags, from_sets
from asgiri.cli.flags import FLAGS, key_at
from asgiri.cli.overlay import secure
from asgiri.config.keys import paths
from asgiri.config.load import Setting, load
from asgiri.config.schema import Config, Tls
from asgiri.errors import ConfigError
from tests.pki import Pki

Ran: TypeAlias = subprocess.CompletedProcess[str]

# Every option of the interface, but for --help.
OPTIONS = [
    "-c",
    "--config",
    "-b",
    "--bind",
    "-w",
    "--workers",
    "--reload",
    "--reload-dir",
    "--reload-include",
    "--reload-exclude",
    "--certfile",
    "--keyfile",
    "--http",
    "--loop",
    "--lifespan",
    "--factory",
    "--app-dir",
    "--root-path",
    "--log-level",
    "--log-format",
    "--access-log",
    "--no-access-log",
    "--admin",
    "--user",
    "--group",
    "--pidfile",
    "--set",
    "--check-config",
    "--import",
    "--print-config",
    "--schema",
    "--version",
]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, list(arguments), prog_name="asgiri")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_version() -> None:
    assert run("--version") == (0, f"asgiri {__version__}\n")


def test_every_option_of_the_interface_is_there_and_no_other() -> None:
    offered = {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name[0] == "-"}
    assert sorted(offered) == sorted(OPTIONS)


@pytest.mark.parametrize("columns", ["200", "80", "40", "1"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_fits_a_terminal_and_ends_with_examples(flag: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, text = run(flag)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.rstrip().splitlines()[-3:]] == ["asgiri"] * 3


def helped(name: str) -> str:
    """What the help page says of a flag, in one line."""
    _, text = run("--help")
    found = re.search(rf"^  (?:-\w, )?{name}(?=[ \n])(.*(?:\n {{20,}}.*)*)", text, re.MULTILINE)
    assert found, f"{name} is not on the page"
    return " ".join(found[1].split())


def test_help_has_every_flag_under_a_heading() -> None:
    _, text = run("--help")
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert headings == [*dict.fromkeys(flag.group for flag in FLAGS), "Examples"]
    for name in OPTIONS:
        assert re.search(rf"^  .*(?<![\w-]){name}(?![\w-])", text, re.MULTILINE), name


def test_help_says_what_the_schema_says() -> None:
    for flag in FLAGS:
        if flag.key and not flag.is_argument:
            description = str(key_at("listen[].bind" if flag.key == "listen" else flag.key).meta.description)
            assert description.partition(";")[0] in helped(flag.name)
    assert helped("--loop").startswith("[auto|uvloop|asyncio] The event loop;")
    assert helped("--http").startswith("[auto|h2|http/1.1] ")
    assert helped("--workers").startswith("N|auto ")
    assert helped("--workers").endswith("[default: 1]")
    assert helped("--bind").endswith("Repeatable. [default: 127.0.0.1:8000]")
    assert helped("--reload-include").endswith("Repeatable. [default: *.py]")
    assert helped("--reload-exclude").endswith("Repeatable.")
    assert helped("--access-log").startswith("/ --no-access-log ")
    assert helped("--admin").endswith("; default: nowhere.")


def imported(arguments: list[str], **environ: str) -> set[str]:
    """The modules that a run of the command has imported, to its end."""
    code = "import sys\nfrom asgiri.__main__ import main\ntry:\n    main()\nexcept SystemExit:\n    print(*sys.modules)"
    root = str(Path(__file__).resolve().parents[1])
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": root, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(ran.stdout.splitlines()[-1].split())


def test_what_needs_no_configuration_does_not_import_it() -> None:
    modules = imported(["--version"])
    assert "asgiri.cli.command" in modules
    assert not modules & {"yaml", "ssl", "asyncio", "difflib", "asgiri.config.schema", "click.shell_completion"}
    assert "asgiri.config.schema" not in imported([], _ASGIRI_COMPLETE="fish_source")


def test_what_is_told_to_people_and_shells_costs_nobody_else() -> None:
    modules = imported(["--print-config", "--workers", "2"])
    assert "asgiri.config.schema" in modules
    for_them = {"help", "completion", "shells", "overlay"}
    assert not modules & {*(f"asgiri.cli.{name}" for name in for_them), "click.shell_completion", "ssl"}


def test_each_flag_stands_for_a_key_that_exists() -> None:
    known = {path for path, _ in paths(Config)}
    assert {flag.key for flag in FLAGS if flag.key} <= known
    assert all(key_at(flag.each) for flag in FLAGS if flag.each)
    with pytest.raises(KeyError):
        key_at("listen[].tls.certificate")


def test_none_is_taken_and_then_forgotten() -> None:
    taken = {flag.parameter for flag in FLAGS if not flag.key}
    names = set(inspect.signature(cast("Any", command.callback)).parameters)
    assert names == taken | {"flags"}
    assert {param.name for param in command.params} == {flag.parameter for flag in FLAGS}


def test_flags_become_settings() -> None:
    flags = {"app": "main:app", "bind": ("a:1", "b:2"), "workers": None, "factory": False, "access_log": True}
    assert from_flags(flags) == [
        Setting("APP", "app", "main:app"),
        Setting("--bind", "listen", ("a:1", "b:2")),
        Setting("--access-log", "log.access.enabled", True),
    ]
    assert from_flags({"access_log": False}) == [Setting("--no-access-log", "log.access.enabled", False)]


def test_the_access_log_can_be_turned_off_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("log: {access: {file: none/such}}\n", "utf-8")
    check = ("-c", str(file), "--check-config")
    with pytest.raises(ConfigError, match=r'shop.yaml:1: log\.access\.file: cannot open "none/such": No such file'):
        run(*check)
    assert run(*check, "--no-access-log")[0] == 0
    monkeypatch.setenv("ASGIRI_LOG__ACCESS__ENABLED", "false")
    assert run(*check)[0] == 0
    with pytest.raises(ConfigError, match=r"log\.access\.file"):
        run(*check, "--access-log")


def test_set_takes_any_key() -> None:
    settings = from_sets(["workers.count=3", "env.A=b=c"])
    config = load(None, {}, settings).config
    assert config.workers.count == 3
    assert config.env == {"A": "b=c"}
    with pytest.raises(click.BadParameter, match=r"expected KEY\.PATH=VALUE"):
        from_sets(["workers.count"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keyfile", "a.pem"], "--keyfile goes with --certfile"),
        (["--import"], "--import goes with --check-config"),
        (["--worker", "1"], "No such option"),
        (["one:app", "two:app"], "unexpected extra argument"),
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], message: str) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert message in text


def test_wrong_words_are_told_with_all_else_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("lifespan: maybe\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        run("-c", str(file), "--http", "h3", "--loop", "fast", "-w", "0", "--set", "workers.cuont=1")
    told = str(caught.value)
    assert '--loop: loop: expected "auto", "uvloop" or "asyncio", got "fast"' in told
    assert '--workers: workers.count: expected a number of 1 or more or "auto", got "0"' in told
    assert '--set: unknown key "workers.cuont"; did you mean "workers.count"?' in told
    assert told.splitlines()[-1] == '--http: expected "auto", "h2" or "http/1.1", got "h3"'
    assert f"{file}:1:11: lifespan: " in told
    with pytest.raises(ConfigError, match="--http: expected"):
        run("--http", "h3", "--check-config")


def test_a_flag_that_is_not_known_has_a_neighbour() -> None:
    code, text = run("--worker", "1")
    assert code == 2
    assert "--workers" in text


def test_check_config_says_what_it_read(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("workers: {count: 3}\n", "utf-8")
    assert run("-c", str(file), "--check-config") == (0, f"asgiri: {file} is good\n")


def test_check_config_looks_where_the_master_would_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # and back at the end
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "env").write_text("A=1\n", "utf-8")
    there = ["--set", "process.chdir=shop", "--set", "env_file=env"]
    assert run("--check-config", *there) == (0, "asgiri: the configuration is good\n")
    with pytest.raises(ConfigError, match=r'env_file: cannot read "env"'):
        run("--check-config", "--set", "process.chdir=/", "--set", "env_file=env")
    with pytest.raises(ConfigError, match=r"process\.chdir: cannot enter none"):
        run("--check-config", "--set", "process.chdir=none")


def test_certificates_are_checked_and_what_is_wrong_names_its_place(tmp_path: Path, pki: Pki) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        f"listen:\n- bind: 127.0.0.1:0\n  tls:\n    certfile: {pki.certfile}\n    keyfile: gone.key\n", "utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        run("-c", str(file), "--check-config")
    assert str(caught.value) == f'{file}:5: listen[0].tls.keyfile: cannot read "gone.key": No such file or directory'
    file.write_text(
        f"listen:\n- bind: 127.0.0.1:0\n  tls:\n    certfile: {pki.certfile}\n    keyfile: {pki.keyfile}\n", "utf-8"
    )
    code, text = run("-c", str(file), "--check-config")
    assert (code, text.splitlines()[-1]) == (0, f"asgiri: {file} is good")


def test_ciphers_that_http2_may_not_use_are_an_error_where_it_is_spoken(tmp_path: Path, pki: Pki) -> None:
    file = tmp_path / "shop.yaml"
    tls = f"{{certfile: {pki.certfile}, keyfile: {pki.keyfile},\n  ciphers: ECDHE-ECDSA-AES128-SHA256}}"
    file.write_text(f"listen:\n- bind: 127.0.0.1:0\n  tls: {tls}\n", "utf-8")
    check = ("-c", str(file), "--check-config")
    with pytest.raises(ConfigError, match=r"shop.yaml:4: listen\[0\]\.tls\.ciphers: HTTP/2 may use none of these"):
        run(*check)
    with pytest.raises(ConfigError, match="HTTP/2 may use none of these"):
        run(*check, "--http", "h2")
    assert run(*check, "--http", "http/1.1")[0] == 0


def test_the_certificate_flags_mean_every_listener_that_has_none(tmp_path: Path, pki: Pki) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        f"listen:\n- bind: 127.0.0.1:0\n- bind: 127.0.0.2:0\n  tls: {{certfile: {pki.bundle}}}\n- bind: 127.0.0.3:0\n",
        "utf-8",
    )
    secured = secure(load(str(file), {}), pki.certfile, pki.keyfile)
    flags = Tls(certfile=pki.certfile, keyfile=pki.keyfile)
    assert [listen.tls for listen in secured.config.listen] == [flags, Tls(certfile=pki.bundle), flags]
    assert run("-c", str(file), "--certfile", pki.bundle, "--check-config")[0] == 0
    with pytest.raises(ConfigError) as caught:
        run("-c", str(file), "--certfile", pki.certfile, "--keyfile", "gone.key", "--check-config")
    assert [(problem.where, problem.key) for problem in caught.value.problems] == [
        ("--keyfile", "listen[0].tls.keyfile"),
        ("--keyfile", "listen[2].tls.keyfile"),
    ]


# What cannot be written


def redirected(arguments: str, *, out: int | IO[str] = subprocess.PIPE, err: int | IO[str] = subprocess.PIPE) -> Ran:
    return subprocess.run(
        [sys.executable, "-m", "asgiri", *arguments.split()],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stdout=out,
        stderr=err,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_what_cannot_be_printed_is_an_error_and_no_traceback(flag: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        found = redirected(flag, out=full)
    error = "asgiri: cannot write to the standard output: No space left on device\n"
    assert (found.returncode, found.stderr) == (1, error)


@pytest.mark.parametrize("flag", ["--help", "--version", "--schema"])
def test_who_reads_no_more_is_told_nothing_more(flag: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        found = redirected(flag, out=theirs)
    finally:
        os.close(theirs)
    assert (found.returncode, found.stderr) == (1, "")


@pytest.mark.parametrize("arguments", ["--check-config -w two", "-w two", "--none", "--set x"])
def test_the_exit_code_is_the_same_where_nobody_can_be_told(arguments: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        assert redirected(arguments, err=full).returncode == 2
