"""The routes in Django, whose websockets are channels'."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

from asgiref.sync import sync_to_async
from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import request_finished
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path, reverse

from tests.e2e.frameworks.apps import common
from tests.e2e.frameworks.apps.common import Watched, notes

running: set[asyncio.Task[None]] = set()


async def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello", content_type="text/plain")


async def json(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return JsonResponse(json_module.loads(request.body), safe=False)
    return JsonResponse({"hello": request.GET["name"]})


async def form(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"name": request.POST["name"], "colours": request.POST.getlist("colour")})


async def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    return JsonResponse({"filename": file.name, "note": request.POST["note"], **common.digest(file.read())})


async def count(request: HttpRequest) -> HttpResponse:
    return JsonResponse(common.digest(request.body))


async def stream(request: HttpRequest, key: str) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        yield "first\n"
        await common.passed(key)
        yield "second\n"

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def endless(request: HttpRequest, key: str) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.005)
        finally:
            notes[key].append("ended")

    return StreamingHttpResponse(pieces())


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        for event in common.EVENTS.split("\n\n")[:-1]:
            yield event + "\n\n"

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


async def background(request: HttpRequest, key: str) -> HttpResponse:
    async def task() -> None:
        await common.passed(key)
        notes[key].append("done")

    begun = asyncio.create_task(task())
    running.add(begun)
    begun.add_done_callback(running.discard)
    return HttpResponse("accepted", content_type="text/plain")


async def open_gate(request: HttpRequest, key: str) -> HttpResponse:
    common.gates[key].set()
    return HttpResponse(status=204)


async def noted(request: HttpRequest, key: str) -> HttpResponse:
    return JsonResponse(notes[key], safe=False)


def meet(request: HttpRequest, key: str) -> HttpResponse:
    common.meet(key)
    return HttpResponse("met")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(common.FILE.open("rb"), content_type="application/octet-stream")


async def cookies(request: HttpRequest) -> HttpResponse:
    response = JsonResponse({"seen": request.COOKIES.get("seen")})
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", httponly=True)
    return response


async def redirect(request: HttpRequest) -> HttpResponse:
    response = HttpResponseRedirect(reverse("json") + "?name=redirected")
    response.status_code = 303
    return response


async def headers(request: HttpRequest) -> HttpResponse:
    large = request.headers["X-Large"]
    return JsonResponse({"size": len(large)}, headers={"X-Large": large})


async def fail(request: HttpRequest) -> HttpResponse:
    raise common.OnPurposeError("at once")


async def fail_late(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a part"
        raise common.OnPurposeError("late")

    return StreamingHttpResponse(pieces())


async def where(request: ASGIRequest) -> HttpResponse:
    scope = request.scope
    return JsonResponse(
        {"root_path": scope["root_path"], "path": scope["path"], "json": request.build_absolute_uri(reverse("json"))},
    )


# Django's own behaviours


async def slow(request: HttpRequest, key: str) -> HttpResponse:
    """A view that is cancelled when the client leaves."""
    notes[key].append("begun")
    try:
        await asyncio.sleep(common.PATIENCE)
    except asyncio.CancelledError:
        notes[key].append("cancelled")
        raise
    return HttpResponse("slept")


def finished(**more: Any) -> None:
    notes["finished"].append("finished")


request_finished.connect(finished)  # as Django's own database layer does, to give its connections back


class Noting(StreamingHttpResponse):  # type: ignore[misc]
    """Notes when it is closed, and whether Django has sent its signal with that."""

    key = ""

    def close(self) -> None:
        before = len(notes["finished"])
        super().close()
        notes[self.key].append("finished" if len(notes["finished"]) > before else "closed")


async def pour(request: HttpRequest, key: str) -> Noting:
    """More than the client takes, so that the server holds the view up."""

    async def pieces() -> AsyncIterator[bytes]:
        notes[key].append("begun")
        while True:
            notes[f"{key}-pieces"].append("")
            yield bytes(1 << 20)

    response = Noting(pieces())
    response.key = key
    return response


async def sync_in_async(request: HttpRequest) -> HttpResponse:
    """Which threads sync code runs in: Django keeps that of one request in one thread."""
    threads = [await sync_to_async(threading.get_ident)() for _ in range(2)]
    return JsonResponse({"same": len(set(threads)) == 1, "main": threads[0] == threading.main_thread().ident})


class Talk(AsyncConsumer):  # type: ignore[misc]
    async def websocket_connect(self, message: dict[str, Any]) -> None:
        chosen = "chat" if "chat" in self.scope["subprotocols"] else None
        await self.send({"type": "websocket.accept", "subprotocol": chosen})

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        if message.get("text") == "bye":
            await self.send({"type": "websocket.close", "code": 4001, "reason": "bye"})
        else:
            await self.send({**message, "type": "websocket.send"})

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        key = self.scope["url_route"]["kwargs"]["key"]
        notes[key].append(f"closed {message['code']}")
        raise StopConsumer


urlpatterns = [
    path("", home),
    path("json", json, name="json"),
    path("form", form),
    path("upload", upload),
    path("count", count),
    path("stream/<key>", stream),
    path("endless/<key>", endless),
    path("events", events),
    path("background/<key>", background),
    path("gates/<key>", open_gate),
    path("notes/<key>", noted),
    path("meet/<key>", meet),
    path("file", file),
    path("cookies", cookies),
    path("redirect", redirect),
    path("headers", headers),
    path("fail", fail),
    path("fail-late", fail_late),
    path("where", where),
    path("slow/<key>", slow),
    path("pour/<key>", pour),
    path("threads", sync_in_async),
]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.e2e.frameworks.apps.django_settings")
django_asgi = get_asgi_application()
app = Watched(
    ProtocolTypeRouter({"http": django_asgi, "websocket": URLRouter([path("ws/<key>", Talk.as_asgi())])}),
)
