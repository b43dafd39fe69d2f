"""The events of a service in its log: one line each, in JSON with the worker and the generation that it is about."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.service import Service, eventually


def events(service: Service, since: int = 0) -> list[dict[str, Any]]:
    """What the master has said, as (worker, generation, message)."""
    lines = [json.loads(line) for line in service.log.since(since).splitlines()]
    return [line for line in lines if line["role"] == "master"]


def about(lines: list[dict[str, Any]], text: str) -> list[tuple[Any, Any]]:
    """Worker and generation of the lines with that text."""
    return [(line.get("worker"), line.get("generation")) for line in lines if text in line["message"]]


def test_json_says_whom_an_event_is_about(start: Start) -> None:
    service = start("-w", "2", config="log: {format: json, access: {enabled: false}}").ready()
    assert sorted(about(events(service), "is ready")) == [(1, 1), (2, 1)]
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete", since=mark)
    assert about(events(service, mark), "is ready") == [(1, 2), (2, 2)]
    assert about(events(service, mark), "the reload is complete") == [(None, 2)]
    mark = len(service.log)
    [victim] = [pid for pid, title in service.workers().items() if "worker 2 gen 2" in title]
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: about(events(service, mark), "is ready") == [(2, 2)])
    [line] = [line for line in events(service, mark) if "SIGKILL" in line["message"]]
    assert (line["level"], line["worker"], line["generation"]) == ("warning", 2, 2)
    assert all("\n" not in line for line in service.log.since(0).splitlines())
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    said = [line["message"] for line in events(service)]
    assert len(said) == len(set(said)), said  # nothing is said twice
