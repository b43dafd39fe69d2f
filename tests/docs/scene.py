"""A scene: blocks of a page that are run one after the other, in one shell, as its reader would.

It has a network, mounts and processes of its own (unshare(1)), so fixed ports and paths (127.0.0.1:8000, /run,
/etc/asgiri) are nobody else's, and nothing is left behind: with its first process all others end. First on its PATH are
``asgiri`` (keeper.py) and ``asgirictl`` of this checkout, and stand_ins.py for what cannot be run in a test.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from tests.docs.markdown import Command, Snippet, commands
from tests.docs.stand_ins import STAND_INS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
PATIENCE = 50.0  # seconds for a whole scene
SHELLS = ("sh", "bash", "console", "zsh", "fish")

# Programs that snippets may use and a machine may be without: then the scene is skipped. All others have to be there.
OPTIONAL = (
    "nc",
    "jq",
    "zsh",
    "fish",
    "openssl",
    "nghttp",
    "h2load",
    "ab",
    "wrk",
    "nginx",
    "haproxy",
    "logrotate",
    "node",
)

# What of the checkout is to be seen in the working directory, as in a checkout, and cannot be written.
CHECKOUT = (
    "config",
    "deploy",
    "systemd",
    "docs",
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)

# What is the scene's own, empty.
OWN = ("/run", "/srv", "/var/log", "/var/lib", "/opt")

APP = '''\
"""An application as its reader has one."""

from asgiri.demo import app


def create_app() -> object:
    return app
'''

_SETUP = """\
set -e
mount -t tmpfs tmpfs {layers}
mkdir {layers}/upper {layers}/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={layers}/upper,workdir={layers}/work /etc
ip link set lo up
step=0
finish() {{
  code=$?
  trap - EXIT
  exec >>"{out}/end" 2>&1
  {keeper} --stop {state} || code=97
  for job in $(jobs -p); do
    [ ! -e {state}/$job.background ] || {{ kill $job; wait $job || {{ echo "server $job ended with $?"; code=97; }}; }}
  done
  echo "$step $code" >{out}/result
}}
trap finish EXIT
exec </dev/null
cd {work}
"""


@dataclass
class Outcome:
    """What came of a block: ``trouble`` is empty where all was as it should be."""

    trouble: str = ""
    output: str = ""


@dataclass
class Scene:
    """The blocks, and the files that tests/pki.py has made: certificate, key and authority."""

    snippets: tuple[Snippet, ...]
    directory: Path
    certificates: dict[str, str]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    # The script

    @property
    def out(self) -> Path:
        return self.directory / "out"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    @property
    def keeper(self) -> str:
        return shlex.join([sys.executable, "-I", "-S", str(HERE / "keeper.py")])

    @property
    def state(self) -> Path:
        return self.directory / "state"

    def prepare(self) -> Path:
        """Make the directories, and the script, which is returned."""
        for name in ("out", "in", "work", "state", "bin", "home", "layers"):
            (self.directory / name).mkdir()
        self._commands()
        lines = [
            _SETUP.format(
                layers=self.directory / "layers", out=self.out, work=self.work, keeper=self.keeper, state=self.state
            )
        ]
        lines += [f"mount -t tmpfs tmpfs {own}" for own in OWN if Path(own).is_dir() and not _needed(own)]
        lines.append("mkdir -p /run/asgiri /var/log/asgiri /etc/asgiri")
        for name in CHECKOUT:
            if (source := ROOT / name).exists():
                target = self.work / name
                target.mkdir() if source.is_dir() else target.touch()
                lines.append(f"mount --bind {source} {target}; mount -o remount,ro,bind {target}")
        (self.work / ".ci").mkdir()
        self._wrapper(self.work / ".ci" / "run", f"exec {self._stand_in} .ci/run")
        (self.work / "main.py").write_text(APP, "utf-8")
        (self.directory / "home" / ".curlrc").write_text("silent\nshow-error\n", "ascii")  # as on a terminal
        for number, snippet in enumerate(self.snippets, 1):
            lines += self._before(snippet)
            lines += [f"step={number}; exec >{self.out}/{number} 2>&1", *self._lines(number, snippet)]
        script = self.directory / "scene.sh"
        script.write_text("\n".join([*lines, "step=all", "exit 0", ""]), "utf-8")
        return script

    @property
    def _stand_in(self) -> str:
        return shlex.join(
            [sys.executable, "-I", "-S", str(HERE / "stand_ins.py"), str(ROOT), str(self.state / "recorded")]
        )

    def _wrapper(self, path: Path, text: str) -> None:
        path.write_text(f"#!/bin/bash\n{text}\n", "utf-8")
        path.chmod(0o755)

    def _commands(self) -> None:
        here = self.directory / "bin"
        python = shlex.quote(sys.executable)
        self._wrapper(here / "asgiri", f'exec {self.keeper} {self.state} {python} -- "$@"')
        self._wrapper(here / "asgirictl", f'exec {python} -P -W error -m asgiri.ctl "$@"')
        for name in STAND_INS:
            self._wrapper(here / name, f'exec {self._stand_in} {name} "$@"')
        modules = "|".join(f'"-m {name}"' for name in STAND_INS)
        cases = f"""\
case "$1 $2" in
  "-m asgiri") exec {here}/asgiri "${{@:3}}" ;;
  {modules}|"-m tests".*) name=$2; shift 2; exec {self._stand_in} "$name" "$@" ;;
esac
exec {python} "$@\""""
        for name in ("python", "python3"):
            self._wrapper(here / name, cases)

    def _before(self, snippet: Snippet) -> list[str]:
        """What ``with`` and ``in`` ask for."""
        lines = []
        if (where := snippet.words.one("in")) and snippet.language in SHELLS:
            copy = self.directory / "work" / "copy"
            lines.append(f"cp -r {shlex.quote(str(ROOT / where))} {copy}; cd {copy}")
        for word in snippet.words.all("with"):
            if word == "certificates":
                for name, source in self.certificates.items():
                    lines += [f"cp {source} {name}", f"cp {source} /etc/asgiri/{name}", f"chmod 600 {name}"]
            elif word == "service":
                arguments = "-w 2 --admin 127.0.0.1:9000 --pidfile /run/asgiri/asgiri.pid"
                lines.append(f"asgiri {arguments} main:app 2>{self.out}/log")
            elif re.fullmatch(r"[A-Z_]+=.*", word):
                lines.append(f"export {shlex.quote(word)}")
            elif re.fullmatch(r"[\w.]+:\w+", word):
                module = Path(*word.partition(":")[0].split(".")).with_suffix(".py")
                lines.append(f"mkdir -p {module.parent}; [ -e {module} ] || cp main.py {module}")
            else:
                raise ValueError(f'{snippet.place}: "with {word}" is not known')
        return lines

    def _lines(self, number: int, snippet: Snippet) -> list[str]:
        text = snippet.text
        source = self.directory / "in" / str(number)
        source.write_text(text, "utf-8")
        if name := snippet.words.one("file"):
            path = shlex.quote(name)
            return [f"mkdir -p $(dirname {path}); cp {source} {path}", "" if "." in name else f"chmod +x {path}"]
        if snippet.language == "console":
            return [line for at, one in enumerate(commands(text), 1) for line in self._told(f"{number}.{at}", one)]
        if snippet.language == "zsh":  # compinit is what an interactive one has behind it, in most people's .zshrc
            return [f"zsh -fec 'autoload -Uz compinit; compinit -D -u; source {source}'"]
        if snippet.language == "fish":
            return [f"fish {source}"]
        settled = re.sub(
            r"^([ \t]*(?:\w+=\S+ )*asgiri\b.*[^&]&)[ \t]*(?:#.*)?$",
            lambda found: f"{found[1]}\n{self.keeper} --settle {self.state} $!",
            text,
            flags=re.MULTILINE,
        )
        if code := snippet.words.one("fails"):
            body = f"set +e\n( set -e\n{settled})\ncode=$?\nset -e"
            return [body, f'[ "$code" = {code} ] || {{ echo "exit code $code, not {code}"; exit 96; }}']
        return ["set -e", settled]

    def _told(self, name: str, one: Command) -> list[str]:
        """A command of a console block, what it says in a file of its own; ``name.code`` has how it ended."""
        return [f"exec >{self.out}/{name} 2>&1", "set +e", one.command, f"echo $? >{self.out}/{name}.code", "set -e"]

    # The run

    def run(self) -> None:
        """Run it, and note what came of each block."""
        script = self.prepare()
        environ = {
            "PATH": f"{self.directory}/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            "HOME": str(self.directory / "home"),
            "TMPDIR": str(self.directory / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "BASH_SILENCE_DEPRECATION_WARNING": "1",
        }
        ran = subprocess.run(
            [*isolated(), "bash", str(script)],
            env=environ,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        result = self.out / "result"
        reached, code = result.read_text("ascii").split() if result.exists() else ("0", str(ran.returncode))
        end = f"{ran.stdout}{ran.stderr}{_text(self.out / 'end')}{_text(self.out / 'log')}"
        for number, snippet in enumerate(self.snippets, 1):
            self.outcomes[snippet.id] = self._outcome(number, snippet, reached, code, end)

    def _outcome(self, number: int, snippet: Snippet, reached: str, code: str, end: str) -> Outcome:
        output = _text(self.out / str(number))
        if reached == "0":
            return Outcome(f"the scene could not be set up ({code})", end)
        if reached != "all" and number > int(reached):
            return Outcome(f"not reached: the block at {self.snippets[int(reached) - 1].place} ended it with {code}")
        if reached == str(number):
            return Outcome(f"ended with {code}", output + end)
        if snippet.language == "console" and not snippet.words.one("file"):
            return self._compared(number, snippet)
        if reached == "all" and code != "0" and number == len(self.snippets):
            return Outcome(f"the scene ended with {code}", output + end)
        if snippet.language in ("sh", "bash"):
            return Outcome(held_up(snippet.text), output)
        return Outcome("", output)

    def _compared(self, number: int, snippet: Snippet) -> Outcome:
        whole = []
        for at, one in enumerate(commands(snippet.text), 1):
            got, code = _text(self.out / f"{number}.{at}"), _text(self.out / f"{number}.{at}.code").strip()
            whole.append(f"$ {one.command}\n{got}")
            if not one.output and code != "0":
                return Outcome(f"line {snippet.line + one.line}: ended with {code}", "".join(whole))
            if one.output and not matches("\n".join(one.output), got):
                expected = "\n".join(one.output)
                return Outcome(f"line {snippet.line + one.line}: not what was expected:\n{expected}\n-- but:\n{got}")
        return Outcome("", "".join(whole))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def _needed(directory: str) -> bool:
    """Whether the checkout or Python are below it."""
    return any(
        Path(directory) in Path(place).resolve().parents for place in (ROOT, sys.prefix, sys.base_prefix, gettempdir())
    )


def held_up(text: str) -> str:
    """What is wrong with a block whose reader would wait for a server in the foreground for ever."""
    lines = [
        line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    quick = ("--check-config", "--print-config", "--schema", "--version", "--help", " -h")
    for at, line in enumerate(lines):
        serves = re.match(r"(?:\w+=\S+ )*(?:asgiri|python3? -m asgiri)\b", line) and not any(
            one in line for one in quick
        )
        last = all(re.match(r"(?:\w+=\S+ )*asgiri\b", other) for other in lines[at + 1 :])
        if serves and not last and not re.search(r"&\s*(#.*)?$|&&|\|\||[<>|]", line):
            return f"{line!r} serves until it is stopped: what is behind it is never run"
    return ""


# What differs from run to run, and is taken for the same.
_VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"), "DATE"),
    (re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT"), "DATE"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(ms|us|s|MiB|KiB)\b"), r"N \1"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"\b(asgiri|Python|curl)([ /])\d+\.\d+[\w.]*"), r"\1\2VERSION"),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


def matches(expected: str, got: str) -> bool:
    """Whether the output is the expected one: ``...`` stands for anything, on a line of its own for any lines. Dates,
    times, sizes, pids and versions may differ, and blank lines at the end.
    """
    for pattern, instead in _VARYING:
        expected, got = pattern.sub(instead, expected), pattern.sub(instead, got)
    parts = []
    for line in expected.rstrip().split("\n"):
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r"[^\n]*".join(re.escape(part) for part in line.split("...")) + r"\n")
    return re.fullmatch("".join(parts), got.replace("\r", "").strip("\n") + "\n") is not None


# Where it can be run


@cache
def isolated() -> tuple[str, ...]:
    """The command that gives the rest of its arguments namespaces of their own; empty where that is not allowed."""
    spaces = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    script = _SETUP.partition("step=")[0].format(layers="/run")
    for command in (spaces, (*spaces, "--user", "--map-root-user")):
        if shutil.which("unshare") and shutil.which("ip"):
            tried = subprocess.run([*command, "sh", "-c", script], capture_output=True, check=False)
            if tried.returncode == 0:
                return command
    return ()


def missing(snippets: tuple[Snippet, ...]) -> list[str]:
    """The optional programs that these blocks use and that are not here."""
    text = "\n".join(one.text for one in snippets if one.language in SHELLS)
    text += " ".join(one.language for one in snippets)
    used = [name for name in OPTIONAL if re.search(rf"(?:^|[|;&(\s]){name}(?=[\s;)]|$)", text, re.MULTILINE)]
    return [name for name in used if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]
