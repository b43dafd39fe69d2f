"""The status page: one document, made once of the files in ``page/``, that asks for nothing but /status beside it."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from asgiri.admin.pages import Page, Question

HTML: Final = b"text/html; charset=utf-8"


def page(_question: Question) -> Page:
    return document()


@cache
def document() -> Page:
    """The page, with a policy under which only its own style and script are taken, and only from here is read."""
    place = files("asgiri.admin") / "page"
    html, style, script = ((place / name).read_bytes() for name in ("status.html", "status.css", "status.js"))
    policy = (
        f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    body = html.replace(b"/* status.css */", style, 1).replace(b"/* status.js */", script, 1)
    return Page(200, body, HTML, ((b"content-security-policy", policy.encode("ascii")),))


def source(code: bytes) -> str:
    """What names this inline style or script, and no other, in a policy (CSP Level 3, section 2.3.1)."""
    return f"'sha256-{b64encode(sha256(code).digest()).decode('ascii')}'"
