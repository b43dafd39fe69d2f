"""The command line: what it offers, what it refuses, and what its flags stand for."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from asgiri import __version__
from asgiri.cli.command import KEYS, LATER, command, from_flags, from_sets, secure
from asgiri.config.keys import paths
from asgiri.config.load import Setting, load
from asgiri.config.schema import Config, Tls
from asgiri.errors import ConfigError
from tests.pki import Pki

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


def test_help_fits_a_terminal_and_ends_with_examples() -> None:
    code, text = run("--help")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split()[0] for line in text.rstrip().splitlines()[-3:]] == ["asgiri"] * 3


def test_each_flag_stands_for_a_key_that_exists() -> None:
    known = {path for path, _ in paths(Config)}
    assert {path for _, path in KEYS.values()} <= known
    names = {str(param.name) for param in command.params}
    assert names >= set(KEYS) | set(LATER)
    own = {
        "config",
        "set_",
        "check_config",
        "print_config",
        "schema",
        "import_",
        "http",
        "certfile",
        "keyfile",
        "version",
    }
    assert names - own == set(KEYS) | set(LATER)  # none is taken and then forgotten


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
        (["--http", "h3"], "'h3' is not one of 'auto', 'http/1.1', 'h2'"),
        (["--import"], "--import goes with --check-config"),
        (["--worker", "1"], "No such option"),
        (["one:app", "two:app"], "unexpected extra argument"),
    ],
)
def test_bad_usage_exits_with_2(arguments: list[str], message: str) -> None:
    code, text = run(*arguments)
    assert code == 2
    assert message in text


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
    file.write_text(f"listen:\n- bind: a:1\n  tls:\n    certfile: {pki.certfile}\n    keyfile: gone.key\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        run("-c", str(file), "--check-config")
    assert str(caught.value) == f'{file}:5: listen[0].tls.keyfile: cannot read "gone.key": No such file or directory'
    file.write_text(
        f"listen:\n- bind: a:1\n  tls:\n    certfile: {pki.certfile}\n    keyfile: {pki.keyfile}\n", "utf-8"
    )
    assert run("-c", str(file), "--check-config") == (0, f"asgiri: {file} is good\n")


def test_ciphers_that_http2_may_not_use_are_an_error_where_it_is_spoken(tmp_path: Path, pki: Pki) -> None:
    file = tmp_path / "shop.yaml"
    tls = f"{{certfile: {pki.certfile}, keyfile: {pki.keyfile},\n  ciphers: ECDHE-ECDSA-AES128-SHA256}}"
    file.write_text(f"listen:\n- bind: a:1\n  tls: {tls}\n", "utf-8")
    check = ("-c", str(file), "--check-config")
    with pytest.raises(ConfigError, match=r"shop.yaml:4: listen\[0\]\.tls\.ciphers: HTTP/2 may use none of these"):
        run(*check)
    with pytest.raises(ConfigError, match="HTTP/2 may use none of these"):
        run(*check, "--http", "h2")
    assert run(*check, "--http", "http/1.1")[0] == 0


def test_the_certificate_flags_mean_every_listener_that_has_none(tmp_path: Path, pki: Pki) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(f"listen:\n- bind: a:1\n- bind: a:2\n  tls: {{certfile: {pki.bundle}}}\n- bind: a:3\n", "utf-8")
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
