"""The schema: complete, valid as it stands, and each key says what an operator wants to know."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import msgspec
import pytest

from asgiri.config.keys import Key, keys_of
from asgiri.config.schema import Config, Listen, Workers

# Every key of the file, as docs and users name them; an entry of a list is [], one of a map is {}.
KEYS = """
app app_dir factory interface root_path lifespan loop env env_file
listen listen[].bind listen[].name listen[].http listen[].backlog listen[].proxy_protocol
listen[].mode listen[].owner listen[].group
listen[].tls listen[].tls.certfile listen[].tls.keyfile listen[].tls.password_file listen[].tls.client_ca
listen[].tls.client_certs listen[].tls.min_version listen[].tls.ciphers listen[].tls.watch
listen[].tls.sni listen[].tls.sni{}.certfile listen[].tls.sni{}.keyfile
workers workers.count workers.boot_timeout workers.heartbeat_timeout workers.drain_timeout workers.drain_delay
workers.max_requests workers.max_requests_jitter workers.max_memory workers.max_lifetime
workers.respawn_backoff workers.respawn_backoff.first workers.respawn_backoff.most
timeouts timeouts.tls_handshake timeouts.proxy_header timeouts.request_head timeouts.request_body timeouts.request
timeouts.keep_alive timeouts.write
limits limits.request_line limits.header_count limits.header_size limits.body_size limits.requests
limits.connections limits.requests_per_connection
http1 http1.engine
http2 http2.engine http2.max_concurrent_streams http2.initial_window http2.max_frame_size http2.max_header_list
http2.h2c_upgrade
websocket websocket.engine websocket.max_message websocket.compression websocket.ping_interval
websocket.ping_timeout
proxy proxy.trusted proxy.headers
allowed_hosts request_id request_id.header request_id.answer
response_headers server_header date_header
log log.level log.format log.file log.syslog_facility log.capture
log.access log.access.enabled log.access.file log.access.format
reload reload.enabled reload.dirs reload.include reload.exclude reload.delay reload.warm reload.browser
reload.polling
admin admin.bind
metrics metrics.enabled metrics.statsd metrics.statsd.address metrics.statsd.prefix metrics.statsd.interval
control control.socket
process process.user process.group process.umask process.pidfile process.chdir process.title
"""


def every_key(section: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Path and key of all keys, those in lists and maps of sections too."""
    for name, key in keys_of(section).items():
        path = prefix + name
        yield path, key
        if key.container in ("list", "map"):
            key, path = key.element(), path + ("[]" if key.container == "list" else "{}")
        if key.section:
            yield from every_key(key.section, f"{path}.")


EVERY_KEY = dict(every_key(Config))


def test_the_schema_has_the_keys_that_users_type_and_no_others() -> None:
    assert sorted(EVERY_KEY) == sorted(KEYS.split())


@pytest.mark.parametrize("path", EVERY_KEY)
def test_a_key_has_a_description_of_one_line(path: str) -> None:
    description = EVERY_KEY[path].meta.description
    assert description is not None
    assert description.endswith(".")
    assert "\n" not in description


@pytest.mark.parametrize("path", EVERY_KEY)
def test_quantities_have_a_unit_and_plain_numbers_a_least_value(path: str) -> None:
    key = EVERY_KEY[path]
    if float in key.types:
        assert key.notation == "duration"
    if int in key.types and key.notation is None:
        assert key.least is not None


def test_the_default_config_serves_the_demo_on_loopback() -> None:
    config = Config()
    assert config.app is None
    assert config.listen == (Listen(bind="127.0.0.1:8000"),)
    assert str(config.listen[0].address) == "127.0.0.1:8000"
    assert config.workers.processes == 1


def test_msgspec_takes_the_schema_and_the_defaults() -> None:
    assert msgspec.convert(msgspec.to_builtins(Config()), Config) == Config()
    assert "listen" in str(msgspec.json.schema(Config))


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().app = "a:b"  # type: ignore[misc]


def test_a_number_of_workers_is_taken_as_it_is() -> None:
    assert Workers(count=3).processes == 3


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_auto_is_one_worker_for_each_cpu_of_the_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert Workers(count="auto").processes == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert Workers(count="auto").processes == len(allowed)
