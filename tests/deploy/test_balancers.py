"""The load balancers' files of deploy/: good for their programs, and their sums with deploy/replica.yaml.

What goes through them is tested in tests/e2e/test_balancers.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from asgiri.config.load import load
from asgiri.config.schema import Config
from asgiri.units import parse_duration
from tests.deploy.sums import DOCS, ROOT, admin_port
from tests.e2e.proxies import needs, writes_to
from tests.pki import Pki

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def replica() -> Config:
    return load(str(DEPLOY / "replica.yaml"), {}).config


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text("utf-8")


def seconds(name: str, pattern: str) -> float:
    """What stands in the file behind ``pattern``; everywhere the same."""
    (found,) = set(re.findall(rf"{pattern}(\d+(?:ms|s|m))\b", text_of(name)))
    return parse_duration(found)


# As the programs themselves see them, as shipped but for the certificates.


@pytest.mark.parametrize("name", ["haproxy.cfg", "haproxy-passthrough.cfg"])
def test_haproxy_takes_it(name: str, pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text_of(name).replace("/etc/haproxy/site.pem", pki.bundle), "utf-8")
    check([needs("haproxy"), "-c", "-f", str(path)])


def test_nginx_takes_it(pki: Pki, tmp_path: Path) -> None:
    text = text_of("nginx.conf").replace("/etc/nginx/site.pem", pki.certfile)
    path = tmp_path / "nginx.conf"
    path.write_text(writes_to(str(tmp_path), text.replace("/etc/nginx/site.key", pki.keyfile)), "utf-8")
    here = f"pid {tmp_path}/pid; error_log stderr warn;"
    check([needs("nginx"), "-t", "-p", str(tmp_path), "-e", "stderr", "-c", str(path), "-g", here])


def test_envoy_takes_it(pki: Pki, tmp_path: Path) -> None:
    text = text_of("envoy.yaml").replace("/etc/envoy/site.pem", pki.certfile)
    path = tmp_path / "envoy.yaml"
    path.write_text(text.replace("/etc/envoy/site.key", pki.keyfile), "utf-8")
    check([needs("envoy"), "--mode", "validate", "-c", str(path), "--disable-hot-restart", "--log-level", "warning"])


def check(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warn" not in said.lower(), said


# The sums of docs/operations/balancers.md


def envoy_cluster() -> Any:
    (cluster,) = yaml.safe_load(text_of("envoy.yaml"))["static_resources"]["clusters"]
    return cluster


def test_the_balancer_is_the_one_that_closes(replica: Config) -> None:
    idle = {
        "haproxy": seconds("haproxy.cfg", "timeout http-keep-alive "),
        "nginx": seconds("nginx.conf", r"\bkeepalive_timeout "),
        "envoy": seconds("envoy.yaml", "idle_timeout: "),
    }
    assert {*idle.values()} == {60.0}
    assert all(one < replica.timeouts.keep_alive for one in idle.values())
    through = {seconds("haproxy-passthrough.cfg", f"timeout {side} ") for side in ("client", "server")}
    assert min(through) > replica.timeouts.keep_alive, "bytes passed on: asgiri knows what is idle, and closes"


def test_a_websocket_is_never_idle(replica: Config) -> None:
    for name, pattern in (
        ("haproxy.cfg", "timeout tunnel "),
        ("haproxy.cfg", "timeout server "),
        ("nginx.conf", "proxy_read_timeout "),
    ):
        assert seconds(name, pattern) > 2 * replica.websocket.ping_interval


def test_a_replica_serves_until_the_checks_have_failed(replica: Config) -> None:
    delay = replica.workers.drain_delay
    for name in ("haproxy.cfg", "haproxy-passthrough.cfg"):
        ((fall, rise),) = set(re.findall(r" fall (\d+) rise (\d+)", text_of(name)))
        assert int(rise) == 1
        assert seconds(name, " inter ") * int(fall) + seconds(name, "timeout check ") + 1 <= delay
    (checks,) = envoy_cluster()["health_checks"]
    interval, timeout = parse_duration(checks["interval"]), parse_duration(checks["timeout"])
    assert interval * checks["unhealthy_threshold"] + timeout + 1 <= delay
    assert parse_duration(checks["no_traffic_interval"]) == interval
    text = (DOCS / "balancers.md").read_text("utf-8")
    assert f"{interval:g} s x {checks['unhealthy_threshold']} + {timeout:g} s + 1 s <= {delay:g} s" in text
    assert f"60 s < {replica.timeouts.keep_alive:g} s" in text


def test_checks_go_to_the_admin_port(replica: Config) -> None:
    for name in ("haproxy.cfg", "haproxy-passthrough.cfg"):
        assert f"check port {admin_port(replica)} " in text_of(name)
        assert "uri /readyz " in text_of(name)
    (group,) = envoy_cluster()["load_assignment"]["endpoints"]
    for one in group["lb_endpoints"]:
        assert one["endpoint"]["health_check_config"]["port_value"] == admin_port(replica)
        assert one["endpoint"]["address"]["socket_address"]["port_value"] == replica.listen[0].address.port


def test_what_has_been_sent_is_not_sent_again() -> None:
    assert re.findall("retry-on (.*)", text_of("haproxy.cfg")) == ["conn-failure"]
    assert re.findall("proxy_next_upstream (.*);", text_of("nginx.conf")) == ["error"], "no non_idempotent"
    assert re.findall("retry_on: (.*)", text_of("envoy.yaml")) == [
        "connect-failure,refused-stream,reset-before-request"
    ]
