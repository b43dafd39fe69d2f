"""Services for the end-to-end tests: each is ended, and seen to be gone, when its test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service

APP_DIR = Path(__file__).parent

Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a master with these arguments; ``config`` is the text of its file; ``app`` defaults to tests/e2e/app.py."""
    services: list[Service] = []

    def begin(
        *args: str, config: str = "", app: str | None = "app:app", env: dict[str, str] | None = None, bind: bool = True
    ) -> Service:
        (tmp_path / "asgiri.yaml").write_text(config, "utf-8")
        chosen = ["--app-dir", str(APP_DIR), app] if app == "app:app" else [app] if app else []
        address = ["--bind", "127.0.0.1:0"] if bind else []
        service = Service(tmp_path, *address, *args, *chosen, env=env)
        services.append(service)
        return service

    yield begin
    problems = []
    for service in services:
        try:
            service.close()
        except AssertionError as problem:
            problems.append(str(problem))
    assert not problems, "\n".join(problems)
