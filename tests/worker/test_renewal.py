"""A worker takes what is in its deposit: a real server, with both who do TLS, and deposits that are no good."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgiri import deposit
from asgiri.config.schema import Config, Listen, SniPair, Tls
from asgiri.deposit import Deposit
from asgiri.equip import ways_of
from asgiri.link import Boot, make_link
from asgiri.metrics.catalogue import metric
from asgiri.proto import secure
from asgiri.proto.detect import Way
from asgiri.server import Post, Server
from asgiri.sockets.bind import bind
from asgiri.supervisor.scoreboard import Scoreboard
from asgiri.tls_files import Material, parts_of, read_part
from asgiri.worker.renewal import renewed
from tests.pki import Pki
from tests.proto.fakes import hello, run


@pytest.fixture(params=["aiofastnet", "loop"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who does TLS."""
    assert secure.fast_connect() is not None, "the extra test brings aiofastnet"
    if request.param == "loop":
        monkeypatch.setattr(secure, "fast_connect", lambda: None)
    return str(request.param)


class Stand:
    """A worker's boot, with TLS on the second of two listeners."""

    def __init__(self, pki: Pki, **more: object) -> None:
        self.pki = pki
        self.tls = Tls(certfile=pki.certfile, keyfile=pki.keyfile, **more)  # type: ignore[arg-type]
        listens = (Listen(bind="127.0.0.1:0"), Listen(bind="127.0.0.1:0", tls=self.tls))
        config = Config(listen=listens, lifespan="off")
        self.listeners = [bind(one) for one in listens]
        self.deposit = Deposit(deposit.encode([None, self.material()]))
        board = Scoreboard(slots=1)
        slot = board.take()
        assert slot is not None
        self.ours, theirs = make_link()
        self.boot = Boot(
            *(1, 1, config, self.listeners, theirs),
            master_pid=os.getpid(),
            board=board,
            slot=slot,
            stacks=-1,
            deposit=self.deposit.fileno(),
        )
        self.ways = ways_of(config, self.listeners, materials=deposit.read(self.deposit.fileno()))
        self.server = Server(hello, config=config, listeners=self.listeners, post=Post(ways=self.ways))

    def material(self, *pair: str) -> Material:
        """What is in the files; in those of the listener's own pair what is in these."""
        found = {part.place: read_part(part, "") for part in parts_of(self.tls)}
        for name, file in zip((self.tls.certfile, self.tls.keyfile or ""), pair, strict=bool(pair)):
            found[""][name] = Path(file).read_bytes()
        return found

    def renew(self, *materials: Material | None) -> list[Way]:
        """The master's and the worker's part."""
        self.deposit.put(deposit.encode(list(materials)))
        return list(renewed(self.boot, self.server, self.ways))

    async def shown(self) -> str:
        """The certificate that a new connection gets, in PEM, and an answer."""
        host, port = self.listeners[1].sock.getsockname()
        reader, writer = await asyncio.open_connection(host, port, ssl=self.pki.client(), server_hostname="localhost")
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        return ssl.DER_cert_to_PEM_cert(der)

    @property
    def counts(self) -> tuple[int, int]:
        swaps, cells = metric("certificate_swaps"), self.boot.slot.cells
        return cells[swaps.word("taken")], cells[swaps.word("failed")]

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.deposit.close()
        self.ours.close()
        self.boot.link.close()


@pytest.fixture
def stand(pki: Pki) -> Iterator[Stand]:
    made = Stand(pki)
    yield made
    made.close()


def is_of(pem: str, certfile: str) -> bool:
    return Path(certfile).read_text("ascii").replace("\r", "").startswith(pem)


def test_it_serves_with_what_was_left(stand: Stand, by: str) -> None:
    new = stand.pki.issue("worker", "localhost")

    async def main() -> None:
        async with stand.server:
            assert is_of(await stand.shown(), stand.pki.certfile)
            ways = stand.renew(None, stand.material(*new))
            assert is_of(await stand.shown(), new[0])
            assert ways[1].secure is not stand.ways[1].secure
            stand.ways = ways
            assert stand.renew(None, stand.material(*new))[1].secure is ways[1].secure, "nothing has changed"
            assert is_of(await stand.shown(), new[0])

    run(main(), asyncio.new_event_loop)
    assert stand.counts == (2, 0)


def test_what_cannot_be_taken_is_said_and_counted(stand: Stand, pki: Pki, caplog: pytest.LogCaptureFixture) -> None:
    new = pki.issue("worker", "localhost")

    async def main() -> None:
        async with stand.server:
            with caplog.at_level(logging.ERROR):
                assert stand.renew(None, stand.material(new[0], pki.keyfile)) == stand.ways
                assert stand.renew(None, {"": {}}) == stand.ways
                assert stand.renew(None, {}) == stand.ways
                stand.deposit.put(b"\xc1")
                assert renewed(stand.boot, stand.server, stand.ways) is stand.ways
            assert stand.counts == (0, 4)
            stand.deposit.put(deposit.encode([None, stand.material(*new)]))
            os.pwrite(stand.deposit.fileno(), b"?", 20)  # in the middle of the master's writing
            assert renewed(stand.boot, stand.server, stand.ways) is stand.ways
            assert stand.counts == (0, 4)
            assert is_of(await stand.shown(), pki.certfile)

    run(main(), asyncio.new_event_loop)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(lines) == 4
    assert all(line.startswith("new certificates cannot be taken, and the old ones stay: ") for line in lines)
    assert "does not belong to the certificate" in lines[0]


def test_of_many_names_only_what_has_changed_is_made_anew(pki: Pki) -> None:
    names = {}
    for name in ("a.test", "b.test"):
        certfile, keyfile = pki.issue(name, name)
        names[name] = SniPair(certfile=certfile, keyfile=keyfile)
    stand = Stand(pki, sni=names)
    try:
        before = stand.ways[1].secure
        material = stand.material()
        certfile, keyfile = pki.issue("other", "b.test")
        part = material[".sni.b.test"]
        part.update({names["b.test"].certfile: Path(certfile).read_bytes()})
        part.update({names["b.test"].keyfile: Path(keyfile).read_bytes()})
        after = ways_of(stand.boot.config, stand.listeners, materials=[None, material], before=stand.ways)[1].secure
        assert before is not None
        assert after is not None
        assert before.made is not None
        assert after.made is not None
        assert after.context is not before.context, "which handshakes that are under way may still choose by"
        assert after.made[".sni.a.test"] is before.made[".sni.a.test"]
        assert after.made[".sni.b.test"] is not before.made[".sni.b.test"]
        assert set(after.certificates) == {one.context for one in after.made.values()}
    finally:
        stand.close()
