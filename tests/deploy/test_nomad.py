"""The job of deploy/nomad: well-formed, of keys that Nomad has, and good for asgiri's own config."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hcl2
import pytest

from asgiri.config.load import load
from asgiri.config.schema import Config
from asgiri.units import parse_duration
from tests.deploy.sums import DOCS, LAST_SECONDS, ROOT, admin_port

JOB = ROOT / "deploy" / "nomad" / "asgiri.nomad.hcl"
MOST_KILL_TIMEOUT = 30  # seconds: the default of a Nomad client's max_kill_timeout, which goes over a job's

# The keys and blocks of Nomad's job specification that are used here, by where they stand.
KEYS: dict[str, set[str]] = {
    "job": {"type", "group"},
    "group": {"count", "shutdown_delay", "network", "update", "migrate", "service", "task"},
    "network": {"port", "mode"},
    "port": {"to", "static"},
    "update": {
        "max_parallel",
        "canary",
        "auto_promote",
        "auto_revert",
        "health_check",
        "min_healthy_time",
        "healthy_deadline",
        "progress_deadline",
    },
    "migrate": {"max_parallel", "health_check", "min_healthy_time", "healthy_deadline"},
    "service": {"name", "port", "provider", "tags", "check"},
    "check": {"name", "type", "port", "path", "interval", "timeout", "check_restart"},
    "check_restart": {"limit", "grace"},
    "task": {"driver", "config", "user", "kill_signal", "kill_timeout", "template", "resources"},
    "config": {"image", "command", "args", "ports", "readonly_rootfs", "cap_drop", "security_opt"},
    "template": {"destination", "change_mode", "change_signal", "splay", "data"},
    "resources": {"cpu", "memory", "memory_max"},
}
LABELLED = {"job", "group", "port", "task"}


def plain(value: Any) -> Any:
    """As the file means it: the parser leaves quotes around texts, and notes of its own beside the keys."""
    match value:
        case dict():
            return {plain(key): plain(one) for key, one in value.items() if not key.startswith("__")}
        case list():
            return [plain(one) for one in value]
        case str() if value.startswith('"') and value.endswith('"'):
            return value[1:-1]
        case _:
            return value


def blocks(body: Any, kind: str) -> list[Any]:
    """The blocks of a kind, without their labels."""
    found = body.get(kind, [])
    if kind in LABELLED:
        return [inner for one in found for inner in one.values()]
    return list(found)


@pytest.fixture(scope="module")
def job() -> Any:
    (found,) = blocks(plain(hcl2.loads(JOB.read_text("utf-8"))), "job")
    return found


def group(job: Any) -> Any:
    (found,) = blocks(job, "group")
    return found


def task(job: Any) -> Any:
    (found,) = blocks(group(job), "task")
    return found


def template(job: Any) -> Any:
    (found,) = blocks(task(job), "template")
    return found


@pytest.fixture
def config(job: Any, tmp_path: Path) -> Config:
    """The template's, while nobody has set the variable."""
    text = JOB.read_text("utf-8").partition("<<EOF\n")[2].partition("\nEOF\n")[0]
    rendered, conditions = re.subn(r"\{\{ if .*?\{\{ else \}\}(.*?)\{\{ end \}\}", r"\1", text)
    assert conditions == 1
    assert "{{" not in rendered
    path = tmp_path / "asgiri.yaml"
    path.write_text(rendered, "utf-8")
    return load(str(path), {}).config


def unknown(body: Any, kind: str) -> list[str]:
    """Keys that no such block has, here and in the blocks within."""
    found = [f"{kind}.{key}" for key in body if key not in KEYS[kind]]
    for inner in KEYS[kind] & KEYS.keys():
        if isinstance(body.get(inner), list):
            found += [key for block in blocks(body, inner) for key in unknown(block, inner)]
    return found


def test_all_keys_are_nomads(job: Any) -> None:
    assert unknown(job, "job") == []
    assert unknown(job | {"group": [{"web": {"shutdown_dealy": "1s"}}]}, "job") == ["group.shutdown_dealy"]


def test_checks_are_on_the_admin_port(job: Any, config: Config) -> None:
    (network,) = blocks(group(job), "network")
    ports = {name: port["to"] for one in network["port"] for name, port in one.items()}
    assert ports == {"http": config.listen[0].address.port, "admin": admin_port(config)}
    checks = {
        check["path"]: check.get("port", service["port"])
        for service in group(job)["service"]
        for check in service["check"]
    }
    assert checks == {"/readyz": "admin", "/livez": "admin"}


def test_a_changed_file_is_a_reload(job: Any) -> None:
    found = template(job)
    assert (found["change_mode"], found["change_signal"]) == ("signal", "SIGHUP")
    (driver,) = blocks(task(job), "config")
    assert [driver["command"], *driver["args"]] == ["asgiri", "-c", f"/{found['destination']}"]


def test_the_container_can_do_little(job: Any) -> None:
    (driver,) = blocks(task(job), "config")
    assert (driver["readonly_rootfs"], driver["cap_drop"]) == (True, ["all"])
    assert int(task(job)["user"].partition(":")[0]) > 0


def test_it_waits_once_and_has_the_time_to_finish(job: Any, config: Config) -> None:
    delay, kill = (parse_duration(value) for value in (group(job)["shutdown_delay"], task(job)["kill_timeout"]))
    assert task(job)["kill_signal"] == "SIGTERM"
    assert delay >= 5
    assert config.workers.drain_delay == 0
    assert config.workers.drain_timeout + LAST_SECONDS <= kill <= MOST_KILL_TIMEOUT
    text = (DOCS / "nomad.md").read_text("utf-8")
    assert f"{config.workers.drain_timeout:g} s + {LAST_SECONDS} s <= {kill:g} s" in text


def test_a_deployment_waits_for_a_start(job: Any, config: Config) -> None:
    (update,) = blocks(group(job), "update")
    healthy, progress = (parse_duration(update[key]) for key in ("healthy_deadline", "progress_deadline"))
    assert config.workers.boot_timeout < healthy < progress
