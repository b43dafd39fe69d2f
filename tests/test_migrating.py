"""docs/guide/migrating.md: nothing of the others is left out, and all that it names of ours is there."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from asgiri.cli.command import command, from_flags
from asgiri.cli.flags import FLAGS, key_at
from asgiri.config.keys import keys_of
from asgiri.config.load import load
from asgiri.config.schema import Config
from asgiri.config.settings import variables

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "guide" / "migrating.md").read_text("utf-8")

# gunicorn 27.0.1: the names in gunicorn.config.KNOWN_SETTINGS.
GUNICORN = """
config wsgi_app bind backlog workers worker_class threads worker_connections max_requests max_requests_jitter timeout
graceful_timeout keepalive limit_request_line limit_request_fields limit_request_field_size reload reload_engine
reload_extra_files spew check_config print_config preload_app sendfile reuse_port chdir daemon raw_env pidfile
worker_tmp_dir user group umask initgroups tmp_upload_dir secure_scheme_headers forwarded_allow_ips accesslog
disable_redirect_access_to_syslog access_log_format errorlog loglevel capture_output logger_class logconfig
logconfig_dict logconfig_json syslog_addr syslog syslog_prefix syslog_facility enable_stdio_inheritance statsd_host
dogstatsd_tags statsd_prefix enable_backlog_metric proc_name default_proc_name pythonpath paste on_starting on_reload
when_ready pre_fork post_fork post_worker_init worker_int worker_abort pre_exec pre_request post_request child_exit
worker_exit nworkers_changed on_exit ssl_context proxy_protocol proxy_allow_ips protocol uwsgi_allow_ips keyfile
certfile ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers http_protocols
http2_cleartext http2_max_concurrent_streams http2_initial_window_size http2_max_frame_size http2_max_header_list_size
raw_paste_global_conf permit_obsolete_folding strip_header_spaces permit_unconventional_http_method
permit_unconventional_http_version casefold_http_method forwarder_headers header_map asgi_loop asgi_lifespan
asgi_disconnect_grace_period websocket_max_message_size http_parser root_path dirty_apps dirty_workers dirty_timeout
dirty_threads dirty_graceful_timeout on_dirty_starting dirty_post_fork dirty_worker_init dirty_worker_exit
control_socket control_socket_mode control_socket_disable
"""

# uvicorn 0.54.0: the options of uvicorn --help.
UVICORN = """
--host --port --uds --fd --reload --reload-dir --reload-include --reload-exclude --reload-delay --workers --loop --http
--http2 --ws --ws-max-size --ws-max-queue --ws-ping-interval --ws-ping-timeout --ws-per-message-deflate --lifespan
--interface --env-file --log-config --log-level --access-log --no-access-log --use-colors --no-use-colors
--proxy-headers --no-proxy-headers --server-header --no-server-header --date-header --no-date-header
--forwarded-allow-ips --root-path --limit-concurrency --backlog --limit-max-requests --limit-max-requests-jitter
--timeout-keep-alive --timeout-graceful-shutdown --timeout-worker-healthcheck --ssl-keyfile --ssl-certfile
--ssl-keyfile-password --ssl-version --ssl-cert-reqs --ssl-ca-certs --ssl-ciphers --header --version --app-dir
--h11-max-incomplete-event-size --reset-contextvars --factory --help
"""

# hypercorn 0.18.0: what hypercorn.config.Config has, --config, and the flags that are called otherwise.
HYPERCORN = """
access_log_format accesslog alpn_protocols alt_svc_headers backlog bind ca_certs certfile ciphers daemon debug
dogstatsd_tags errorlog graceful_timeout group h11_max_incomplete_size h11_pass_raw_headers h2_max_concurrent_streams
h2_max_header_list_size h2_max_inbound_frame_size include_date_header include_server_header insecure_bind
keep_alive_max_requests keep_alive_timeout keyfile keyfile_password log logconfig logconfig_dict logger_class loglevel
max_app_queue_size max_requests max_requests_jitter pid_path quic_bind read_timeout root_path server_names
shutdown_timeout ssl_enabled ssl_handshake_timeout startup_timeout statsd_host statsd_prefix umask use_reloader user
verify_flags verify_mode websocket_max_message_size websocket_ping_interval worker_class workers wsgi_max_body_size
config
--access-log --access-logfile --access-logformat --cert-reqs --error-log --error-logfile --keep-alive --log-config
--log-file --log-level --pid --reload --server-name
"""

# granian 2.8.7 and daphne 4.2.3: the options of --help, without --no-, --version and --help.
GRANIAN = """
--access-log --access-log-fmt --backlog --backpressure --blocking-threads --blocking-threads-idle-timeout --env-files
--factory --host --http --http1-buffer-size --http1-header-read-timeout --http1-keep-alive --http1-pipeline-flush
--http2-adaptive-window --http2-initial-connection-window-size --http2-initial-stream-window-size
--http2-keep-alive-interval --http2-keep-alive-timeout --http2-max-concurrent-streams --http2-max-frame-size
--http2-max-headers-size --http2-max-send-buffer-size --interface --log --log-config --log-level --loop --metrics
--metrics-address --metrics-port --metrics-scrape-interval --pid-file --port --process-name --reload
--reload-ignore-dirs --reload-ignore-paths --reload-ignore-patterns --reload-ignore-worker-failure --reload-paths
--reload-tick --respawn-failed-workers --respawn-interval --rss-sample-interval --rss-samples
--runtime-blocking-threads --runtime-mode --runtime-threads --ssl-ca --ssl-certificate --ssl-client-verify --ssl-crl
--ssl-keyfile --ssl-keyfile-password --ssl-protocol-min --static-path-dir-to-file --static-path-expires
--static-path-mount --static-path-route --task-impl --uds --uds-permissions --url-path-prefix --workers
--workers-kill-timeout --workers-lifetime --workers-max-rss --working-dir --ws
"""
DAPHNE = """
--access-log --application-close-timeout --bind --endpoint --fd --http-timeout --log-fmt --no-server-name
--ping-interval --ping-timeout --port --proxy-headers --proxy-headers-host --proxy-headers-port --root-path
--server-name --unix-socket --verbosity --websocket-max-frame-size --websocket-max-message-size
--websocket_connect_timeout --websocket_timeout
"""

THEIRS = {"gunicorn": GUNICORN, "uvicorn": UVICORN, "hypercorn": HYPERCORN, "granian": GRANIAN, "daphne": DAPHNE}

# Flags that gunicorn's settings are called by; the settings' own names are what the page goes by.
_FLAG = re.compile(r"--[\w-]+")


@cache
def rows(server: str) -> list[tuple[str, str, str]]:
    """The rows of a server's table: its options, ours, and the remark."""
    _, _, section = PAGE.partition(f"\n## From {server}\n")
    section = section.partition("\n## ")[0]
    found = re.findall(r"^\| (`.*?) \| (.*?) \| ?(.*?) ?\|$", section, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\|", section, re.MULTILINE)) - 2  # the head, and the line below it
    return found


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", text)


def yaml_blocks() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def exists(path: str) -> bool:
    try:
        return bool(key_at(path))
    except KeyError:
        return False


@pytest.mark.parametrize("server", THEIRS)
def test_every_option_has_its_row_and_only_one(server: str) -> None:
    named = [span for theirs, _, _ in rows(server) for span in spans(theirs)]
    if server == "gunicorn":  # its flags are a help for the reader
        named = [span for span in named if not _FLAG.fullmatch(span)]
    assert sorted(named) == sorted(THEIRS[server].split())


@pytest.mark.parametrize("server", THEIRS)
def test_what_the_tables_name_of_ours_is_there(server: str) -> None:
    flags = {name for flag in FLAGS for name in (*flag.names, flag.off)} | {"--help"}
    known = {*flags, *variables(), "WEB_CONCURRENCY", "PORT"}
    for theirs, ours, remark in rows(server):
        named = spans(ours)
        assert named or ours in ("not needed", "not there"), theirs
        assert [name for name in named if name not in known and not exists(name)] == [], theirs
        assert remark.endswith(".") or not remark, theirs


def test_keys_in_the_prose_are_there_too() -> None:
    sections = "|".join(name for name, key in keys_of(Config).items() if key.container)
    named = set(re.findall(rf"`((?:{sections})(?:\[\])?\.[\w.\[\]]+)", PAGE))
    assert "workers.heartbeat_timeout" in named
    assert sorted(name for name in named if not exists(name)) == []


def test_the_examples_load(tmp_path: Path) -> None:
    configs = []
    for block in yaml_blocks():
        file = tmp_path / "asgiri.yaml"
        file.write_text(block, "utf-8")
        configs.append(load(str(file), {}).config)
    gunicorn, uvicorn, hypercorn = configs
    assert (gunicorn.app, gunicorn.workers.count, gunicorn.process.umask) == ("shop.main:app", "auto", 0o027)
    assert gunicorn.timeouts.keep_alive == 65
    assert (uvicorn.factory, uvicorn.workers.drain_timeout) == (True, 20)
    assert [one.tls is not None for one in hypercorn.listen] == [True, False]


def test_the_command_of_an_example_is_what_its_file_says(tmp_path: Path) -> None:
    (typed,) = re.findall(r"`asgiri (--factory [^`]+)`", PAGE)
    given = command.make_context("asgiri", shlex.split(typed)).params
    by_flags = load(None, {}, from_flags(given)).config
    file = tmp_path / "asgiri.yaml"
    file.write_text(next(block for block in yaml_blocks() if "factory: true" in block), "utf-8")
    by_file = load(str(file), {}).config
    for path in ("app", "factory", "root_path", "listen"):
        assert getattr(by_flags, path) == getattr(by_file, path)
    assert (by_flags.workers.count, by_flags.log.level) == (by_file.workers.count, by_file.log.level)


def test_the_links_lead_somewhere() -> None:
    here = Path(__file__).resolve().parents[1] / "docs" / "guide"
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (here / target).exists(), target
    for anchor in re.findall(r"\]\(#([^)]+)\)", PAGE):
        assert anchor in {title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", PAGE, re.MULTILINE)}
