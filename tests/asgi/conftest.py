from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.asgi.exchange import records_of


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """What the session logs."""
    with records_of("asgiri.app") as records:
        yield records
