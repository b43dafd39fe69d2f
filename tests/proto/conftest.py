"""Fixtures of the tests of connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgiri.codec.engines import HTTP1_ENGINES
from tests.proto.fakes import Peer


# Of the module: hypothesis wants no fixtures that are made anew for each test.
@pytest.fixture(scope="module", params=HTTP1_ENGINES)
def each_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module, once with each engine behind their peers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peer, "engine", request.param)
        yield
