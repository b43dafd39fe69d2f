"""A site for each framework and set of engines, and visitors that speak HTTP/1.1 and HTTP/2."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.e2e.frameworks.site import Site, Visitor
from tests.pki import Pki


# Of the module: pytest runs all tests of one site before those of the next, so one of them is there at a time.
@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[Site]:
    """The parameter is a pair of a framework and the name of a set of engines."""
    framework, engines = request.param
    for module in framework.modules:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    site = Site(framework, engines, tmp_path_factory.mktemp(f"{framework.name}-{engines}"), pki)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture(params=["1.1", "2"], ids=["http1", "http2"])
def visitor(site: Site, request: pytest.FixtureRequest) -> Visitor:
    return Visitor(site, request.param)
