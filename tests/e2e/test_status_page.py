"""The status page of a real service, in Chromium without a screen."""

from __future__ import annotations

import struct
from base64 import b64decode
from pathlib import Path

import pytest

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, eventually
from tests.e2e.test_admin import ADMIN, admin_url
from tests.e2e.test_browser_reload import CHROMIUM, SHOWN, browser

CONFIG = "listen: [{bind: '127.0.0.1:0'}, {bind: 'unix:<i id=forged>.sock'}]\nworkers: {count: 2}\n"

AWAY = "The service does not answer since"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_says_how_the_service_is(start: Start, tmp_path: Path) -> None:
    service = start(*ADMIN, config=CONFIG, bind=False).ready()
    with browser(tmp_path / "chromium") as page:
        page.open(admin_url(service))
        assert eventually(lambda: "2 of 2 serve" in page.run(SHOWN))
        assert "unix:<i id=forged>.sock" in page.run(SHOWN)  # as text
        assert page.run("document.getElementById('forged') === null") is True
        assert page.run("document.title") == "serving \u2013 app:app"
        assert page.run("document.querySelectorAll('#workers tbody tr').length") == 2
        assert eventually(lambda: page.run("document.querySelector('#rate path').getAttribute('d') || ''") != "")
        assert page.run("document.getElementById('troubles').textContent") == ""
        for width in (360, 1600):
            page._ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            assert page.run("document.documentElement.scrollWidth <= innerWidth") is True
        shot = b64decode(page._ask("Page.captureScreenshot", format="png")["data"])
        assert struct.unpack(">II", shot[16:24]) == (1600, 900)
        assert len(shot) > 20_000  # there is something in it
        service.process.terminate()
        service.process.wait(PATIENCE)
        assert eventually(lambda: page.run("document.getElementById('away').innerText").startswith(AWAY))
        assert page.said == []
