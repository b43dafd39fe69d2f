"""Commands of snippets that no test can run: they are looked at, noted, and not done.

A script, and a module: ``stand_ins.py ROOT NOTES NAME ARGUMENTS``. Exit code 64 for a usage that there is not, or for
something that the checkout does not have: a unit, a manifest, an extra.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

VENV = ("activate", "python", "python3", "pip", "asgiri", "asgirictl")


class MisuseError(Exception):
    """What is wrong with a command."""


def check_pip(root: Path, arguments: Sequence[str]) -> None:
    """``pip install REQUIREMENT...``: what pyproject.toml calls an extra of ours has to be one."""
    words = list(arguments)
    while words[:1] and words[0].startswith("-"):  # options of pip's own; one of them has a value
        del words[: 2 if words[0] == "--python" else 1]
    verb, *rest = words or [""]
    if verb not in ("install", "uninstall", "show", "list", "freeze", "check", "wheel", "download"):
        raise MisuseError(f'no verb of pip\'s: "{verb}"')
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    for word in rest:
        if word.startswith("-"):
            continue
        found = re.fullmatch(r"(?P<name>[\w./-]+)(?:\[(?P<extras>[\w,-]+)\])?(?P<version>[<>=!~].*)?", word)
        if not found:
            raise MisuseError(f'no requirement: "{word}"')
        ours = found["name"] in (".", "asgiri") or re.match(r"(dist/|.*/)?asgiri", found["name"])
        if ours and (unknown := set(filter(None, (found["extras"] or "").split(","))) - extras):
            raise MisuseError(f"no extra of asgiri's: {', '.join(sorted(unknown))}")


def check_apt(_: Path, arguments: Sequence[str]) -> None:
    verb, *names = [word for word in arguments if not word.startswith("-")] or [""]
    if verb not in ("install", "update", "remove", "upgrade"):
        raise MisuseError(f'no verb of apt\'s: "{verb}"')
    for name in names:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            raise MisuseError(f'no name of a package: "{name}"')


def check_systemctl(root: Path, arguments: Sequence[str]) -> None:
    words = [word for word in arguments if not word.startswith("-")]
    verb, *units = words or [""]
    verbs = "start stop restart reload enable disable status daemon-reload edit kill show cat is-active mask unmask"
    if verb not in verbs.split():
        raise MisuseError(f'no verb of systemctl\'s: "{verb}"')
    if verb == "kill":
        units = [unit for unit in units if not re.fullmatch(r"(SIG)?[A-Z]+[12]?", unit)]
    if not units and verb not in ("daemon-reload", "status"):
        raise MisuseError(f"systemctl {verb} of which unit?")
    for unit in units:
        of_checkout(root, unit)


def of_checkout(root: Path, unit: str) -> None:
    """MisuseError where a unit of ours is not in systemd/. Units of others are theirs."""
    name = re.sub(r"@[^.]*", "@", unit)
    name = name if re.search(r"\.(service|socket|target|timer)$", name) else f"{name}.service"
    if name.startswith("asgiri") and (root / "systemd").is_dir() and not (root / "systemd" / name).exists():
        raise MisuseError(f"there is no systemd/{name}")


def check_journalctl(root: Path, arguments: Sequence[str]) -> None:
    for flag, value in pairwise(arguments):
        if flag in ("-u", "--unit"):
            of_checkout(root, value)


def check_docker(root: Path, arguments: Sequence[str]) -> None:
    verb, *rest = [word for word in arguments if word != "compose"] or [""]
    verbs = "build run stop kill ps logs exec pull push tag inspect up down buildx login images rm"
    if verb not in verbs.split():
        raise MisuseError(f'no verb of docker\'s: "{verb}"')
    for flag, value in pairwise(rest):
        if verb == "build" and flag in ("-f", "--file") and not (root / value).exists():
            raise MisuseError(f"there is no {value}")
    if verb == "build" and not {"-f", "--file"} & set(rest) and "." in rest and not (root / "Dockerfile").exists():
        raise MisuseError("there is no Dockerfile")


def check_kubectl(root: Path, arguments: Sequence[str]) -> None:
    words = list(arguments)
    verbs = "apply delete get describe rollout logs exec create scale port-forward top set diff wait explain kustomize"
    if not set(words) & set(verbs.split()):
        raise MisuseError(f'no verb of kubectl\'s: "{" ".join(words)}"')
    files_exist(root, words)


def check_nomad(root: Path, arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] not in ("job", "run", "plan", "status", "node", "alloc", "deployment", "validate"):
        raise MisuseError(f'no verb of nomad\'s: "{" ".join(arguments)}"')
    for word in arguments:
        if word.endswith((".hcl", ".nomad")) and not (root / word).exists() and not Path(word).exists():
            raise MisuseError(f"there is no {word}")


def files_exist(root: Path, words: Sequence[str]) -> None:
    """MisuseError where a file or directory behind ``-f`` or ``-k`` is not in the checkout."""
    for flag, value in pairwise(words):
        if flag in ("-f", "-k", "--filename") and not value.startswith(("-", "http")):
            for one in value.split(","):
                if not (root / one).exists() and not Path(one).exists():
                    raise MisuseError(f"there is no {one}")


def check_module(root: Path, arguments: Sequence[str]) -> None:
    """``python -m tests.bench...``: the module is there."""
    path = root.joinpath(*arguments[0].split("."))
    if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
        raise MisuseError(f"there is no module {arguments[0]}")


def check_ruff(_: Path, arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] not in ("check", "format"):
        raise MisuseError(f'no verb of ruff\'s: "{" ".join(arguments)}"')


def check_mkdocs(root: Path, arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] not in ("build", "serve") or not (root / "mkdocs.yml").exists():
        raise MisuseError(f"mkdocs {' '.join(arguments)}: build or serve, and mkdocs.yml")


def check_paths(root: Path, arguments: Sequence[str]) -> None:
    """Arguments that look like paths of the checkout are there."""
    for word in arguments:
        path = word.partition("::")[0]
        if path.startswith(("tests", "asgiri", "docs")) and not (root / path).exists():
            raise MisuseError(f"there is no {path}")


def check_ci(root: Path, _: Sequence[str]) -> None:
    if not (root / ".ci" / "run").exists():
        raise MisuseError("there is no .ci/run")


def anything(_: Path, arguments: Sequence[str]) -> None:
    if not arguments:
        raise MisuseError("without any argument")


Check = Callable[[Path, Sequence[str]], None]
STAND_INS: dict[str, Check] = {
    "pip": check_pip,
    "apt": check_apt,
    "apt-get": check_apt,
    "systemctl": check_systemctl,
    "journalctl": check_journalctl,
    "docker": check_docker,
    "podman": check_docker,
    "kubectl": check_kubectl,
    "nomad": check_nomad,
    "git": anything,
    "sysctl": anything,
    "certbot": anything,
    "ruff": check_ruff,
    "mypy": check_paths,
    "pytest": check_paths,
    "build": lambda _root, _arguments: None,
    "mkdocs": check_mkdocs,
    "venv": anything,
    "sudo": anything,
}


def make_venv(directory: Path, commands: Path) -> None:
    """A virtual environment whose programs are those of the scene; what is installed into it is not."""
    binaries = directory / "bin"
    binaries.mkdir(parents=True)
    for name in VENV[1:]:
        (binaries / name).symlink_to(commands / name)
    (binaries / VENV[0]).write_text(
        f'VIRTUAL_ENV="{directory.resolve()}"; PATH="{binaries.resolve()}:$PATH"\n', "utf-8"
    )


def main(root: Path, notes: Path, name: str, arguments: Sequence[str]) -> int:
    if name == "sudo":
        import os

        os.execvp(arguments[0], list(arguments))
    with notes.open("a", encoding="utf-8") as file:
        file.write(f"{name} {' '.join(arguments)}\n")
    try:
        if name.startswith("tests"):
            check_module(root, [name])
        elif name == ".ci/run":
            check_ci(root, arguments)
        else:
            STAND_INS[name](root, arguments)
    except MisuseError as wrong:
        print(f"{name}: {wrong}", file=sys.stderr)
        return 64
    if name == "venv":
        make_venv(Path(arguments[-1]), notes.parent.parent / "bin")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
