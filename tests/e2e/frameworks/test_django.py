"""What of Django's behaviour depends on the server."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.e2e.frameworks.site import DJANGO, ENGINES, Site, Visitor
from tests.e2e.service import eventually
from tests.http2_client import http2_connected
from tests.proto.fakes import in_loop

pytestmark = pytest.mark.parametrize("site", [pytest.param((DJANGO, name), id=name) for name in ENGINES], indirect=True)


def test_a_view_is_cancelled_when_the_client_leaves(visitor: Visitor) -> None:
    key = visitor.site.key()
    with visitor.site.client(visitor.version) as client, pytest.raises(httpx.ReadTimeout):
        client.get(f"/slow/{key}", timeout=0.2)
    visitor.noted(key, "begun", "cancelled")


def test_a_response_that_is_held_up_is_finished_when_the_client_leaves(site: Site) -> None:
    """Its signal gives database connections back; it is not sent where a failing send is all that Django hears of."""
    visitor = Visitor(site, "1.1")
    for _ in range(5):
        key = site.key()
        with socket.create_connection(("127.0.0.1", site.ports["1.1"]), timeout=20) as sock:
            sock.sendall(f"GET /pour/{key} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert held_up(visitor, key)
        visitor.noted(key, "begun", "finished")
    assert "pour" not in "".join(line for line in str(site.service.log).splitlines() if " ERROR " in line)


@in_loop
async def test_a_response_that_is_held_up_is_finished_when_its_stream_is_reset(site: Site) -> None:
    visitor = Visitor(site, "1.1")
    key = site.key()
    async with http2_connected(("127.0.0.1", site.ports["2"]), site.tls("2")) as peer:
        stream = peer.request(f"/pour/{key}")
        await peer.flush()
        assert held_up(visitor, key)
        peer.h2.reset_stream(stream, 8)
        await peer.flush()
        visitor.noted(key, "begun", "finished")


def held_up(visitor: Visitor, key: str) -> bool:
    """Whether the view that pours comes to stand still, by what a client sees that looks again and again."""
    seen: list[int] = []

    def stands() -> bool:
        seen.append(len(visitor.notes(f"{key}-pieces")))
        return len(seen) > 20 and len(set(seen[-20:])) == 1 and seen[-1] > 0

    return eventually(stands)


def test_sync_code_has_a_thread_of_its_request(visitor: Visitor) -> None:
    assert visitor.json("/threads") == {"same": True, "main": False}


def test_a_file_is_read_by_plain_iteration_and_django_says_so(visitor: Visitor) -> None:
    mark = len(visitor.site.service.log) if visitor.version == "2" else 0
    assert visitor.get("/file").content == visitor.site.file.read_bytes()
    if not mark:
        visitor.site.service.log.wait("StreamingHttpResponse must consume synchronous iterators")


def test_an_application_without_a_lifespan_is_nothing_to_talk_about(site: Site) -> None:
    assert "lifespan" not in str(site.service.log)
