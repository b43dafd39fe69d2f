"""The heartbeat: at once, then once an interval, never in a burst; and what it counts."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from asgiri.child import heart
from asgiri.child.heart import Heart, resident
from asgiri.metrics.catalogue import BUCKETS, bucket, metric
from asgiri.metrics.meter import Meter
from asgiri.server import Counts, Server
from asgiri.supervisor.scoreboard import Scoreboard, State
from tests.proto.fakes import Held, hello, request, until
from tests.serving import config, connected, on_both_loops, shared_of


@on_both_loops
async def test_after_a_block_there_is_one_beat_and_no_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "BEAT_SECONDS", 0.02)
    slot = Scoreboard(1).take()
    assert slot is not None
    beats: list[int] = []
    own = Heart(slot, Counts, beats.append)
    before = time.monotonic_ns()
    own.start()
    assert before <= slot.beat_ns == beats[0], "at once"
    await until(lambda: len(beats) == 3)
    began = time.monotonic_ns()
    time.sleep(0.15)  # an application that blocks
    await until(lambda: len(beats) == 6)
    own.stop()
    late = [beat for beat in beats[3:] if beat > began]
    assert late[0] - began > 0.14e9
    assert late[1] - late[0] > 0.015e9
    assert late[2] - late[1] > 0.015e9
    told = len(beats)
    await asyncio.sleep(0.05)
    assert len(beats) == told, "it has stopped"


@on_both_loops
async def test_what_the_slot_shows() -> None:
    slot = Scoreboard(1).take()
    assert slot is not None
    own = Heart(slot, lambda: Counts(connections=1, requests=2, accepted=3, served=4))
    own.start()
    states = [slot.state]
    assert (slot.requests, slot.accepted, slot.served) == (2, 3, 4)
    assert slot.memory > 1 << 20
    own.enter(State.SERVING)
    states.append(slot.state)
    assert states == [State.BOOTING, State.SERVING]
    own.stop()


@on_both_loops
async def test_how_late_the_loop_was_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "LAG_SECONDS", 0.02)
    slot = Scoreboard(1).take()
    assert slot is not None
    meter = Meter(slot.cells)
    own = Heart(slot, Counts, None, meter)
    own.start()
    lags = metric("loop_lag_seconds").word()

    def sampled() -> list[int]:
        meter.flush()
        return slot.cells[lags : lags + len(BUCKETS) + 1].tolist()

    await until(lambda: sum(sampled()) >= 2)
    assert min(place for place, number in enumerate(sampled()) if number) < bucket(0.1)
    late = sum(sampled()[bucket(0.1001) :])
    time.sleep(0.15)  # an application that blocks
    await until(lambda: sum(sampled()[bucket(0.1001) :]) > late)
    own.stop()
    told = sum(sampled())
    await asyncio.sleep(0.05)
    assert sum(sampled()) == told, "it has stopped"


def test_resident_memory() -> None:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    assert resident() == pytest.approx(int(fields["VmRSS"].split()[0]) * 1024, rel=0.05)


@on_both_loops
async def test_what_a_server_counts() -> None:
    app = Held()
    server = Server(app, config=config())
    assert server.counts == Counts()
    async with server, connected(server) as one, connected(server) as two:
        await until(lambda: not shared_of(server).arriving)
        app.release("/a")
        for _ in range(3):
            await one.ask(request("/a"))
        two.send(request("/held"))
        await until(lambda: "/held" in app.paths)
        assert server.counts == Counts(connections=2, requests=1, accepted=2, served=3)
        app.release("/held")
        await two.answer()
        await until(lambda: server.counts.served == 4)
    assert server.counts == Counts(connections=0, requests=0, accepted=2, served=4)


@on_both_loops
async def test_a_request_that_is_cut_counts_once() -> None:
    app = Held()
    server = Server(app, config=config(drain_timeout=0.05))
    await server.start()
    async with connected(server) as client:
        client.send(request("/held"))
        await until(lambda: app.paths)
        await server.shutdown(window=0.01)
    assert server.counts == Counts(connections=0, requests=0, accepted=1, served=1)


def test_the_counts_are_what_the_heart_asks_for() -> None:
    server: Any = Server(hello)
    assert {"accepted", "served", "requests"} <= set(Counts.__struct_fields__)
    assert isinstance(server.counts, Counts)
