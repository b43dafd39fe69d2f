"""The JSON Schema: a valid one, complete, and of one mind with the loader about what one key may be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from asgiri.config.address import parse_bind
from asgiri.config.json_schema import json_schema, json_schema_text
from asgiri.config.keys import Key
from asgiri.config.load import load
from asgiri.config.nodes import Faults, Kind, Mapping, Node, Scalar, Sequence
from asgiri.config.notation import written
from asgiri.config.schema import Config
from asgiri.config.source import parse
from asgiri.errors import ConfigError
from asgiri.units import parse_duration, parse_size
from tests.config.strategies import sections
from tests.config.test_schema import EVERY_KEY

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
ENVIRON = {"N": "3", "PLACE": "127.0.0.1:8000", "WAIT": "5s"}

NUMBERS = re.compile(r"[-+]?[0-9]+")


def plain(node: Node) -> Any:
    """What a reader of YAML 1.2 makes of a file, as most editors are; PyYAML reads 1.1."""
    match node:
        case Scalar(kind=Kind.NULL):
            return None
        case Scalar(text=text, kind=Kind.BOOL):
            return text.lower() == "true"
        case Scalar(text=text, kind=Kind.NUMBER):
            return int(text, 8) if text.startswith("0o") else int(text) if NUMBERS.fullmatch(text) else float(text)
        case Sequence(items=items):
            return [plain(item) for item in items]
        case Mapping(entries=entries):
            return {name: plain(entry.value) for name, entry in entries.items()}
    assert isinstance(node, Scalar)
    return node.text


def readings(text: str) -> list[Any]:
    node = parse(text, "", Faults())
    assert node is not None
    return [yaml.safe_load(text), plain(node)]


def is_loaded(text: str, file: Path) -> bool:
    file.write_text(text, "utf-8")
    try:
        load(str(file), ENVIRON)
    except ConfigError:
        return False
    return True


def test_it_is_a_json_schema_and_always_the_same() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json_schema_text()) == SCHEMA
    again = subprocess.run(
        [sys.executable, "-m", "asgiri", "--schema"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1", "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    assert again.stdout.decode() == json_schema_text()
    assert again.stderr == b""


@pytest.mark.parametrize(
    ("output", "error"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")], ids=["closed", "full"]
)
def test_an_output_that_cannot_be_had_is_an_error(output: str, error: str) -> None:
    found = subprocess.run(
        ["sh", "-c", f'"$0" -m asgiri --schema {output}', sys.executable],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr == f"asgiri: cannot write to the standard output: {error}\n"


def property_of(path: str) -> dict[str, Any]:
    """What the schema says of a key: ``listen[].bind`` is in the items, ``sni{}.certfile`` in any property."""
    found: dict[str, Any] = SCHEMA
    for name in path.split("."):
        found = found["properties"][name.rstrip("[]{}")]
        within = {"[]": "items", "{}": "additionalProperties"}.get(name[-2:])
        found = found[within] if within else found
    return found


@pytest.mark.parametrize("path", EVERY_KEY)
def test_every_key_is_in_it_with_its_description(path: str) -> None:
    key, found = EVERY_KEY[path], property_of(path)
    assert found["description"].startswith(key.meta.description)
    if key.notation == "duration":
        assert "a number of seconds" in found["description"]
    if key.notation == "size":
        assert "a number of bytes" in found["description"]
    assert key.section or "anyOf" in found or "type" in found


@pytest.mark.parametrize("path", [path for path, key in EVERY_KEY.items() if not key.section or key.optional])
def test_a_default_and_the_examples_are_valid(path: str) -> None:
    found = property_of(path)
    validator = Draft202012Validator({**found, "$defs": SCHEMA["$defs"]})
    assert list(validator.iter_errors(found["default"])) == [] if "default" in found else path in NEEDED
    assert [error for one in found.get("examples", ()) for error in validator.iter_errors(one)] == []


NEEDED = {"listen[].bind", "listen[].tls.certfile", "listen[].tls.sni{}.certfile", "listen[].tls.sni{}.keyfile"}


def test_defaults_stand_as_in_the_file() -> None:
    defaults = {path: property_of(path).get("default") for path in EVERY_KEY}
    assert defaults["timeouts.keep_alive"] == "1m15s"
    assert defaults["limits.request_line"] == "8KiB"
    assert defaults["listen"] == [{"bind": "127.0.0.1:8000"}]
    assert defaults["listen[].http"] == ["h2", "http/1.1"]
    assert defaults["workers.count"] == 1
    assert property_of("process.umask")["default"] is None


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_sample_files_are_valid(path: Path) -> None:
    for reading in readings(path.read_text("utf-8")):
        assert [error.message for error in VALIDATOR.iter_errors(reading)] == []


# Each is loaded as well: the schema and the loader are of one mind.

RIGHT = """
workers: {count: auto}
workers: {count: "4"}
workers: {count: "${N}"}
workers: {count: 4, max_requests: 0, respawn_backoff: {first: 1, most: 2s}}
workers:
workers: null
timeouts: {keep_alive: 30, request: 1.5, write: 1h30m, request_head: 100ms, tls_handshake: "0"}
timeouts: {keep_alive: 1d2h3m4s5ms, request_body: 1.5h}
timeouts: {keep_alive: "${WAIT}", write: "${NOT_SET:-10s}"}
limits: {request_line: 8KiB, header_size: 65536, body_size: 1.5MB, requests: 0}
limits: {body_size: "16 MiB"}
app: ${NOT_SET:-}
app: $${N}
lifespan: ${NOT_SET:-off}
factory: ${NOT_SET:-on}
http2: {max_frame_size: "${NOT_SET:-16}KiB"}
lifespan: on
lifespan: off
lifespan: "off"
factory: yes
factory: on
factory: "1"
factory: 0
factory: FALSE
app: null
app: ~
app: 1
app_dir: "${PLACE}"
env: {A: x, B: 1, C: 1.5, D: "yes", E: ""}
env:
listen: [{bind: 127.0.0.1:8000}]
listen: [{bind: "[::1]:8000", http: [h2]}, {bind: localhost:80}, {bind: unix:/a b.sock}, {bind: unix:@a}]
listen: [{bind: fd:3}, {bind: systemd}, {bind: systemd:web}]
listen: [{bind: "${PLACE}"}]
listen: [{bind: unix:a, mode: "0660"}]
listen: [{bind: unix:a, mode: 0660}]
listen: [{bind: unix:a, mode: 0o660}]
listen: [{bind: unix:a, mode: null, owner: 1000, group: www-data}]
listen: [{bind: a:1, tls: {certfile: a, min_version: 1.2}}]
listen: [{bind: a:1, tls: {certfile: a, min_version: "1.3", sni: {b.example: {certfile: b, keyfile: b}}}}]
listen: [{bind: a:1, tls: null, proxy_protocol: off, backlog: 65535}]
listen:
process: {umask: "027", user: 1000, pidfile: null}
admin: {bind: null}
admin: {bind: 127.0.0.1:9000}
log: {level: debug, access: {enabled: false, format: "{host} {status}"}}
reload: {enabled: false, polling: auto}
http2: {max_concurrent_streams: 100, h2c_upgrade: true}
"""

WRONG = """
wrokers: {}
workers: 4
workers: []
workers: {count: two}
workers: {count: 0}
workers: {count: -1}
workers: {count: 1.5}
workers: {count: null}
workers: {count: true}
workers: {count: "0"}
workers: {count: "04"}
workers: {cuont: 4}
workers: {count: "$${N}"}
workers: {count: "${}"}
workers: {count: "${N"}
workers: {respawn_backoff: 1s}
timeouts: {keep_alive: 30 sec}
timeouts: {keep_alive: 1s1h}
timeouts: {keep_alive: 5M}
timeouts: {keep_alive: -1}
timeouts: {keep_alive: ""}
timeouts: {keep_alive: null}
timeouts: {keep_alive: true}
timeouts: {keep_alive: [1s]}
limits: {body_size: 64kb}
limits: {body_size: -1}
limits: {body_size: 1.5}
limits: {requests: 1KiB}
lifespan: maybe
lifespan: null
factory: maybe
factory: 2
factory: null
app: true
app: [a]
app: {a: b}
app_dir: null
env: [A]
env: {A: null}
env: {A: true}
env: {A: {B: c}}
listen: []
listen: {bind: a:1}
listen: [a:1]
listen: [{}]
listen: [null]
listen: [{bind: 8000}]
listen: [{bind: localhost}]
listen: [{bind: "::1:80"}]
listen: [{bind: "fd:x"}]
listen: [{bind: "unix:"}]
listen: [{bind: "systemd:"}]
listen: [{bind: null}]
listen: [{bind: a:1, http: []}]
listen: [{bind: a:1, http: h2}]
listen: [{bind: a:1, http: [h3]}]
listen: [{bind: a:1, backlog: 0}]
listen: [{bind: a:1, backlog: 65536}]
listen: [{bind: unix:a, mode: rw}]
listen: [{bind: unix:a, mode: "0990"}]
listen: [{bind: unix:a, mode: "07777"}]
listen: [{bind: unix:a, mode: -1}]
listen: [{bind: a:1, tls: {}}]
listen: [{bind: a:1, tls: {keyfile: a}}]
listen: [{bind: a:1, tls: {certfile: null}}]
listen: [{bind: a:1, tls: {certfile: a, min_version: 1.1}}]
listen: [{bind: a:1, tls: {certfile: a, sni: {b: {certfile: b}}}}]
listen: [{bind: a:1, proxy_protocol: on}]
log: {level: loud}
log: {access: {enabled: maybe}}
http2: {max_concurrent_streams: 0}
http2: {max_concurrent_streams: 2147483648}
reload: {polling: maybe}
- a
text
"""


@pytest.mark.parametrize(
    ("text", "good"),
    [(line, True) for line in RIGHT.strip().splitlines()] + [(line, False) for line in WRONG.strip().splitlines()],
)
def test_schema_and_loader_are_of_one_mind(tmp_path: Path, text: str, good: bool) -> None:
    assert is_loaded(text, tmp_path / "one.yaml") is good
    assert [VALIDATOR.is_valid(reading) for reading in readings(text)] == [good, good]


@settings(deadline=None, max_examples=40)
@given(sections(Config))
def test_whatever_the_config_can_hold_is_valid(config: Config) -> None:
    text = written(Key("", (Config,), False), config)
    for reading in readings(text):
        assert [error.message for error in VALIDATOR.iter_errors(reading)] == []


def is_valid(notation: str, text: str) -> bool:
    return Draft202012Validator({"$ref": f"#/$defs/{notation}", "$defs": SCHEMA["$defs"]}).is_valid(text)


def is_read(parse_text: Any, text: str) -> bool:
    try:
        parse_text(text)
    except ValueError:
        return False
    return True


QUANTITIES = st.lists(st.sampled_from(["1", "05", "30", "1.5", "d", "h", "m", "s", "ms", "-", "x"]), max_size=6)
SIZES = st.lists(st.sampled_from(["1", "30", "B", "KiB", "MB", "kb", " ", "-"]), max_size=3)
ADDRESSES = st.lists(
    st.sampled_from(["unix", "fd", "systemd", ":", "[::1]", "127.0.0.1", "a.example", "80", "/a", "@", " "]), max_size=4
)


@settings(deadline=None)
@given(QUANTITIES.map("".join), SIZES.map("".join), ADDRESSES.map("".join))
def test_a_pattern_says_what_the_loader_says(duration: str, size: str, address: str) -> None:
    assert is_valid("duration", duration) == is_read(parse_duration, duration)
    assert is_valid("size", size) == is_read(parse_size, size)
    # Only the loader knows that 1.2.3.4.5 is no host: what the schema refuses must be wrong, and is no more than that.
    assert is_valid("bind", address) or not is_read(parse_bind, address)
