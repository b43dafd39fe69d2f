"""Blocks that are not run in a shell: each language's own tool, or loader, says whether they are in order.

Each check takes a snippet and a directory that is its own, and raises AssertionError where something is wrong.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import hcl2
import httpx
import pytest
import yaml

from asgiri.cli.command import command, from_flags, from_sets
from asgiri.config.load import load
from asgiri.interfaces.adapt import as_asgi3
from asgiri.server import Server
from tests.docs.markdown import Snippet
from tests.docs.names import labels_of, metric_names
from tests.docs.scene import ROOT, isolated
from tests.docs.stand_ins import MisuseError, check_apt, check_pip
from tests.pki import Pki

Check = Callable[[Snippet, Path, Pki], None]
KUBERNETES = "1.31"
ENVOY_HTTP = "envoy.extensions.filters.network.http_connection_manager"
kubernetes_validate: Any = import_module("kubernetes_validate")  # it has no types


def run(*arguments: str, directory: Path) -> None:
    """Run a tool without a network of the machine's; what it says is shown where it fails."""
    ran = subprocess.run(
        [*isolated(), *arguments], cwd=directory, capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode == 0, f"{arguments[0]} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}"


def tool(name: str) -> str:
    """The program's path; the test is skipped where it is not installed."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:{Path(sys.executable).parent}")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


# YAML


def check_yaml(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """A part of asgiri's file, unless a word says whose YAML it is."""
    words = snippet.words
    kind = next((word for word in YAML_OF_OTHERS if word in words), None)
    if kind:
        YAML_OF_OTHERS[kind](snippet, directory, pki)
        return
    environ = dict(word.split("=", 1) for word in words.all("with") if "=" in word)
    file = directory / "asgiri.yaml"
    file.write_text(within(snippet.text, words.one("in")), "utf-8")
    load(str(file), environ)


def within(text: str, path: str) -> str:
    """The text as the value of the keys of a dotted path, at their depth."""
    lines = [line.rstrip() for line in text.splitlines()]
    least = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    names = path.split(".") if path else []
    head = [f"{'  ' * depth}{name}:" for depth, name in enumerate(names)]
    body = [f"{'  ' * len(names)}{line[least:]}" if line.strip() else "" for line in lines]
    return "\n".join([*head, *body, ""])


def check_kubernetes(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """Manifests; what is a part of one is taken for keys of a container (``in`` says other ones)."""
    for document in yaml.safe_load_all(snippet.text):
        manifest = document if isinstance(document, dict) and "kind" in document else framed(document, snippet)
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def framed(part: Any, snippet: Snippet) -> dict[str, Any]:
    """A Deployment with the part in its container, or in ``in spec.template.spec`` and the like."""
    container: dict[str, Any] = {"name": "app", "image": "example.org/app:1"}
    labels = {"app": "app"}
    pod: dict[str, Any] = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": pod}
    manifest: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": spec,
    }
    place: dict[str, Any] = container
    if path := snippet.words.one("in"):
        place = manifest
        for name in path.split("."):
            place = place[name]
    assert isinstance(part, dict), "neither a manifest nor keys of one"
    place.update(part)
    return manifest


def check_prometheus(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """A scrape config, or rules, whose expressions name metrics that there are."""
    document = yaml.safe_load(snippet.text)
    assert set(document) <= {"global", "scrape_configs", "groups", "rule_files"}, f"keys: {sorted(document)}"
    for job in document.get("scrape_configs", []):
        assert "job_name" in job, "a job without job_name"
    for group in document.get("groups", []):
        assert "name" in group, "a group without a name"
        for rule in group["rules"]:
            assert ("alert" in rule) != ("record" in rule), f"an alert or a record: {rule}"
            assert set(rule) <= {"alert", "record", "expr", "for", "labels", "annotations", "keep_firing_for"}, rule
            check_expression(rule["expr"])


def check_compose(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """Services of a compose file, each with an image or a build; a command of ours is parsed."""
    document = yaml.safe_load(snippet.text)
    for name, service in document["services"].items():
        assert "image" in service or "build" in service, f"{name} has neither image nor build"
        words = service.get("command", [])
        words = shlex.split(words) if isinstance(words, str) else [str(word) for word in words]
        if words[:1] == ["asgiri"]:
            parse_asgiri(words[1:])
        for variable in service.get("environment", {}):
            assert not variable.startswith("ASGIRI_") or load(None, {}) is not None


def check_envoy(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """A whole bootstrap, or keys of an HTTP connection manager, as Envoy itself reads them."""
    document = yaml.safe_load(snippet.text)
    if "static_resources" not in document:
        manager = {
            "@type": f"type.googleapis.com/{ENVOY_HTTP}.v3.HttpConnectionManager",
            "stat_prefix": "web",
            "route_config": {},
            **document,
        }
        filters = [{"name": "http", "typed_config": manager}]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": 8080}}
        document = {
            "static_resources": {
                "listeners": [{"name": "web", "address": address, "filter_chains": [{"filters": filters}]}]
            }
        }
    file = directory / "envoy.yaml"
    file.write_text(yaml.safe_dump(document), "utf-8")
    run(tool("envoy"), "--mode", "validate", "-l", "error", "-c", str(file), directory=directory)


YAML_OF_OTHERS: dict[str, Check] = {
    "kubernetes": check_kubernetes,
    "prometheus": check_prometheus,
    "compose": check_compose,
    "envoy": check_envoy,
}


# Python


def check_python(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """Executed, with ``app`` at hand where it is not made; an ``app`` that is made answers a request."""
    tree = compile(
        snippet.text, snippet.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST, dont_inherit=True
    )
    assigned = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assigned |= {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
    module = ModuleType("snippet")
    names = vars(module)
    if "app" not in assigned:
        from asgiri.demo import app

        names["app"] = app
    code = compile(tree, snippet.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with pytest.MonkeyPatch.context() as patch, logging_as_it_was():
        patch.setitem(sys.modules, "snippet", module)  # frameworks look up what an annotation or a setting names
        result = eval(code, names)  # as python -m asyncio does
        if inspect.isawaitable(result):

            async def wait() -> None:
                await result

            asyncio.run(wait())
        if "app" in assigned and callable(names.get("app")):
            asyncio.run(served(as_asgi3(names["app"])))


@contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Frameworks that are set up set up the process's logging."""
    known = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(one for one in known if isinstance(one, logging.Logger))]
    before = [(one, one.level, one.handlers[:], one.propagate, one.disabled) for one in loggers]
    try:
        yield
    finally:
        for one, level, handlers, propagate, disabled in before:
            one.setLevel(level)
            one.handlers[:] = handlers
            one.propagate, one.disabled = propagate, disabled


async def served(app: Any) -> None:
    """One request over HTTP gets an answer that is no failure of the server's."""
    async with Server(app, port=0) as server, httpx.AsyncClient(trust_env=False) as client:
        host, port = server.sockets[0].getsockname()[:2]
        response = await client.get(f"http://{host}:{port}/")
        assert response.status_code < 500, response.text


# Commands of ours


def parse_asgiri(arguments: list[str]) -> None:
    """The flags exist, their values are good, keys of --set exist. click's and asgiri's own errors."""
    given = dict(command.make_context("asgiri", list(arguments)).params)
    load(None, {}, [*from_flags(given), *from_sets(given["set_"])])


# Others' files


def check_ini(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """Units of systemd. A comment in the first line may name the file; a part of one gets what is missing."""
    named = re.match(r"# *(?:\S*/)?(\S+\.(service|socket|timer|conf))", snippet.text)
    kind = "socket" if "[Socket]" in snippet.text else "timer" if "[Timer]" in snippet.text else "service"
    name = named[1] if named and named[2] != "conf" else f"asgiri.{kind}"
    text = re.sub(r"(?<==)(-?)\S*/asgiri(ctl)?(?=\s|$)", r"\1/bin/true", snippet.text, flags=re.MULTILINE)
    if kind == "service" and "ExecStart=" not in text:
        text += "\n[Service]\nExecStart=/bin/true\n"
    (directory / name).write_text(text, "utf-8")
    units = [str(directory / name)]
    if kind == "socket":
        service = re.search(r"^Service=(.*)$", text, re.MULTILINE)
        partner = directory / (service[1] if service else name.replace(".socket", ".service"))
        partner.write_text("[Service]\nExecStart=/bin/true\n", "utf-8")
    ran = subprocess.run(
        [tool("systemd-analyze"), "--man=no", "verify", *units], capture_output=True, text=True, check=False, timeout=30
    )
    said = [line for line in ran.stderr.splitlines() if str(directory) in line or name in line]
    assert (ran.returncode, said) == (0, []), ran.stderr


def check_nginx(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """``nginx -t``, the fragment put where it belongs."""
    text = re.sub(r"(ssl_certificate(?:_key)?) [^;]+;", "", snippet.text)
    where = "main" if re.search(r"^\s*(events|http|stream)\b", text, re.MULTILINE) else "http"
    if not re.search(r"^\s*(server|upstream|map|http|stream|events)\b", text, re.MULTILINE):
        text = f"server {{ location / {{ {text} }} }}"
    secure = f"ssl_certificate {pki.certfile}; ssl_certificate_key {pki.keyfile};"
    modules = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if "stream" in text and where == "main" and not modules.exists() and "--with-stream" not in _nginx_version():
        pytest.skip("nginx has no stream module")
    head = f"load_module {modules};\n" if modules.exists() and where == "main" else ""
    head += f"pid {directory}/nginx.pid; error_log stderr;\n"
    head += "" if re.search(r"^\s*events\b", text, re.MULTILINE) else "events {}\n"
    paths = " ".join(
        f"{name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    body = f"http {{ access_log off; {paths} {secure}\n{text}\n}}" if where == "http" else text
    file = directory / "nginx.conf"
    file.write_text(head + body, "utf-8")
    run(tool("nginx"), "-t", "-q", "-c", str(file), directory=directory)


def _nginx_version() -> str:
    return subprocess.run([tool("nginx"), "-V"], capture_output=True, text=True, check=False).stderr


def check_haproxy(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """``haproxy -c``; certificates are those of the test."""
    text = re.sub(
        r"\b(crt|ca-file) \S+",
        lambda found: f"{found[1]} {pki.bundle if found[1] == 'crt' else pki.ca_file}",
        snippet.text,
    )
    if not re.search(r"^(frontend|backend|listen|defaults|global)\b", text, re.MULTILINE):
        text = f"backend app\n{text}"
    defaults = (
        ""
        if re.search(r"^defaults\b", text, re.MULTILINE)
        else "defaults\n  mode http\n  timeout connect 5s\n  timeout client 50s\n  timeout server 50s\n"
    )
    if not re.search(r"^(frontend|listen)\b", text, re.MULTILINE):  # without one it "will not start", and says so
        text += "\nfrontend tests\n  bind 127.0.0.1:1\n"
    file = directory / "haproxy.cfg"
    file.write_text(f"{defaults}{text}\n", "utf-8")
    run(tool("haproxy"), "-c", "-f", str(file), directory=directory)


def check_logrotate(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """``logrotate -d`` reads it, looks for the logs, and does nothing."""
    for logs in re.findall(r"/var/log/(?:\w+/)*", snippet.text):
        (directory / logs[1:]).mkdir(parents=True, exist_ok=True)
        (directory / logs[1:] / "some.log").touch()
    file = directory / "logrotate.conf"
    file.write_text(snippet.text.replace("/var/log/", f"{directory}/var/log/"), "utf-8")
    file.chmod(0o644)
    ran = subprocess.run(
        [tool("logrotate"), "-d", "-s", str(directory / "state"), str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    assert "error:" not in ran.stderr, ran.stderr


def check_dockerfile(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """Instructions that there are, a FROM first, commands in exec form; ours parse, pip gets what exists."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", snippet.text, flags=re.MULTILINE))
    first = True
    for line in filter(str.strip, text.splitlines()):
        name, _, rest = line.strip().partition(" ")
        assert name in INSTRUCTIONS, f"no instruction: {line}"
        assert not first or name in ("FROM", "ARG"), "the first instruction is FROM"
        first = False
        if name in ("CMD", "ENTRYPOINT"):
            words = json.loads(rest)  # the exec form: in the other one, a shell is PID 1
            if words[:1] == ["asgiri"]:
                parse_asgiri(words[1:])
        elif name == "RUN":
            check_steps(re.sub(r"--mount=\S+", "", rest))
        elif name == "COPY":
            assert len([word for word in rest.split() if not word.startswith("--")]) >= 2, line


INSTRUCTIONS = frozenset(
    (
        "FROM",
        "ARG",
        "RUN",
        "COPY",
        "ADD",
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
        "SHELL",
    )
)


def check_steps(steps: str) -> None:
    """Of a RUN: what pip and apt are asked for."""
    for step in re.split(r"&&|;|\|\|", steps):
        words = [word for word in shlex.split(step) if "=" not in word or word.startswith("-") or "[" in word]
        try:
            if words[:1] and words[0].endswith("pip"):
                check_pip(ROOT, words[1:])
            elif words[1:3] == ["-m", "pip"]:
                check_pip(ROOT, words[3:])
            elif words[:1] and words[0] in ("apt", "apt-get"):
                check_apt(ROOT, words[1:])
        except MisuseError as wrong:
            raise AssertionError(f"{step.strip()}: {wrong}") from wrong


def check_json(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """One document, or one a line."""
    try:
        json.loads(snippet.text)
    except json.JSONDecodeError:
        for line in snippet.text.splitlines():
            json.loads(line)


def check_hcl(snippet: Snippet, directory: Path, pki: Pki) -> None:
    hcl2.loads(snippet.text)


def check_promql(snippet: Snippet, directory: Path, pki: Pki) -> None:
    """Expressions, a blank or a commented line between them, or each on a line of its own."""
    lines = [line for line in snippet.text.splitlines() if not line.strip().startswith("#")]
    for line in filter(str.strip, lines):
        check_expression(line)


FUNCTIONS = frozenset(
    (
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "topk",
        "bottomk",
        "quantile",
        "rate",
        "irate",
        "increase",
        "delta",
        "deriv",
        "histogram_quantile",
        "time",
        "vector",
        "scalar",
        "clamp_max",
        "clamp_min",
        "abs",
        "ceil",
        "floor",
        "round",
        "absent",
        "changes",
        "resets",
        "avg_over_time",
        "max_over_time",
        "min_over_time",
        "sum_over_time",
        "count_over_time",
        "last_over_time",
        "quantile_over_time",
        "label_replace",
        "predict_linear",
    )
)
KEYWORDS = frozenset(
    ("by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset")
)


def check_expression(expression: str) -> None:
    """Brackets that match, functions that there are, and metrics of ours with labels that they have."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    for opening, closing in ("()", "[]", "{}"):
        assert bare.count(opening) == bare.count(closing), f"{opening}{closing} do not match: {expression}"
    for name, labels in re.findall(r"\b(asgiri_\w+)(\{[^}]*\})?", expression):
        assert name in metric_names(), f"no such metric: {name}"
        named = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", labels))
        assert named <= {*labels_of(name), "instance", "job"}, f"{name} has no labels {named - labels_of(name)}"
    for name in re.findall(r"\b([a-z_]+)\s*\(", bare):
        assert name in FUNCTIONS | KEYWORDS, f"no function of PromQL's: {name}"
    for ranged in re.findall(r"\[([^\]]*)\]", bare):
        assert re.fullmatch(r"\d+(ms|[smhdwy])(:\d*[smhdwy]?)?", ranged), f"no range: [{ranged}]"


CHECKS: dict[str, Check] = {
    "yaml": check_yaml,
    "python": check_python,
    "ini": check_ini,
    "nginx": check_nginx,
    "haproxy": check_haproxy,
    "logrotate": check_logrotate,
    "dockerfile": check_dockerfile,
    "json": check_json,
    "hcl": check_hcl,
    "promql": check_promql,
}
