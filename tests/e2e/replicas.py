"""Three replicas of deploy/replica.yaml, and the load balancers of deploy/ in front of them, each from its file.

The files name 10.0.0.11 to 10.0.0.13; here these are addresses of a net of 127.0.0.0/8 that is ours alone.
"""

from __future__ import annotations

import random
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import APP_DIR
from tests.e2e.proxies import envoy, free_port, needs, whole_haproxy, whole_nginx
from tests.e2e.service import ROOT, Service
from tests.pki import Pki

DEPLOY = ROOT / "deploy"
NAMES = ("a", "b", "c")

# The listener of deploy/replica.yaml that stands there as a comment.
COMMENTED = ("- bind: ${ADDRESS:-0.0.0.0}:8443", "  proxy_protocol:", "  tls:")


def replaced(text: str, **changes: tuple[str, str]) -> str:
    """The text with each change made; what is to be changed has to be there. The keywords say what a change is for."""
    for purpose, (old, new) in changes.items():
        assert old in text, f"{purpose}: no {old!r} in the file"
        text = text.replace(old, new)
    return text


def uncommented(text: str) -> str:
    """deploy/replica.yaml with its listener for the PROXY protocol."""
    for line in COMMENTED:
        assert f"  # {line}" in text, line
        text = text.replace(f"  # {line}", f"  {line}")
    return text


@dataclass
class Replicas:
    """Where three replicas are, and the masters that are there now."""

    pki: Pki
    directory: Path
    drain_delay: str = "0"
    net: str = field(init=False)  # 127.x.y.1, to which a digit belongs
    http: int = field(init=False)
    tls: int = field(init=False)
    admin: int = field(init=False)
    services: dict[str, Service] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.net = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.1"
        self.http, self.tls, self.admin = free_ports(f"{self.net}1", 3)

    def start(self, name: str) -> Service:
        """The master of this name, which must not be there."""
        assert name not in self.services
        text = (DEPLOY / "replica.yaml").read_text("utf-8")
        changes = {
            "port": (":8443", f":{self.tls}"),
            "certificate": ("/etc/asgiri/cert.pem", self.pki.certfile),
            "key": ("/etc/asgiri/key.pem", self.pki.keyfile),
        }
        config = self.directory / "replica.yaml"
        config.write_text(replaced(uncommented(text), **changes), "utf-8")
        env = {
            "APP": "replica_app:app",
            "APP_DIR": str(APP_DIR),
            "ADDRESS": f"{self.net}{NAMES.index(name) + 1}",
            "HTTP_PORT": str(self.http),
            "ADMIN_PORT": str(self.admin),
            "BALANCERS": "127.0.0.1",
            "WORKERS": "1",
            "DRAIN_DELAY": self.drain_delay,
            "REPLICA": name,
        }
        service = self.services[name] = Service(self.directory, "-c", str(config), "--no-access-log", env=env)
        return service

    def stop(self, name: str) -> Service:
        """End the master as a service manager does; the caller closes it."""
        service = self.services.pop(name)
        service.signal(signal.SIGTERM)
        return service

    def placed(self, text: str) -> str:
        """A file of deploy/ with our addresses and certificates."""
        return replaced(
            text,
            address=("10.0.0.1", self.net),
            port=(":8443", f":{self.tls}") if ":8443" in text else ("8000", str(self.http)),
            admin=("9000", str(self.admin)) if "9000" in text else ("", ""),
        )

    def close(self) -> None:
        for service in self.services.values():
            service.signal(signal.SIGQUIT)  # nobody is served any more: no drain
        for service in self.services.values():
            service.close()


def free_ports(address: str, count: int) -> list[int]:
    """As many ports of the address as that, which nobody has at the moment."""
    socks = [socket.socket() for _ in range(count)]
    try:
        for sock in socks:
            sock.bind((address, 0))
        return [sock.getsockname()[1] for sock in socks]
    finally:
        for sock in socks:
            sock.close()


@contextmanager
def running(pki: Pki, directory: Path, drain_delay: str = "0") -> Iterator[Replicas]:
    """Three replicas that serve."""
    replicas = Replicas(pki, directory, drain_delay)
    try:
        for service in [replicas.start(name) for name in NAMES]:
            service.ready()
        yield replicas
    finally:
        replicas.close()


# The balancers, each at a port of 127.0.0.1. ``changes`` are made to the file, as ``replaced`` has it.

Changes = dict[str, tuple[str, str]]
Balancer = AbstractContextManager[None]

FEW = ("maxconn 20000", "maxconn 256")  # haproxy wants the descriptors for all at its start


def haproxy(replicas: Replicas, port: int, **changes: tuple[str, str]) -> Balancer:
    needs("haproxy")
    text = (DEPLOY / "haproxy.cfg").read_text("utf-8")
    ours: Changes = {
        "front": ("bind :443 ", f"bind 127.0.0.1:{port} "),
        "certificate": ("/etc/haproxy/site.pem", replicas.pki.bundle),
        "descriptors": FEW,
    }
    return whole_haproxy(replicas.placed(replaced(text, **ours, **changes)), port)


def haproxy_http1(replicas: Replicas, port: int, **changes: tuple[str, str]) -> Balancer:
    """With HTTP/1.1 to the replicas, as the comment in the file has it."""
    return haproxy(replicas, port, upstream=(" proto h2\n", "\n"), **changes)


def haproxy_passthrough(replicas: Replicas, port: int, **changes: tuple[str, str]) -> Balancer:
    needs("haproxy")
    text = (DEPLOY / "haproxy-passthrough.cfg").read_text("utf-8")
    ours: Changes = {"front": ("bind :443", f"bind 127.0.0.1:{port}"), "descriptors": FEW}
    return whole_haproxy(replicas.placed(replaced(text, **ours, **changes)), port)


def nginx(replicas: Replicas, port: int, **changes: tuple[str, str]) -> Balancer:
    needs("nginx")
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    ours: Changes = {
        "front": ("listen 443 ", f"listen 127.0.0.1:{port} "),
        "certificate": ("/etc/nginx/site.pem", replicas.pki.certfile),
        "key": ("/etc/nginx/site.key", replicas.pki.keyfile),
    }
    return whole_nginx(replicas.placed(replaced(text, **ours, **changes)), port)


def envoy_http2(replicas: Replicas, port: int, **changes: tuple[str, str]) -> Balancer:
    needs("envoy")
    text = (DEPLOY / "envoy.yaml").read_text("utf-8")
    ours: Changes = {
        "front": ("{address: 0.0.0.0, port_value: 443}", f"{{address: 127.0.0.1, port_value: {port}}}"),
        "certificate": ("/etc/envoy/site.pem", replicas.pki.certfile),
        "key": ("/etc/envoy/site.key", replicas.pki.keyfile),
    }
    return envoy(replicas.placed(replaced(text, **ours, **changes)), port)


BALANCERS = {
    "haproxy": haproxy,
    "haproxy_http1": haproxy_http1,
    "nginx": nginx,
    "envoy": envoy_http2,
}

__all__ = ["BALANCERS", "DEPLOY", "NAMES", "Replicas", "free_port", "haproxy_passthrough", "replaced", "running"]
