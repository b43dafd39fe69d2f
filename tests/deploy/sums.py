"""What the sums of deploy/ have in common."""

from __future__ import annotations

from pathlib import Path

from asgiri.config.schema import Config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "operations"

# Behind drain_timeout: a worker that has not gone is killed after two seconds, and the admin child has two more.
LAST_SECONDS = 4


def admin_port(config: Config) -> int:
    assert config.admin.bind is not None
    return int(config.admin.bind.rpartition(":")[2])
