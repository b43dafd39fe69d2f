"""Plays a Dockerfile where there is no container engine: its steps in a root of bind mounts, its entry point as PID 1.

The base image is this system: /usr, read only, and the Python that runs the tests, as `python` and `pip`. Nothing is
downloaded: pip finds the distributions of the running environment, packed as wheels again.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tests.e2e.service import PATIENCE, Log, eventually

BASE = "/base/bin"
PATH = f"{BASE}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a step needs of /etc beside the users, who are made up.
ETC = ("ld.so.cache", "login.defs", "nsswitch.conf", "pam.d", "alternatives")
USERS = {"passwd": "root:x:0:0:root:/root:/bin/sh\n", "group": "root:x:0:\n", "shadow": "root:*:19000:0:99999:7:::\n"}

# Enter a root: $1, with $2 "ro" or "rw"; the lines of stdin are sources and places of bind mounts.
ENTER = """
set -e
root=$1 mode=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
while read -r source place; do
    mount --bind "$source" "$root$place"
    mount -o remount,bind,ro "$root$place"
done
mount -t proc proc "$root/proc"
mount -t tmpfs dev "$root/dev"
for device in null zero full random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
if [ "$mode" = ro ]; then
    mount -t tmpfs tmp "$root/tmp"
    mount -o remount,bind,ro "$root"
fi
exec 0</dev/null
exec chroot "$root" "$@"
"""


class Step(NamedTuple):
    """One instruction: ``flags`` are its ``--name=value``."""

    verb: str
    text: str
    flags: dict[str, str]

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)

    @property
    def exec_form(self) -> list[str]:
        """The list of a command that no shell runs; ValueError for one that a shell would."""
        found = json.loads(self.text)
        if not isinstance(found, list):
            raise ValueError(f"expected a list, got {self.text}")
        return [str(word) for word in found]


def parse(text: str) -> list[Step]:
    """The instructions of a Dockerfile (docs.docker.com, Dockerfile reference: comments, continued lines, flags)."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "", "\n".join(lines))
    steps = []
    for line in filter(str.strip, joined.splitlines()):
        verb, _, rest = line.strip().partition(" ")
        flags = {}
        while match := re.match(r"\s*--([a-z-]+)=(\S+)\s*", rest):
            flags[match[1]] = match[2]
            rest = rest[match.end() :]
        steps.append(Step(verb.upper(), rest.strip(), flags))
    return steps


class Ignored:
    """The patterns of a .dockerignore: the last one that a path or a folder above it matches decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self._rules = [(line.startswith("!"), _pattern(line.lstrip("!").strip("/"))) for line in lines]

    def __call__(self, path: str) -> bool:
        parts = PurePosixPath(path)
        names = [str(parts), *(str(parent) for parent in parts.parents if parent.name)]
        ignored = False
        for keeps, pattern in self._rules:
            if any(pattern.fullmatch(name) for name in names):
                ignored = not keeps
        return ignored


def _pattern(text: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(words.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", text)))


class Image:
    """A root directory, and how it is started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {"PATH": PATH}
        self.directory = "/"
        self.user = "0:0"
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []
        self.stop = signal.SIGTERM

    def copy(self, root: Path) -> Image:
        other = Image(root)
        other.__dict__ |= {**self.__dict__, "root": root, "env": dict(self.env)}
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.root), str(root)], check=True)
        return other

    def inside(self, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
        """A command in this root, as its user, in its directory, with its variables."""
        user, _, group = self.user.partition(":")
        who = ["setpriv", f"--reuid={user}", f"--regid={group or user}", "--clear-groups"]
        if user != "0":
            who += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        variables = [f"{name}={value}" for name, value in {**self.env, **env}.items()]
        return [*who, "env", "-i", "-C", self.directory, *variables, *command]

    def enter(self, mode: str) -> list[str]:
        return ["unshare", "--pid", "--fork", "--kill-child", "--mount", "sh", "-c", ENTER, "sh", str(self.root), mode]

    def path(self, place: str) -> Path:
        """A path of the image, as it is seen from here."""
        return self.root / os.path.normpath(os.path.join(self.directory, place)).lstrip("/")


def binds(volumes: Mapping[str, str] = {}) -> str:
    """Lines for ENTER: the base image's files, and places of volumes with their sources."""
    folders = [place for place in ("/usr", "/bin", "/sbin", "/lib", "/lib64") if Path(place).is_dir()]
    lines = [f"{place} {place}" for place in folders if not Path(place).is_symlink()]
    if not sys.base_prefix.startswith("/usr"):
        lines.append(f"{sys.base_prefix} {sys.base_prefix}")
    return "".join(f"{line}\n" for line in [*lines, *(f"{source} {place}" for place, source in volumes.items())])


class Player:
    """Builds images below ``directory``; ``wheels`` is where pip looks, ``builders`` what a build may import."""

    def __init__(self, directory: Path, wheels: Path, builders: Path) -> None:
        self._directory = directory
        self._given = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of its opposite
            "PIP_NO_COMPILE": "1",  # bytecode takes as long as all the rest
            "PIP_ROOT_USER_ACTION": "ignore",
            "PYTHONPATH": "/builders",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._volumes = {"/wheels": str(wheels), "/builders": str(builders)}
        self._count = 0
        self.images: dict[str, Image] = {}
        self.skipped: list[str] = []  # what asks for the network

    def build(self, text: str, context: Path, tag: str, **args: str) -> Image:
        """Play a Dockerfile. CalledProcessError when a step fails; ``args`` are those of ARG."""
        stages: dict[str, Image] = {}
        known: dict[str, str] = {}
        image: Image | None = None
        ignored = Ignored(
            (context / ".dockerignore").read_text("utf-8") if (context / ".dockerignore").exists() else ""
        )
        for step in parse(text):
            if step.verb == "ARG":
                name, _, default = step.text.partition("=")
                known[name] = args.get(name, default)
            elif step.verb == "FROM":
                words = [expand(word, known) for word in step.words]
                image = self._begin(words[0])
                stages[words[2] if len(words) > 2 else ""] = image
            else:
                assert image is not None
                self._play(step, image, stages, known, context, ignored)
        assert image is not None
        self.images[tag] = image
        return image

    def _begin(self, name: str) -> Image:
        self._count += 1
        root = self._directory / f"root-{self._count}"
        if name in self.images:
            return self.images[name].copy(root)
        assert re.fullmatch(r"python:3\.\d+-slim", name), f"there is no base image {name}"
        for place in ("etc", "proc", "dev", "tmp", "opt", "base/bin", "usr", "root", sys.base_prefix.lstrip("/")):
            (root / place).mkdir(parents=True, exist_ok=True)
        for place in self._volumes:
            (root / place.lstrip("/")).mkdir()
        for place in ("bin", "sbin", "lib", "lib64"):
            if (found := Path("/", place)).is_symlink():
                (root / place).symlink_to(os.readlink(found))
            elif found.is_dir():
                (root / place).mkdir()
        for name in ETC:
            if Path("/etc", name).exists():
                subprocess.run(["cp", "-a", f"/etc/{name}", str(root / "etc")], check=True)
        for name, content in USERS.items():
            (root / "etc" / name).write_text(content, "ascii")
        tools = root / BASE.lstrip("/")
        (tools / "python").symlink_to(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
        script(tools / "pip", f'exec {BASE}/python -m pip "$@"')
        if shutil.which("strip") is None:
            script(tools / "strip", "exit 0")
        return Image(root)

    def _play(
        self, step: Step, image: Image, stages: dict[str, Image], known: dict[str, str], context: Path, ignored: Ignored
    ) -> None:
        text = expand(step.text, {**known, **image.env})
        match step.verb:
            case "RUN":
                self._run(step.text, image, known)
            case "COPY":
                *sources, target = shlex.split(text)
                origin = stages[step.flags["from"]].root if "from" in step.flags else context
                for source in sources:
                    copy(origin, source.lstrip("/"), image.path(target), target, None if origin != context else ignored)
            case "ENV":
                image.env |= dict(word.split("=", 1) for word in shlex.split(text))
            case "WORKDIR":
                image.directory = os.path.join(image.directory, text)
                image.path(".").mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = self._user(text, image)
            case "ENTRYPOINT":
                image.entrypoint, image.command = step.exec_form, []
            case "CMD":
                image.command = step.exec_form
            case "HEALTHCHECK":
                verb, _, rest = step.text.partition(" ")
                assert verb == "CMD"
                image.health = Step(verb, rest.strip(), {}).exec_form
            case "STOPSIGNAL":
                image.stop = signal.Signals[text]
            case "EXPOSE":
                assert all(0 < int(port) < 65536 for port in text.split())
            case _:
                raise ValueError(f"{step.verb} is not played")

    def _run(self, text: str, image: Image, known: dict[str, str]) -> None:
        if text.startswith("apt-get "):
            self.skipped.append(text)
            return
        command = image.inside(["/bin/sh", "-c", text], {**known, **self._given})
        done = subprocess.run(
            [*image.enter("rw"), *command], input=binds(self._volumes), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"RUN {text}\n{done.stdout}\n{done.stderr}"

    def _user(self, text: str, image: Image) -> str:
        """A user as numbers."""
        if text[0].isdigit():
            return text
        entry = next(
            line.split(":") for line in image.path("/etc/passwd").read_text().splitlines() if line.split(":")[0] == text
        )
        return f"{entry[2]}:{entry[3]}"


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", "ascii")
    path.chmod(0o755)


def expand(text: str, variables: Mapping[str, str]) -> str:
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda match: variables.get(match[1] or match[2], ""), text)


def copy(origin: Path, source: str, target: Path, written: str, ignored: Ignored | None) -> None:
    """COPY: of a folder what is in it; ``written`` is the target as it stands there: a slash makes it a folder."""
    path = origin / source
    if ignored is not None and ignored(os.path.normpath(source)) and source != ".":
        raise FileNotFoundError(f"COPY {source}: .dockerignore hides it")
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder, name)
                if ignored is None or not ignored(str(file.relative_to(origin))):
                    put(file, target / file.relative_to(path))
    else:
        put(path, target / path.name if written.endswith("/") or target.is_dir() else target)


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


class Container:
    """An image that runs, with a root that is read only and a tmpfs at /tmp. ``volumes``: place in it, source."""

    def __init__(self, image: Image, *args: str, env: Mapping[str, str] = {}, volumes: Mapping[str, str] = {}) -> None:
        self._image = image
        self._env = env
        command = image.inside([*image.entrypoint, *(args or image.command)], env)
        self.process = subprocess.Popen(
            [*image.enter("ro"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.log = Log(self.process.stderr)
        assert self.process.stdin is not None
        with self.process.stdin as stdin:
            stdin.write(binds(volumes))

    @property
    def pid(self) -> int:
        """PID 1, as it is seen from here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        assert eventually(lambda: children.read_text("ascii")), str(self.log)
        return int(children.read_text("ascii"))

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, as `docker exec` does."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd=/"]
        inside = self._image.inside(command, self._env)
        return subprocess.run([*enter, *inside], capture_output=True, text=True, check=False, timeout=PATIENCE)

    def health(self) -> int:
        return self.execute(self._image.health).returncode

    def stop(self) -> int:
        """The exit code, once it was told to stop and has."""
        os.kill(self.pid, self._image.stop)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)  # and with PID 1 goes its namespace
            self.process.wait(PATIENCE)
        self.log.join()


# Wheels


def needed(names: Iterable[str]) -> dict[str, importlib.metadata.Distribution]:
    """The distributions of the running environment that these requirements take. PackageNotFoundError."""
    from packaging.requirements import Requirement

    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(Requirement(name), "") for name in names]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = requirement.name.lower()
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            waiting += [(Requirement(one), "") for one in found[name].requires or []]
    return found


def wheelhouse(directory: Path, names: Iterable[str]) -> None:
    """Pack what these requirements take as wheels again (packaging.python.org, binary distribution format)."""
    directory.mkdir()
    for one in needed(names).values():
        name = re.sub(r"[-_.]+", "_", one.metadata["Name"])
        tags = re.findall(r"(?m)^Tag: (\S+)", one.read_text("WHEEL") or "")
        parts = [".".join(dict.fromkeys(tag.split("-")[i] for tag in tags)) for i in range(3)]
        files: list[Any] = [file for file in one.files or [] if ".." not in file.parts and file.suffix != ".pyc"]
        with zipfile.ZipFile(directory / f"{name}-{one.version}-{'-'.join(parts)}.whl", "w") as wheel:
            for file in files:
                if file.name not in ("INSTALLER", "REQUESTED", "direct_url.json"):
                    wheel.write(file.locate(), str(file))
