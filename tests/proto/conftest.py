"""Fixtures of the tests of connections."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgiri.codec.engines import HTTP1_ENGINES, HTTP2_ENGINES
from tests.proto.fakes import Peer
from tests.proto.fakes_http2 import Http2Peer


# Of the module: hypothesis wants no fixtures that are made anew for each test.
@pytest.fixture(scope="module", params=HTTP1_ENGINES)
def each_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module, once with each engine behind their peers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peer, "engine", request.param)
        yield


@pytest.fixture(scope="module", params=HTTP2_ENGINES)
def each_http2_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The tests of a module, once with each engine of HTTP/2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Http2Peer, "engine", request.param)
        yield
