"""Tells each client who it is, as the scope has it; and at ``/checks`` who has asked for ``/health``."""

from __future__ import annotations

import json
from typing import Any

checks: list[Any] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    told: Any = {name: scope[name] for name in ("http_version", "scheme", "client", "server")}
    told["tls"] = "tls" in scope["extensions"]
    told["said"] = scope["extensions"].get("proxy_protocol")
    if scope["path"] == "/health":
        checks.append(told)
    elif scope["path"] == "/checks":
        told = checks
    body = json.dumps(told).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
