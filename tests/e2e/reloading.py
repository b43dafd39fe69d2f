"""A project that is worked on: saved, asked, and what each generation says of itself."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, ROOT, Service, eventually

# What it answers: "told" is what the test has had it tell, over what any says.
MAIN = """
import json, os, sys
import elsewhere

TOLD = {told}


async def app(scope, receive, send):
    about = {{"pid": os.getpid(), "ppid": os.getppid(), "first": elsewhere.FIRST, "told": TOLD}}
    about["fds"] = len(os.listdir("/proc/self/fd"))
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": json.dumps(about).encode()}})
"""
# A package that is not watched. It knows which process has imported it.
ELSEWHERE = "import os\nFIRST = os.getpid()\n"


class Project:
    """A folder with ``main.py``, and ``lib``, a folder on the path that is not watched."""

    def __init__(self, top: Path, lib: Path, start: Start) -> None:
        self.top = top
        self.lib = lib
        self._start = start
        self.write("main.py", MAIN.format(told="0"))
        self.outside("elsewhere.py", ELSEWHERE)

    def write(self, name: str, text: str) -> None:
        (self.top / name).parent.mkdir(parents=True, exist_ok=True)
        (self.top / name).write_text(text, "utf-8")

    def outside(self, name: str, text: str) -> None:
        (self.lib / name).parent.mkdir(parents=True, exist_ok=True)
        (self.lib / name).write_text(text, "utf-8")

    def config(self, more: str = "", reload: str = "") -> str:
        return f"reload: {{enabled: true{reload and f', {reload}'}}}\nlifespan: off\nlog: {{level: debug}}\n{more}"

    def serve(self, more: str = "", reload: str = "", *, bind: bool = True) -> Developed:
        path = f"{ROOT}:{self.lib}"
        config = self.config(more, reload)
        service = self._start(app="main:app", config=config, env={"PYTHONPATH": path}, bind=bind)
        return Developed(self, service)


class Developed:
    """A service of a project."""

    def __init__(self, project: Project, service: Service) -> None:
        self.project = project
        self.service = service
        self.log = service.log

    def ready(self) -> Developed:
        self.service.ready()
        return self

    def warm(self, mark: int = 0) -> Developed:
        """Wait for a zygote that is ready after a mark in the log."""
        self.log.wait(r"the zygote is ready", mark)
        return self

    def save(self, told: str, name: str = "main.py", text: str | None = None) -> int:
        """Save something; where the log was before."""
        mark = len(self.log)
        self.project.write(name, MAIN.format(told=told) if text is None else text)
        return mark

    def taken_in(self, mark: int) -> int:
        """Wait until the reload after that mark is complete; the generation."""
        return int(self.log.wait(r"the reload is complete: generation (\d+)", mark)[1])

    def saved(self, told: str) -> dict[str, Any]:
        """Save, wait until it is taken in, and ask."""
        self.taken_in(self.save(told))
        return self.ask()

    def ask(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, (response.status, body)
            answer: dict[str, Any] = json.loads(body)
            return answer
        finally:
            connection.close()

    def until(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Ask until the answer is as wanted."""
        answer: dict[str, Any] = {}

        def is_so() -> object:
            answer.update(self.ask())
            return wanted(answer)

        assert eventually(is_so), (answer, str(self.log))
        return answer

    def one(self, role: str) -> int:
        """The pid of the process that is the zygote, or the watcher; once there is exactly one."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [pid for pid, title in self.service.members().items() if title == f"asgiri: {role}"]
            return len(found) == 1

        assert eventually(is_there), (self.service.members(), str(self.log))
        return found[0]

    def reloads(self, mark: int = 0) -> list[str]:
        """What was told of each reload that has begun."""
        return [match[1] for _, match in self.log.find(r"\[master\] (.*): reloading", mark)]


def is_warm(answer: dict[str, Any]) -> bool:
    """Whether another process has imported what is not watched."""
    return bool(answer["first"] != answer["pid"])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.fixture
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, start: Start) -> Project:
    return Project(tmp_path, tmp_path_factory.mktemp("lib"), start)
