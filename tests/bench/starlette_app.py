"""A small Starlette application: one route with a path parameter that answers JSON."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def item(request: Request) -> JSONResponse:
    number = request.path_params["number"]
    return JSONResponse({"number": number, "name": f"item {number}", "price": 9.5})


app = Starlette(routes=[Route("/items/{number:int}", item)])
