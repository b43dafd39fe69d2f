"""The routes in Flask, through a2wsgi's own middleware: an ASGI 3 application."""

from __future__ import annotations

from typing import Any

from a2wsgi import WSGIMiddleware

from tests.e2e.frameworks.apps.common import Watched
from tests.e2e.frameworks.apps.flask_app import app as flask

wsgi: Any = flask  # two kinds of annotations
app = Watched(WSGIMiddleware(wsgi))
