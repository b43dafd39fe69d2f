"""What a quick start leaves out is loaded once there are descriptors for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from asgiri.config.schema import Config
from asgiri.errors import ConfigError
from asgiri.worker import main
from asgiri.worker.main import Worker
from tests.proto.fakes import run


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ConfigError([])], ids=["python", "compiled"])
def test_what_cannot_be_loaded_now_is_loaded_later(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a compiled module the import says that it is not there, which is what an engine is told that is missing."""
    errors = [error, error]
    loaded = asyncio.Event()

    def load(config: Config) -> None:
        assert config == Config()
        if errors:
            raise errors.pop()
        loaded.set()

    monkeypatch.setattr(main, "load_engines", load)
    monkeypatch.setattr(main, "LEFT_OUT_SECONDS", 0.001)

    async def scenario() -> None:
        Worker._load_left_out(cast(Any, left_out))
        async with asyncio.timeout(20):
            await loaded.wait()

    left_out = SimpleNamespace(_boot=SimpleNamespace(config=Config()))
    left_out._load_left_out = lambda: Worker._load_left_out(cast(Any, left_out))
    run(scenario())
