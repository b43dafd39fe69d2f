"""docs/operations/runbook.md has each line that asgiri can log, at its level, with something to do; and no other."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from msgspec import Struct

from tests.e2e.conftest import Start
from tests.log_lines import Line, gaps, lines

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations" / "runbook.md"
LEVELS = ("debug", "info", "warning", "error", "critical", "part")


class Row(Struct, frozen=True):
    line: str
    level: str
    means: str
    do: str


def rows() -> list[Row]:
    found = re.findall(r"^\| `(.+?)` \| (\w+) \| (.+?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [Row(*cells) for cells in found]


def by_text() -> dict[str, Row]:
    return {gaps(row.line): row for row in rows()}


def test_every_row_of_the_page_is_read() -> None:
    assert len(rows()) == len(re.findall(r"^\| `", PAGE.read_text("utf-8"), re.MULTILINE))


def test_no_line_is_there_twice() -> None:
    texts = [gaps(row.line) for row in rows()]
    assert sorted(texts) == sorted(set(texts))


def test_every_line_of_the_source_is_in_the_runbook_at_its_level() -> None:
    known = by_text()

    def fault(line: Line) -> str:
        row = known.get(line.text)
        if row is None:
            return f"{line.where}: not in the runbook: {line.text}"
        return f"{line.where}: {line.level}, not {row.level}: {line.text}" if line.level not in ("", row.level) else ""

    assert [found for line in lines() if (found := fault(line))] == []


def test_every_line_of_the_runbook_is_in_the_source() -> None:
    made = {line.text for line in lines()}
    assert [row.line for text, row in by_text().items() if text not in made] == []


def test_for_each_line_that_is_no_routine_there_is_something_to_do() -> None:
    lazy = [row.line for row in rows() if row.level not in ("info", "debug") and re.match(r"(Nothing\.|-|$)", row.do)]
    assert lazy == []
    assert {row.level for row in rows()} <= set(LEVELS)


def test_the_lines_of_a_real_service_are_found_in_the_runbook(start: Start) -> None:
    """What comes out, and not only what the source seems to say: a start, a reload, a worker that dies, and the end."""
    service = start("--workers", "2", "--admin", "127.0.0.1:0", "--log-format", "json").ready()
    mark = len(service.log)
    service.signal(signal.SIGHUP)
    service.log.wait("the reload is complete", mark)
    os.kill(next(iter(service.workers())), signal.SIGKILL)
    service.log.wait("was killed by SIGKILL", mark)
    service.signal(signal.SIGTTOU)
    service.signal(signal.SIGTERM)
    assert service.wait() == 0
    written = [json.loads(line) for line in service.log.since(0).splitlines()]
    assert len(written) > 10
    assert [line["message"] for line in written if not is_known(line["message"], line["level"])] == []


def is_known(message: str, level: str) -> bool:
    """Whether a row is that line; those that are all gaps are no help, as everything is one of them."""
    telling = [row for row in rows() if row.level == level and len(gaps(row.line).replace("{}", "")) > 5]
    return any(re.fullmatch(re.escape(gaps(row.line)).replace(r"\{\}", ".*"), message) for row in telling)
