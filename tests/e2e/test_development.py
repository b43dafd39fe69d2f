"""What is for development is there under reload only: else nothing of it is imported, answers, or is offered."""

from __future__ import annotations

import http.client

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, get


@pytest.mark.parametrize("enabled", [False, True])
def test_it_is_there_under_reload_only(start: Start, enabled: bool) -> None:
    # reload.browser alone, and folders to watch, turn nothing on.
    reload = f"{{enabled: {str(enabled).lower()}, browser: true, dirs: [.], warm: false}}"
    service = start(config=f"reload: {reload}\n").ready()
    offers = get(service, "/offers")
    found = {name for name in offers["modules"] if name.startswith(("asgiri.dev", "asgiri.worker.dev", "watchfiles"))}
    assert ("asgiri.dev.app" in found) is enabled, found
    assert bool(found) is enabled, found
    assert ("http.response.debug" in offers["extensions"]) is enabled
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE)
    connection.request("GET", "/.asgiri/reload.js")
    answer = connection.getresponse()
    kind = answer.getheader("content-type")
    connection.close()
    assert (kind == "text/javascript; charset=utf-8") is enabled  # without, it is the application's to answer
