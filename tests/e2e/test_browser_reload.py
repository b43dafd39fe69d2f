"""What a developer sees in the browser: pages that reload themselves, and the error page that comes and goes.

Chromium without a screen, told what to do over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.e2e.conftest import Start
from tests.e2e.service import PATIENCE, eventually

CHROMIUM = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"<!doctype html><body>%s</body></html>"})
"""
# What it says is no part of the page: not its title, and no tag.
BROKEN = 'raise LookupError("</title></script><script>document.title = 1</script><h1>%s</h1>")\n'
SHOWN = "document.readyState === 'complete' ? document.body.innerText : ''"


class Page:
    """A tab: what is shown in it, and how often it was loaded."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._session: str | None = None
        self.loads = 0
        self.said: list[str] = []  # on its console, by scripts

    def open(self, url: str) -> Self:
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")
        self._ask("Runtime.enable")
        self._ask("Page.navigate", url=url)
        return self

    def shows(self, text: str) -> None:
        """Wait until the page's text has this in it."""
        deadline = time.monotonic() + PATIENCE
        while text not in (shown := " ".join(self.run(SHOWN).split())):
            try:
                self._take(deadline)
            except TimeoutError:
                raise AssertionError(f"the page does not show {text!r} but {shown!r}") from None

    def run(self, expression: str) -> Any:
        """The value of an expression in the page; empty while it changes."""
        result = self._ask("Runtime.evaluate", expression=expression)
        return result.get("result", {}).get("value", "")

    def _ask(self, method: str, **parameters: object) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        deadline = time.monotonic() + PATIENCE
        while (answer := self._take(deadline)).get("id") != self._number:
            pass
        return answer.get("result", {})

    def _take(self, deadline: float) -> Any:
        """The next message: an answer, or an event that is noted."""
        message = json.loads(self._socket.recv(max(0.0, deadline - time.monotonic())))
        match message.get("method"):
            case "Page.loadEventFired":
                self.loads += 1
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.said.append(json.dumps(message["params"]))
        return message


@contextmanager
def browser(home: Path) -> Iterator[Page]:
    assert CHROMIUM is not None
    alone = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    alone += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    alone += ["--disable-dev-shm-usage", "--remote-debugging-port=0", f"--user-data-dir={home}"]
    process = subprocess.Popen([CHROMIUM, *alone], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told = home / "DevToolsActivePort"
        assert eventually(lambda: told.exists() and told.read_text().count("\n") == 1)
        port, path = told.read_text().splitlines()
        with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_pages_reload_themselves(start: Start, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    main = code / "main.py"
    main.write_text(BROKEN % "first")
    config = f"app_dir: {code}\nreload: {{enabled: true, browser: true, dirs: [{code}]}}\nlog: {{level: debug}}\n"
    service = start(config=config, app="main:app")
    service.log.wait("serving an error page")
    with browser(tmp_path / "chromium") as page:
        page.open(f"{service.url}/a?b=c").shows("LookupError")
        page.shows(f"Open {main}:1")
        page.shows("<h1>first</h1>")  # as text
        assert page.run("document.title").startswith("LookupError: </title>")
        assert page.run("document.querySelectorAll('h1').length") == 1

        main.write_text(BROKEN % "second")  # another reason
        page.shows("<h1>second</h1>")
        main.write_text(APP % "one")  # the first code that works
        page.shows("one")
        saved = time.monotonic()
        main.write_text(APP % "two")
        page.shows("two")
        assert time.monotonic() - saved < 2.5  # a browser by itself tries again after three seconds
        assert page.run("location.pathname + location.search") == "/a?b=c"
        loads = page.loads

        main.write_text(BROKEN % "third")
        page.shows("<h1>third</h1>")
        page.shows("The old version still serves")
        assert page.run("location.pathname + location.search") == "/a?b=c"
        page.run("document.querySelector('header a').click()")
        page.shows("two")
        assert page.run("location.pathname + location.search") == "/a?b=c"
        main.write_text(APP % "three")
        page.shows("three")
        # Once for each: the error page, the old version, the new one.
        assert page.loads == loads + 3
        assert all("the newest code does not start" in said for said in page.said), page.said

        began = time.monotonic()
        service.signal(signal.SIGINT)  # a page that listens does not hold it up
        assert service.wait() == 0
        assert time.monotonic() - began < 3
    assert "cut off" not in str(service.log)  # whoever listens is told that it is over
