"""What of Starlette's and FastAPI's behaviour depends on the server."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.e2e.frameworks.site import ENGINES, PREFIX, STARLETTE, Site, Visitor
from tests.http2_client import http2_connected
from tests.proto.fakes import in_loop

pytestmark = pytest.mark.parametrize(
    "site", [pytest.param((STARLETTE, name), id=name) for name in ENGINES], indirect=True
)


def leave(site: Site, head: str, until: bytes = b"") -> None:
    """Send a request over HTTP/1.1, wait for bytes of its answer, and close the connection."""
    with socket.create_connection(("127.0.0.1", site.ports["1.1"]), timeout=20) as sock:
        sock.sendall(f"{head}\r\n".encode())
        data = b""
        while until not in data:
            data += sock.recv(65536)


def test_is_disconnected(visitor: Visitor) -> None:
    key = visitor.site.key()
    with visitor.site.client(visitor.version) as client, pytest.raises(httpx.ReadTimeout):
        client.get(f"/waits/{key}", timeout=0.2)
    visitor.noted(key, "begun", "gone")


def test_an_upload_that_breaks_off_is_a_client_disconnect(site: Site) -> None:
    visitor = Visitor(site, "1.1")
    key = site.key()
    with socket.create_connection(("127.0.0.1", site.ports["1.1"]), timeout=20) as sock:
        sock.sendall(f"POST /takes/{key} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhello".encode())
        visitor.noted(key, "piece")
    visitor.noted(key, "piece", "ClientDisconnect")


def test_a_response_that_is_held_up_ends_when_the_client_leaves(site: Site) -> None:
    visitor = Visitor(site, "1.1")
    key = site.key()
    leave(site, f"GET /pour/{key} HTTP/1.1\r\nHost: localhost\r\n", until=b"\0" * 1000)
    visitor.noted_one_of(key, ["begun", "closed"], ["begun", "cancelled"])


@in_loop
async def test_a_response_that_is_held_up_ends_when_its_stream_is_reset(site: Site) -> None:
    visitor = Visitor(site, "1.1")
    key = site.key()
    async with http2_connected(("127.0.0.1", site.ports["2"]), site.tls("2")) as peer:
        stream = peer.request(f"/pour/{key}")
        await peer.until(lambda: peer.answers[stream].body)
        peer.h2.reset_stream(stream, 8)
        await peer.flush()
        visitor.noted_one_of(key, ["begun", "closed"], ["begun", "cancelled"])


@pytest.mark.parametrize("prefix", ["", "/behind"], ids=["plain", "middleware"])
def test_cancel_scopes_and_what_a_middleware_leaves_in_the_context(visitor: Visitor, prefix: str) -> None:
    for _ in range(2):  # on one connection: the second request must not see the context of the first
        found = visitor.json(f"{prefix}/scopes")
        who = f"{PREFIX}/behind/scopes" if prefix else "nobody"
        assert found == {"timed out": True, "steps": [0, 1, 2], "who": who}


@pytest.mark.parametrize("prefix", ["", "/behind"], ids=["plain", "middleware"])
def test_a_task_group_that_fails_is_a_500(visitor: Visitor, prefix: str) -> None:
    site = visitor.site
    site.expect("the application failed: (ExceptionGroup|OnPurposeError)")
    mark = len(site.service.log)
    assert visitor.get(f"{prefix}/group-fails").status_code == 500
    site.service.log.wait("OnPurposeError: in a group", mark)
    assert len(site.service.log.find("OnPurposeError: in a group", mark)) == 1


def test_a_background_task_that_fails_leaves_the_answer_whole(visitor: Visitor) -> None:
    site = visitor.site
    site.expect("the application failed: (ExceptionGroup|OnPurposeError)")
    mark = len(site.service.log)
    answer = visitor.get("/task-fails")
    assert (answer.status_code, answer.text) == (200, "whole")
    site.service.log.wait("OnPurposeError: in the background", mark)
    assert visitor.json("/scopes")["steps"] == [0, 1, 2], "and the connection goes on"
    assert len(site.service.log.find("OnPurposeError: in the background", mark)) == 1


def test_dependencies_with_yield(visitor: Visitor) -> None:
    site = visitor.site
    site.expect("the application failed: OnPurposeError")
    key = site.key()
    assert visitor.json(f"/api/uses/{key}") == "resource"
    visitor.noted(key, "opened", "used", "closed")
    key = site.key()
    assert visitor.get(f"/api/uses-and-fails/{key}").status_code == 500
    visitor.noted(key, "opened", "failed", "closed")


def test_a_dependency_is_closed_when_the_client_leaves_the_stream(site: Site) -> None:
    visitor = Visitor(site, "1.1")
    key = site.key()
    leave(site, f"GET /api/uses-in-stream/{key} HTTP/1.1\r\nHost: localhost\r\n", until=b"x" * 1000)
    visitor.noted(key, "opened", "closed")
