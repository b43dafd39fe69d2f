"""The same conversations with an application of each framework, over HTTP/1.1 and HTTP/2, on each set of engines."""

from __future__ import annotations

import asyncio
import hashlib
import random

import httpx
import pytest

from tests.e2e.frameworks.site import ENGINES, FRAMEWORKS, PREFIX, Door, Site, Visitor, answered
from tests.http2_client import http2_connected
from tests.proto.fakes import in_loop
from tests.websocket_clients import ClosedError, Offer, through_http2, through_websockets

SITES = [
    pytest.param((framework, engines), id=f"{framework.name}-{engines}")
    for framework in FRAMEWORKS
    for engines in ENGINES
]

pytestmark = pytest.mark.parametrize("site", SITES, indirect=True)

UPLOAD = random.Random(10).randbytes(2 << 20)
DIGEST = {"size": len(UPLOAD), "sha256": hashlib.sha256(UPLOAD).hexdigest()}


def test_text_and_json(visitor: Visitor) -> None:
    assert visitor.get("/").text == "hello"
    assert visitor.json("/json", params={"name": "Ada Lovelace"}) == {"hello": "Ada Lovelace"}
    sent = {"a": [1, None, "ü"], "b": {"c": "x" * 100_000}}
    assert visitor.post("/json", json=sent).json() == sent


def test_head(visitor: Visitor) -> None:
    answer = visitor.http.head("/")
    if answer.status_code != 405:
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers.get("content-length", "5") == "5"
    assert visitor.get("/").text == "hello", "and the connection is in order"


def test_forms(visitor: Visitor) -> None:
    answer = visitor.post("/form", data={"name": "Ada & co = ü", "colour": ["red", "blue"]})
    assert answer.json() == {"name": "Ada & co = ü", "colours": ["red", "blue"]}


def test_uploads(visitor: Visitor) -> None:
    answer = visitor.post("/upload", files={"file": ("up.bin", UPLOAD)}, data={"note": "two MiB"})
    assert answer.json() == {"filename": "up.bin", "note": "two MiB", **DIGEST}


def test_bodies_of_unknown_length(visitor: Visitor) -> None:
    pieces = (UPLOAD[begin : begin + 70_000] for begin in range(0, len(UPLOAD), 70_000))
    if not visitor.site.framework.unknown_length:
        assert visitor.post("/count", content=iter([b"x"])).json()["size"] == 0, "it can: say so"
        return
    assert visitor.post("/count", content=pieces).json() == DIGEST
    assert visitor.post("/count", content=b"").json()["size"] == 0


def test_a_stream_arrives_piece_by_piece(visitor: Visitor) -> None:
    key = visitor.site.key()
    with visitor.http.stream("GET", f"/stream/{key}") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"first\n"
        visitor.open_gate(key)  # only now can the second piece be made
        assert b"".join(pieces) == b"second\n"


def test_server_sent_events(visitor: Visitor) -> None:
    answer = visitor.get("/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.replace("\r\n", "\n") == "".join(f"event: tick\ndata: {number}\n\n" for number in range(3))


def test_background_tasks_run_after_the_answer(visitor: Visitor) -> None:
    key = visitor.site.key()
    answer = visitor.post(f"/background/{key}")
    assert (answer.status_code, answer.text) == (200, "accepted")
    assert visitor.notes(key) == []
    visitor.open_gate(key)
    visitor.noted(key, "done")


def test_what_the_startup_left_is_seen_by_requests(visitor: Visitor) -> None:
    if not visitor.site.framework.lifespan:
        assert "lifespan" not in str(visitor.site.service.log), "an application without one is nothing to talk about"
        return
    assert visitor.json("/startup") == {"startup": "done", "variable": "unset"}, "a context variable is none of it"


@in_loop
async def test_plain_functions_overlap(visitor: Visitor) -> None:
    path = f"/meet/{visitor.site.key()}"
    async with visitor.site.async_client(visitor.version) as client:  # the other kind mixes threads up over HTTP/2
        answers = await asyncio.gather(*(client.get(path) for _ in range(2)))
    assert [answer.text for answer in answers] == ["met", "met"]


def test_files(visitor: Visitor) -> None:
    answer = visitor.get("/file")
    assert answer.content == visitor.site.file.read_bytes()
    if visitor.site.framework.file:
        assert visitor.site.framework.file in visitor.notes("file")


def test_cookies_and_redirects(visitor: Visitor) -> None:
    answer = visitor.get("/cookies", headers=[("Cookie", "seen=yes; other=1")])
    assert answer.json() == {"seen": "yes"}
    assert [field.split(";")[0] for field in answer.headers.get_list("set-cookie")] == ["one=1", "two=2"]
    answer = visitor.get("/redirect")
    assert answer.status_code == 303
    again = visitor.get(answer.headers["location"])
    assert again.json() == {"hello": "redirected"}


def test_large_header_fields(visitor: Visitor) -> None:
    large = "x" * 20_000
    answer = visitor.get("/headers", headers={"X-Large": large})
    assert answer.json() == {"size": 20_000}
    assert answer.headers["x-large"] == large


def test_nothing_there(visitor: Visitor) -> None:
    assert visitor.get("/missing").status_code == 404


def test_a_failure_is_answered_with_500_and_logged_once(visitor: Visitor) -> None:
    site = visitor.site
    site.expect(r"the application failed: OnPurposeError|Exception on request|Internal Server Error: /")
    mark = len(site.service.log)
    answer = visitor.get("/fail")
    assert answer.status_code == 500
    assert visitor.get("/").status_code == 200
    if site.framework.logs:
        site.service.log.wait("OnPurposeError: at once$", mark)
        assert len(site.service.log.find("OnPurposeError: at once", mark)) == 1


def test_a_failure_within_an_answer_is_no_whole_answer(visitor: Visitor) -> None:
    site = visitor.site
    mark = len(site.service.log)
    site.expect(
        r"the application failed: (OnPurposeError|LitestarException|ExceptionGroup)|the application returned without"
    )
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        visitor.get("/fail-late")
    assert visitor.get("/").status_code == 200
    site.service.log.wait("OnPurposeError: late$", mark)


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["stripped", "kept"])
def test_the_prefix_of_a_proxy(visitor: Visitor, prefix: str) -> None:
    found = visitor.json(f"{prefix}/where")
    address = f"{visitor.site.url(visitor.version)}{PREFIX}/json"
    assert found == {"root_path": PREFIX, "path": f"{PREFIX}/where", "json": address}


def test_expect_100_continue(site: Site) -> None:
    conversation = answered(site, "POST /count HTTP/1.1", "Expect: 100-continue", "Content-Length: 5", body=b"hello")
    assert next(conversation) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert next(conversation).startswith(b"HTTP/1.1 200 ")


@in_loop
async def test_expect_100_continue_over_http2(site: Site) -> None:
    async with http2_connected(("127.0.0.1", site.ports["2"]), site.tls("2")) as peer:
        stream = peer.request("/count", ("expect", "100-continue"), ("content-length", "5"), method="POST", end=False)
        await peer.until(lambda: peer.answers[stream].interim)
        assert peer.answers[stream].interim == [100]
        peer.h2.send_data(stream, b"hello", end_stream=True)
        answer = await peer.answer(stream)
        assert (answer.status, b'"size":5' in answer.body.replace(b" ", b"")) == (200, True)


def hears_of_clients(site: Site) -> None:
    if not site.framework.told:
        pytest.skip("a2wsgi's threads do not hear of a client that has left")


def test_a_client_that_leaves_ends_the_stream(site: Site) -> None:
    hears_of_clients(site)
    visitor = Visitor(site, "1.1")
    key = site.key()
    with site.client("1.1") as client, client.stream("GET", f"/endless/{key}") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        assert visitor.notes(key) == ["begun"]
    visitor.noted(key, "begun", "ended")


@in_loop
async def test_a_client_that_resets_its_stream_ends_it(site: Site) -> None:
    hears_of_clients(site)
    visitor = Visitor(site, "1.1")
    key = site.key()
    async with http2_connected(("127.0.0.1", site.ports["2"]), site.tls("2")) as peer:
        stream = peer.request(f"/endless/{key}")
        await peer.until(lambda: peer.answers[stream].body)
        assert visitor.notes(key) == ["begun"]
        peer.h2.reset_stream(stream, 8)
        await peer.flush()
        visitor.noted(key, "begun", "ended")
        assert (await peer.get("/")).body == b"hello", "and the connection goes on"


# WebSockets

OPENERS = {"1.1": through_websockets, "2": through_http2}


async def conversation(visitor: Visitor) -> None:
    site = visitor.site
    key, door = site.key(), Door(site.ports[visitor.version])
    opener = OPENERS[visitor.version]
    offer = Offer(f"/ws/{key}", ["other", "chat"], compression=True, tls=site.tls(visitor.version))
    async with opener(door, offer) as peer:
        assert peer.subprotocol == "chat"
        for message in ("text ü", b"\x00bytes", "x" * 200_000):
            await peer.send(message)
            assert await peer.receive() == message
        await peer.close(4002, "enough")
    visitor.noted(key, "closed 4002" if site.framework.close_code else "closed")
    async with opener(door, Offer(f"/ws/{key}", tls=site.tls(visitor.version))) as peer:
        assert peer.subprotocol == ""
        await peer.send("bye")
        with pytest.raises(ClosedError) as closed:
            await peer.receive()
        assert (closed.value.code, closed.value.reason) == (4001, "bye")


def test_websockets(visitor: Visitor) -> None:
    if visitor.site.framework.websockets:
        asyncio.run(conversation(visitor))
    else:
        asyncio.run(refusal(visitor))


async def refusal(visitor: Visitor) -> None:
    from tests.websocket_clients import DeniedError, through_http1

    opener = through_http1 if visitor.version == "1.1" else through_http2
    with pytest.raises(DeniedError) as denied:
        async with opener(
            Door(visitor.site.ports[visitor.version]), Offer("/ws/x", tls=visitor.site.tls(visitor.version))
        ):
            pass
    assert denied.value.status == 403
