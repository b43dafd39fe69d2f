"""docs/design/engines.md, followed: one that is not in the tree is named, chosen, tried by the table, and serves."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from msgspec.structs import replace

from asgiri import equip
from asgiri.build import BUILD
from asgiri.codec.engines import Engines, Http1Engine
from asgiri.codec.h1_h11 import H11Codec
from asgiri.config.schema import Http1
from asgiri.server import Server
from asgiri.types import Headers
from tests.codec.rows_table import ACCEPTED, ENDED, REFUSED
from tests.codec.wire import dripped, feed
from tests.proto.fakes import hello, run
from tests.serving import config, connected

ROWS = [*ACCEPTED, *REFUSED, *ENDED]

pytestmark = pytest.mark.skipif(BUILD == "compiled", reason="an engine is compiled together with its base class")

if BUILD != "compiled":

    class ToyCodec(H11Codec):
        """Takes the fields apart by itself. h11 sees them too, for it keeps the state of the exchange."""

        __slots__ = ()

        def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
            super().take_head(method, version, head, fields)
            pairs = (line.split(b":", 1) for line in fields.split(b"\r\n") if line)
            return [(name.lower(), value.strip(b" \t")) for name, value in pairs]

    class KindCodec(ToyCodec):
        """Is kinder than the rules, which an engine must not be: a second field of a name is the first one's."""

        __slots__ = ()

        def take_head(self, method: bytes, version: bytes, head: bytes, fields: bytes) -> Headers:
            return list(dict(super().take_head(method, version, head, fields)).items())


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines[Http1Engine]:
    module = ModuleType("asgiri.codec.h1_toy")
    vars(module)["ToyCodec"] = ToyCodec
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Engines(h11="h1_h11:H11Codec", toy="h1_toy:ToyCodec")


def failed(engine: Http1Engine) -> list[str]:
    """The rows of the table that it gets wrong, whole or byte by byte."""
    return [
        row.name
        for row in ROWS
        for pieces in ([row.data], dripped(row.data))
        if feed(engine(row.limits), pieces, row.eof) != list(row.events)
    ]


def test_by_its_name_and_as_the_fastest(engines: Engines[Http1Engine]) -> None:
    assert engines.choose("toy") is ToyCodec
    assert engines.choose("auto") is ToyCodec


def test_it_passes_the_table(engines: Engines[Http1Engine]) -> None:
    assert failed(engines.choose("toy")) == []


def test_the_table_finds_one_that_decides_for_itself() -> None:
    assert failed(KindCodec) != []


def test_it_serves(engines: Engines[Http1Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equip, "HTTP1_ENGINES", engines)
    settings = replace(config(), http1=Http1(engine="toy"))  # type: ignore[arg-type] # the word is the schema's to have

    async def ask() -> None:
        async with Server(hello, config=settings) as server, connected(server) as client:
            answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.status == 200

    run(ask())
