"""Completion: what is offered, asked as click documents it, and what becomes of a line in real shells."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest

from asgiri.cli.completion import addresses, applications, settings
from asgiri.cli.flags import FLAGS, key_at
from asgiri.config.keys import paths
from asgiri.config.schema import Config, HttpVersion

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 20.0

SOURCE = '''\
"""An application."""
import os
import re
DIGITS = "\\d"
from shop.made import factory as made, other
from elsewhere import *

_hidden = 1
app: object = print
one = two = 2

async def serve(scope, receive, send): ...
class Shop: ...
def app(): ...
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with modules to complete, and the two commands of this checkout to complete them with."""
    (tmp_path / "main.py").write_text(SOURCE, "utf-8")
    (tmp_path / "broken.py").write_text("def (:\n", "utf-8")
    (tmp_path / "not-one.py").write_text("", "utf-8")
    (tmp_path / "shop" / "api").mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text("application = 1\n", "utf-8")
    (tmp_path / "shop" / "api" / "views.py").write_text("wsgi = 1\n", "utf-8")
    (tmp_path / "static").mkdir()
    (tmp_path / "bin").mkdir()
    for name, module in (("asgiri", "__main__"), ("asgirictl", "ctl")):
        script = tmp_path / "bin" / name
        inside = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from asgiri.{module} import main; main()"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{inside}" "$@"\n', "utf-8")
        script.chmod(0o755)
    return tmp_path


def environment(project: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        "PATH": f"{project / 'bin'}:{os.environ['PATH']}",
        "HOME": str(project),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "ASGIRI_NO_SUCH": "a variable that a start would refuse",
        **(more or {}),
    }


def ask(project: Path, shell: str, words: list[str], command: str = "asgiri") -> list[str]:
    """What the command answers a shell that has these words, the last one to be completed."""
    line = " ".join([command, *words])
    asked = {"COMP_WORDS": line, "COMP_CWORD": words[-1] if shell == "fish" else str(len(words))}
    ran = subprocess.run(
        [command],
        cwd=project,
        env=environment(project, {f"_{command.upper()}_COMPLETE": f"{shell}_complete", **asked}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout.splitlines() if ran.stdout.strip() else []


# What is offered


def test_an_application_is_a_module_and_a_name_in_it(project: Path) -> None:
    assert list(applications("", project)) == ["broken:", "main:", "shop:", "shop."]
    assert list(applications("shop.", project)) == ["shop.api."]
    assert list(applications("shop.api.v", project)) == ["shop.api.views:"]
    names = ["DIGITS", "made", "other", "app", "one", "two", "serve", "Shop"]
    assert list(applications("main:", project)) == [f"main:{name}" for name in names]
    assert list(applications("shop:a", project)) == ["shop:application"]
    for nothing in ("broken:", "none:", "none.", "..:", "a\0b:", "a\0b."):
        assert list(applications(nothing, project)) == []
    assert list(applications("", project / "none")) == []


def test_a_module_is_read_and_not_run(project: Path) -> None:
    assert "plain,main:DIGITS" in ask(project, "bash", ["main:"])  # and without a word about its escape
    (project / "loud.py").write_text("open('ran', 'w')\nraise SystemExit('ran')\nloud = 1\n", "utf-8")
    assert ask(project, "bash", ["loud:"]) == ["plain,loud:loud"]
    assert not (project / "ran").exists()
    (project / "large.py").write_text("a = 1\n" * (1 << 18), "utf-8")
    assert list(applications("large:", project)) == []


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"unix:", "fd:", "systemd", "127.0.0.1:"} <= set(addresses(""))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("run/shop.sock")
    assert list(addresses("unix:")) == ["unix:run/"]
    assert list(addresses("unix:run/s")) == ["unix:run/shop.sock"]
    assert list(addresses(f"unix:{tmp_path}/")) == [f"unix:{tmp_path}/run/"]
    assert list(addresses("unix:none/")) == []


def test_set_offers_the_keys_of_the_schema_and_their_words() -> None:
    offered = {item.value for item in settings("")}
    wanted = {path for path, key in paths(Config) if (key.section is None or key.optional)}
    assert {value.rstrip("=.") for value in offered} == wanted
    assert {"workers.count=", "env."} <= offered
    assert [item.value for item in settings("log.level=w")] == ["log.level=warning"]
    assert [item.value for item in settings("server_header=")] == ["server_header=true", "server_header=false"]
    assert [item.value for item in settings("proxy.headers=x")] == ["proxy.headers=x-forwarded"]
    assert [item.value for item in settings("admin.bind=unix")] == ["admin.bind=unix:"]
    for nothing in ("timeouts.write=", "no.such=", "="):
        assert settings(nothing) == []
    assert all(item.help for item in settings(""))


# Asked as click documents it


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_flags_that_work(project: Path, shell: str) -> None:
    told = ask(project, shell, ["-"])
    flags = told[1::3] if shell == "zsh" else [line.split("\t")[0].removeprefix("plain,") for line in told]
    names = [(*flag.names, *filter(None, [flag.off])) for flag in FLAGS]
    assert sorted(flags) == sorted([*[name for one in names for name in one if name != "APP"], "-h", "--help"])
    meaning = str(key_at("process.pidfile").meta.description)
    if shell == "zsh":
        assert told[told.index("--pidfile") + 1] == meaning
    elif shell == "fish":
        assert f"plain,--pidfile\t{meaning}" in told


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--loop", ""], [f"plain,{word}" for word in get_args(Config.__annotations__["loop"].__origin__)]),
        (["--http", ""], [f"plain,{word}" for word in ("auto", *get_args(HttpVersion))]),
        (["--loop=u"], ["plain,uvloop"]),
        (["-w", ""], ["plain,auto"]),
        (["-b", "a:1", "--bi"], ["plain,--bind"]),
        (["--loop", "auto", "--loo"], []),
        (["--reload-i"], ["plain,--reload-include"]),
        (["--config", "/etc/as"], ["file,/etc/as"]),
        (["--app-dir", ""], ["dir,"]),
        (["--app-dir", "shop", "ap"], ["plain,api."]),
        (["--user", "roo"], ["plain,root"]),
        (["--group", "roo"], ["plain,root"]),
        (["--set", "workers.count="], ["plain,workers.count=auto"]),
        (["--root-path", ""], []),
        (["main:app", ""], []),
        (["--no-such", "--log-f"], ["plain,--log-format"]),
    ],
)
def test_bash_is_told(project: Path, words: list[str], answer: list[str]) -> None:
    assert ask(project, "bash", words) == answer


def test_a_flag_before_its_value_is_one_word_for_fish(project: Path) -> None:
    assert ask(project, "fish", ["--loop=u"]) == ["plain,--loop=uvloop"]
    assert ask(project, "zsh", ["--loop=u"]) == ["plain", "uvloop", "_"]


def test_asgirictl(project: Path) -> None:
    verbs = ["drain", "recycle", "reload", "scale", "status", "stop"]
    assert ask(project, "bash", [""], "asgirictl") == [f"plain,{verb}" for verb in verbs]
    assert ask(project, "bash", ["reload", "--w"], "asgirictl") == ["plain,--wait"]
    assert ask(project, "bash", ["loglevel", "w"], "asgirictl") == ["plain,warning"]
    assert ask(project, "bash", ["status", "--socket", "/run/"], "asgirictl") == ["file,/run/"]
    assert ask(project, "fish", ["sta"], "asgirictl") == ["plain,status\tShow the service and its workers."]


# In real shells

# What is typed, a TAB behind it, and what stands there then.
LINES = [
    ("asgiri --pid", "asgiri --pidfile "),
    ("asgiri --loop u", "asgiri --loop uvloop "),
    ("asgiri --loop=u", "asgiri --loop=uvloop "),
    ("asgiri mai", "asgiri main:"),
    ("asgiri main:se", "asgiri main:serve "),
    ("asgiri shop.api.views:w", "asgiri shop.api.views:wsgi "),
    ("asgiri --set workers.cou", "asgiri --set workers.count="),
    ("asgiri --set workers.count=a", "asgiri --set workers.count=auto "),
    ("asgiri --set=workers.count=a", "asgiri --set=workers.count=auto "),
    ("asgiri -b un", "asgiri -b unix:"),
    ("asgiri -b unix:stat", "asgiri -b unix:static/"),
    ("asgiri --admin=unix:stat", "asgiri --admin=unix:static/"),
    ("asgiri --pidfile mai", "asgiri --pidfile main.py "),
    ("asgiri --config=mai", "asgiri --config=main.py "),
    ("asgiri --app-dir stat", "asgiri --app-dir static/"),
    ("asgirictl rel", "asgirictl reload "),
    ("asgirictl reload --w", "asgirictl reload --wait "),
]


class Terminal:
    """A shell on a terminal of its own, in which Ctrl-T shows the line as it stands."""

    def __init__(self, command: list[str], project: Path) -> None:
        self._master, slave = os.openpty()
        self._shell = subprocess.Popen(
            command,
            cwd=project,
            env=environment(project),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._heard = b""

    def complete(self, typed: str) -> str:
        """The line after a TAB behind what was typed."""
        self._heard = b""
        os.write(self._master, f"{typed}\t\x14".encode())
        line = self.hear(b"LINE<", b">")
        os.write(self._master, b"\x15")  # Ctrl-U: the next one begins anew
        return line.decode()

    def run(self, command: str) -> None:
        """Run what is a command of the shell's, to its end."""
        os.write(self._master, f"{command}; echo RAN'<'$?'>'\n".encode())
        assert self.hear(b"RAN<", b">") == b"0"
        self._heard = b""

    def hear(self, start: bytes, end: bytes) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while end not in self._heard.partition(start)[2]:
            ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no answer: {self._heard!r}"
            self._heard += os.read(self._master, 4096)
        return self._heard.partition(start)[2].partition(end)[0]

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._master)


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def test_in_bash(project: Path) -> None:
    needs("bash")
    with contextlib.closing(Terminal(["bash", "--norc", "--noprofile", "-i"], project)) as terminal:
        terminal.run("bind 'set enable-bracketed-paste off'")
        for name in ("ASGIRI", "ASGIRICTL"):
            terminal.run(f'eval "$(_{name}_COMPLETE=bash_source {name.lower()})"')
        terminal.run("""bind -x '"\\C-t": printf "LINE<%s>\\n" "$READLINE_LINE"'""")
        assert [(typed, terminal.complete(typed)) for typed, _ in LINES] == LINES
        (project / "two words").mkdir()
        assert terminal.complete("asgiri -b unix:tw") == "asgiri -b unix:two\\ words/"
        assert terminal.complete("asgiri -b unix:two\\ wo") == "asgiri -b unix:two\\ words/"
        assert terminal.complete("asgiri -b 'unix:two wo") == "asgiri -b 'unix:two words/'"
        quoted = "asgiri --set 'workers.count=a"
        assert terminal.complete(quoted) == "asgiri --set 'workers.count=auto' "
        terminal.run("COMP_WORDBREAKS=${COMP_WORDBREAKS//[:=]}")
        assert terminal.complete("asgiri --loop=u") == "asgiri --loop=uvloop "
        assert terminal.complete("true; asgiri main:se") == "true; asgiri main:serve "


def test_in_zsh(project: Path) -> None:
    needs("zsh")
    with contextlib.closing(Terminal(["zsh", "-f", "-i"], project)) as terminal:
        terminal.run("unsetopt zle_bracketed_paste 2>/dev/null; unset zle_bracketed_paste")
        terminal.run("mkdir zfunc && _ASGIRICTL_COMPLETE=zsh_source asgirictl > zfunc/_asgirictl")
        terminal.run("fpath+=$PWD/zfunc; autoload -Uz compinit && compinit -D -u")
        terminal.run('eval "$(_ASGIRI_COMPLETE=zsh_source asgiri)"')
        terminal.run("""show() print -r -- "LINE<$BUFFER>"; zle -N show; bindkey '^T' show""")
        assert [(typed, terminal.complete(typed)) for typed, _ in LINES] == LINES


def test_in_fish(project: Path) -> None:
    needs("fish")
    lines = "\n".join(f"echo LINE; complete -C {shlex.quote(typed)}" for typed, _ in LINES)
    script = f"""
        mkdir -p ~/.config/fish/completions
        env _ASGIRICTL_COMPLETE=fish_source asgirictl > ~/.config/fish/completions/asgirictl.fish
        env _ASGIRI_COMPLETE=fish_source asgiri | source
        {lines}
    """
    ran = subprocess.run(
        ["fish", "-c", script],
        cwd=project,
        env=environment(project),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ran.stderr == ""
    _, *answers = ran.stdout.split("LINE\n")
    found = [answer.splitlines()[0].split("\t")[0] if answer else "" for answer in answers]
    assert found == [line.split()[-1] for _, line in LINES]
