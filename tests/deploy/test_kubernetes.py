"""The manifests of deploy/kubernetes: good for their schemas, for asgiri's own config, and for each other."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from asgiri.config.load import load
from asgiri.config.schema import Config
from asgiri.metrics.catalogue import Kind, metric
from asgiri.units import parse_size
from tests.deploy.sums import DOCS, LAST_SECONDS, ROOT, admin_port

FILES = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.34", "1.37")
OWN = ("podmonitor", "prometheus-adapter")  # of no kind that Kubernetes itself has


def manifest(name: str) -> Any:
    return yaml.safe_load((FILES / f"{name}.yaml").read_text("utf-8"))


def pod() -> Any:
    return manifest("deployment")["spec"]["template"]


def container() -> Any:
    (one,) = pod()["spec"]["containers"]
    return one


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The ConfigMap's, as asgiri reads it."""
    path = tmp_path / "asgiri.yaml"
    path.write_text(manifest("configmap")["data"]["asgiri.yaml"], "utf-8")
    return load(str(path), {}).config


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(path.stem for path in FILES.glob("*.yaml") if path.stem not in OWN))
def test_the_schemas(name: str, version: str) -> None:
    found = manifest(name)
    assert kubernetes_validate.validate(found, version, strict=True) == version
    broken = copy.deepcopy(found) | {"spce": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


def test_the_prometheus_operators_kind() -> None:
    """No schema is at hand: these are the fields that it has."""
    found = manifest("podmonitor")
    assert (found["apiVersion"], found["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert found.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert found["spec"].keys() <= {"selector", "podMetricsEndpoints", "namespaceSelector", "jobLabel"}
    (endpoint,) = found["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "admin", "path": "/metrics", "interval": "15s"}


def test_the_pods_are_restricted() -> None:
    """What the Pod Security Standard `restricted` asks for, and a root that nobody writes to."""
    spec = pod()["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert all(volume.keys() - {"name"} <= {"configMap", "emptyDir"} for volume in spec["volumes"])
    assert all("hostPort" not in port for port in container()["ports"])


def test_all_speak_of_the_same_pods() -> None:
    labels = pod()["metadata"]["labels"]
    selectors = [
        manifest("deployment")["spec"]["selector"]["matchLabels"],
        manifest("service")["spec"]["selector"],
        manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"],
        manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"],
        manifest("podmonitor")["spec"]["selector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)
    target = manifest("horizontalpodautoscaler")["spec"]["scaleTargetRef"]
    assert target["name"] == manifest("deployment")["metadata"]["name"]
    assert {"name": "config", "configMap": {"name": manifest("configmap")["metadata"]["name"]}} in pod()["spec"][
        "volumes"
    ]


def test_ports_and_probes_are_those_of_the_config(config: Config) -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": config.listen[0].address.port, "admin": admin_port(config)}
    probes = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert all(probe["port"] == "admin" for probe in probes.values())
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    service = manifest("service")["spec"]["ports"]
    assert all(port["targetPort"] == "http" for port in service), "the admin port is nobody else's"
    assert [port["appProtocol"] for port in service] == ["http", "kubernetes.io/h2c"]
    assert {*config.listen[0].http} == {"h2", "http/1.1"}
    assert config.listen[0].tls is None
    annotations = pod()["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["admin"])


def test_where_files_are(config: Config) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert container()["command"] == ["asgiri", "-c", f"{mounts['config']}/asgiri.yaml"]
    assert {"name": "ASGIRI_CONFIG", "value": f"{mounts['config']}/asgiri.yaml"} in container()["env"]
    assert config.control.socket == f"{mounts['run']}/control.sock"


def test_the_checksum_is_that_of_the_config() -> None:
    told = pod()["metadata"]["annotations"]["checksum/config"]
    assert told == hashlib.sha256((FILES / "configmap.yaml").read_bytes()).hexdigest()[:16]


# The sums of docs/operations/kubernetes.md

PROPAGATION = 5  # seconds that Services, ingresses and proxies may take to hear of a pod that goes


def test_a_pod_serves_until_nobody_sends_to_it(config: Config) -> None:
    probe = container()["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] + PROPAGATION <= config.workers.drain_delay
    assert "lifecycle" not in container(), "a preStop would be the same wait once more"


def test_a_pod_has_the_time_to_finish(config: Config) -> None:
    workers = config.workers
    assert workers.drain_delay + workers.drain_timeout + LAST_SECONDS <= pod()["spec"]["terminationGracePeriodSeconds"]


def test_a_start_that_hangs_is_told_of_before_it_is_killed(config: Config) -> None:
    probe = container()["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > config.workers.boot_timeout


def test_a_rollout_begins_with_a_pod_more() -> None:
    rolling = manifest("deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in manifest("deployment")["spec"], "the autoscaler's word, which an apply would go over"
    autoscaler, budget = manifest("horizontalpodautoscaler")["spec"], manifest("poddisruptionbudget")["spec"]
    assert budget["maxUnavailable"] < autoscaler["minReplicas"] < autoscaler["maxReplicas"]


def test_memory_has_room_for_a_worker_more(config: Config) -> None:
    limit = parse_size(container()["resources"]["limits"]["memory"] + "B")
    master_and_admin = parse_size("128MiB")
    assert isinstance(config.workers.count, int)
    assert (config.workers.count + 1) * config.workers.max_memory + master_and_admin <= limit


def test_the_autoscaler_asks_for_what_is_counted(config: Config) -> None:
    (asked,) = manifest("horizontalpodautoscaler")["spec"]["metrics"]
    name = asked["pods"]["metric"]["name"]
    assert metric(name.removeprefix("asgiri_")).kind is Kind.GAUGE
    (rule,) = manifest("prometheus-adapter")["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].partition("{")[0] == name
    # Pods come before requests are refused.
    assert isinstance(config.workers.count, int)
    most = config.workers.count * config.limits.requests
    assert int(asked["pods"]["target"]["averageValue"]) <= most / 2


def test_the_docs_have_the_figures(config: Config) -> None:
    text = (DOCS / "kubernetes.md").read_text("utf-8")
    probe, spec, workers = container()["readinessProbe"], pod()["spec"], config.workers
    period, failures = probe["periodSeconds"], probe["failureThreshold"]
    grace = spec["terminationGracePeriodSeconds"]
    for sum_ in (
        f"{period} s x {failures} + {PROPAGATION} s <= {workers.drain_delay:g} s",
        f"{workers.drain_delay:g} s + {workers.drain_timeout:g} s + {LAST_SECONDS} s <= {grace} s",
        f"{container()['startupProbe']['failureThreshold']} s > {workers.boot_timeout:g} s",
        f"3 x 192 MiB + 128 MiB <= {container()['resources']['limits']['memory'].removesuffix('Mi')} MiB",
    ):
        assert sum_ in text, sum_
