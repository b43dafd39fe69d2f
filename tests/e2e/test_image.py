"""The Dockerfile, played step by step, and what comes of it: a container that is nobody's and writes nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx
import pytest
import yaml

from asgiri.units import parse_duration
from tests.e2e.image import Container, Ignored, Image, Player, Step, parse, wheelhouse
from tests.e2e.service import PATIENCE, ROOT, eventually
from tests.e2e.test_container import PID_NAMESPACE, needs

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
PAGE = (ROOT / "docs" / "operations" / "containers.md").read_text("utf-8")
# More than what asgiri and its dependencies take, and less than the base image leaves of 150 MB.
MEGABYTES = 25

can_play = needs(*PID_NAMESPACE)


def why_no_wheels() -> str:
    """What this environment lacks to install asgiri from its sources, offline; empty when that is nothing."""
    try:
        version = distribution("setuptools").version
    except PackageNotFoundError:
        return "there is no setuptools"
    if int(version.partition(".")[0]) < 77:
        return f"setuptools is too old ({version}) for the build backend of pyproject.toml"
    base = [sys._base_executable, "-m", "pip", "--version"]  # type: ignore[attr-defined]
    if subprocess.run(base, capture_output=True, check=False).returncode != 0:
        return "the Python below the virtual environment has no pip"
    return ""


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Player:
    if why := why_no_wheels():
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("image")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wheelhouse(directory / "wheels", [*project["dependencies"], *project["optional-dependencies"]["fast"], "a2wsgi"])
    builders = directory / "builders"
    builders.mkdir()
    setuptools = distribution("setuptools")
    for name in ("setuptools", "_distutils_hack", f"setuptools-{setuptools.version}.dist-info"):
        unwanted = shutil.ignore_patterns("__pycache__", "tests")
        shutil.copytree(str(setuptools.locate_file(name)), builders / name, ignore=unwanted)
    return Player(directory, directory / "wheels", builders)


@pytest.fixture(scope="module")
def image(player: Player) -> Image:
    return player.build(DOCKERFILE, ROOT, "asgiri", ASGIRI_COMPILE="0")


@pytest.fixture(scope="module")
def served(player: Player, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image of one's own, as the page has it: the application is tests/e2e/app.py."""
    [text] = re.findall(r"```dockerfile\n(FROM asgiri\n.*?)```", PAGE, re.DOTALL)
    context = tmp_path_factory.mktemp("context")
    (context / "requirements.txt").write_text("a2wsgi\n", "utf-8")
    (context / "main.py").write_text((ROOT / "tests" / "e2e" / "app.py").read_text("utf-8"), "utf-8")
    return player.build(text, context, "shop")


@pytest.fixture
def port() -> Iterator[int]:
    """For the admin listener: a port that nobody else is given."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def container(served: Image, port: int) -> Iterator[Container]:
    env = {"PORT": "0", "ADMIN_PORT": str(port), "ASGIRI_WORKERS__DRAIN_DELAY": "0", "MARKS": "/tmp"}
    one = Container(served, env=env)
    yield one
    one.close()


def url(container: Container) -> str:
    return f"http://127.0.0.1:{container.log.wait(r'listening on http://0.0.0.0:([0-9]+) .h2')[1]}"


def test_what_the_file_promises() -> None:
    steps = parse(DOCKERFILE)
    stages = [step.text for step in steps if step.verb == "FROM"]
    assert stages == ["python:${PYTHON}-slim AS build", "python:${PYTHON}-slim"]
    last = steps[[step.verb for step in steps].index("FROM", 3) :]
    by_verb = {step.verb: step for step in last}
    assert by_verb["ENTRYPOINT"].exec_form == ["asgiri"]
    assert by_verb["CMD"].exec_form == []
    assert by_verb["STOPSIGNAL"].text == "SIGTERM"
    assert by_verb["USER"].text == "10001:10001"
    assert set(by_verb["HEALTHCHECK"].flags) == {"interval", "timeout", "start-period", "retries"}
    assert not [step for step in last if "apt-get" in step.text or "curl" in step.text]


def test_a_changed_source_does_not_install_the_dependencies_anew() -> None:
    texts = [step.text for step in parse(DOCKERFILE) if step.verb in ("COPY", "RUN")]
    installs = next(index for index, text in enumerate(texts) if "-r requirements.txt" in text)
    assert [text for text in texts[:installs] if not text.startswith(("apt-get", "python -m venv"))] == [
        "pyproject.toml ./"
    ]


def test_what_is_sent_to_the_builder() -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text("utf-8"))
    sent = ["asgiri/server.py", "asgiri/admin/page/status.js", "pyproject.toml", "config/container.yaml"]
    kept = [
        ".git/config",
        "tests/pki.py",
        "asgiri/__pycache__/a.pyc",
        "asgiri/asgi/__pycache__/a.pyc",
        "config/asgiri.yaml",
    ]
    assert [ignored(path) for path in sent] == [False] * len(sent)
    assert [ignored(path) for path in kept] == [True] * len(kept)


def test_the_compose_file_of_the_page_fits() -> None:
    [text] = re.findall(r"```yaml\n(services:.*?)```", PAGE, re.DOTALL)
    shop = yaml.safe_load(text)["services"]["shop"]
    [health] = [step for step in parse(DOCKERFILE) if step.verb == "HEALTHCHECK"]
    assert shop["healthcheck"]["test"] == ["CMD", *Step("", health.text.partition(" ")[2], {}).exec_form]
    workers = yaml.safe_load((ROOT / "config" / "container.yaml").read_text("utf-8"))["workers"]
    drain = parse_duration(workers["drain_delay"]) + parse_duration(workers["drain_timeout"])
    assert parse_duration(shop["stop_grace_period"]) >= drain + 2


@can_play
def test_what_is_in_the_image(player: Player, image: Image) -> None:
    [packages] = image.path("/opt/asgiri/lib").glob("python3.*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"asgiri", "uvloop", "websockets"} <= names
    assert not {"pip", "setuptools", "mypy"} & names
    files = [path for path in image.path("/opt/asgiri").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if path.suffix in (".pyx", ".pxd", ".c", ".h")]
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 1e6
    assert [text for text in player.skipped if "gcc" not in text] == []
    assert not image.path("/src").exists()
    assert "asgiri:x:10001:10001:" in image.path("/etc/passwd").read_text("utf-8")


@can_play
def test_the_image_as_it_is_serves_the_demo(image: Image, port: int) -> None:
    container = Container(image, env={"PORT": "0", "ADMIN_PORT": str(port), "ASGIRI_WORKERS__DRAIN_DELAY": "0"})
    try:
        container.log.wait("ready: 2 workers")
        assert "asgiri" in httpx.get(url(container), trust_env=False, timeout=PATIENCE).text
        assert container.stop() == 0
        assert "ERROR" not in str(container.log)
        assert "Traceback" not in str(container.log)
    finally:
        container.close()


@can_play
def test_it_is_nobody_and_writes_nothing(container: Container) -> None:
    container.log.wait("ready: 2 workers")
    status = Path(f"/proc/{container.pid}/status").read_text("ascii")
    assert re.search(r"(?m)^Uid:\s+10001\s+10001\s+10001\s+10001$", status)
    assert re.search(r"(?m)^CapBnd:\s+0+$", status)
    assert re.search(r"(?m)^NSpid:\s+\d+\s+1$", status)
    for place in ("/srv", "/etc", "/opt/asgiri", "/"):
        done = container.execute(["touch", f"{place}/written"])
        assert done.returncode != 0, place
    assert container.execute(["touch", "/tmp/written"]).returncode == 0
    assert container.execute(["id", "-un"]).stdout == "asgiri\n"


@can_play
def test_its_health_is_checked_from_inside(container: Container) -> None:
    container.log.wait("ready: 2 workers")
    assert container.health() == 0
    os.kill(container.pid, signal.SIGSTOP)  # a master that hangs; a worker that does is the master's to replace
    assert eventually(lambda: container.health() == 1)
    os.kill(container.pid, signal.SIGCONT)
    assert eventually(lambda: container.health() == 0)


@can_play
def test_a_stop_finishes_what_is_under_way(container: Container) -> None:
    container.log.wait("ready: 2 workers")
    status: list[int] = []

    def ask() -> None:
        status.append(httpx.get(f"{url(container)}/slow?seconds=0.7", trust_env=False, timeout=PATIENCE).status_code)

    request = threading.Thread(target=ask)
    request.start()
    begun = Path(f"/proc/{container.pid}/root/tmp/slow")
    assert eventually(begun.exists)
    assert container.stop() == 0
    request.join(PATIENCE)
    assert status == [200]
