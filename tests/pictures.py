"""``python -m tests.pictures``: the pictures in README and docs, taken of a service that really runs, under load.

``docs/assets/status.png`` is the status page in Chromium, ``docs/assets/top.svg`` what ``asgirictl top`` shows.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import tempfile
import threading
import time
from base64 import b64decode
from io import StringIO
from pathlib import Path

import httpx
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from asgiri.ctl.screen import draw
from asgiri.ctl.top import View
from asgiri.types import Receive, Scope, Send
from tests.e2e.service import ROOT, Service, eventually
from tests.e2e.test_admin import admin_url
from tests.e2e.test_browser_reload import browser

SHOTS = ROOT / "docs" / "assets"
SECONDS = 305.0  # of load: as much as the curves show
CLIENTS = 24
COLUMNS, LINES = 100, 14
WIDTH, HEIGHT = 1280, 850


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """A shop, seen from afar: most answers come soon, some need a while, one in two hundred is an error."""
    if scope["type"] != "http":
        raise RuntimeError(f"not for {scope['type']}")
    await asyncio.sleep(random.expovariate(1 / 0.012))
    status = 503 if random.random() < 0.005 else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"x" * random.randrange(200, 4000)})


def main() -> int:
    SHOTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/control.sock"
        Path(folder, "shop.py").write_text(f"from {__spec__.name} import app as app\n", "utf-8")
        arguments = ["-w", "2", "-b", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--no-access-log"]
        service = Service(Path(folder), *arguments, "--set", f"control.socket={socket}", "shop:app")
        try:
            take(service.ready(), socket, Path(folder))
        finally:
            service.close()
    return 0


def take(service: Service, socket: str, folder: Path) -> None:
    over = threading.Event()
    clients = [threading.Thread(target=ask, args=(service.url, over)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        view = View(lambda: socket, socket)
        with browser(folder / "chromium") as page:
            page.open(admin_url(service))
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            page._ask("Emulation.setDeviceMetricsOverride", **size)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                view.look()
                time.sleep(1.0)
            assert eventually(lambda: "2 of 2 serve" in str(page.run("document.body.innerText")))
            shot = page._ask("Page.captureScreenshot", format="png")["data"]
            (SHOTS / "status.png").write_bytes(b64decode(shot))
        (SHOTS / "top.svg").write_text(drawn(view), "utf-8")
    finally:
        over.set()
        for client in clients:
            client.join()


def ask(url: str, over: threading.Event) -> None:
    with httpx.Client() as client:
        while not over.is_set():
            client.get(f"{url}/basket/{random.randrange(1000)}")
            time.sleep(random.expovariate(1 / 0.05))


def drawn(view: View) -> str:
    """The terminal's lines as an SVG that loads no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=StringIO())
    for line in draw(view, COLUMNS, LINES):
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    svg = console.export_svg(title="asgirictl top", theme=MONOKAI)
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return re.sub(r"[ \t]+$", "", svg.replace("Fira Code", "ui-monospace"), flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
