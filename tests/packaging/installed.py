"""That an installed asgiri is whole: run by `smoke.py` with the Python of a clean environment, in an empty directory.

There are no test tools there: it needs nothing but what asgiri itself depends on.
"""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
from importlib import resources
from pathlib import Path

import h2.config
import h2.connection
import h2.events

import asgiri
from asgiri.build import BUILD, COMPILED

BIN = Path(sys.executable).parent
PATIENCE = 30.0  # seconds
CONFIG = """\
listen: [{bind: "127.0.0.1:0"}]
workers: {count: 2}
admin: {bind: "127.0.0.1:0"}
control: {socket: control.sock}
"""


def command(*words: str) -> str:
    """What one of the installed commands says. AssertionError where it fails."""
    done = subprocess.run([BIN / words[0], *words[1:]], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def over_http1(port: int, path: str) -> tuple[int, bytes]:
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def over_http2(port: int, path: str) -> tuple[int, bytes]:
    """Status and body, by prior knowledge."""
    status, body, ended = 0, b"", False
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    connection.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "127.0.0.1"), (":path", path)]
    connection.send_headers(1, fields, end_stream=True)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(connection.data_to_send())
        while not ended:
            data = sock.recv(65536)
            assert data, "the connection ended before the answer did"
            for event in connection.receive_data(data):
                match event:
                    case h2.events.ResponseReceived(headers=headers) if headers:
                        status = next(int(value) for name, value in headers if name == b":status")
                    case h2.events.DataReceived(data=piece) if piece:
                        body += piece
                    case h2.events.StreamEnded():
                        ended = True
    return status, body


def package(wanted: str) -> None:
    """What is imported is what was installed, with its data, and compiled or not as it was ordered."""
    assert Path(asgiri.__file__).is_relative_to(sys.prefix), f"{asgiri.__file__} is not of this environment"
    assert (wanted == "compiled") is COMPILED, f"it is {BUILD}"
    for name in ("py.typed", "admin/page/status.html", "admin/page/status.js", "admin/page/status.css"):
        assert resources.files("asgiri").joinpath(name).is_file(), f"there is no {name} in the package"


def service() -> None:
    """The commands check a config, start a service of it, tell its status and stop it; and it answers."""
    Path("asgiri.yaml").write_text(CONFIG, "ascii")
    command("asgiri", "--check-config", "--import")
    log = []
    with subprocess.Popen([BIN / "asgiri"], stderr=subprocess.PIPE, text=True) as master:
        assert master.stderr is not None
        try:
            for line in master.stderr:
                log.append(line)
                if "ready: 2 workers" in line:
                    break
            ports = [int(port) for port in re.findall(r"listening on http://127\.0\.0\.1:(\d+)", "".join(log))]
            assert len(ports) == 2, "".join(log)
            for status, body in (over_http1(ports[0], "/"), over_http2(ports[0], "/"), over_http1(ports[1], "/")):
                assert status == 200, (status, body)
                assert body
            assert str(master.pid) in command("asgirictl", "--socket", "control.sock", "status")
            command("asgirictl", "--socket", "control.sock", "stop")
            assert master.wait(PATIENCE) == 0, f"exit {master.returncode}"
        finally:
            if master.poll() is None:
                master.kill()


if __name__ == "__main__":
    package(sys.argv[1])
    version = command("asgiri", "--version").strip()
    assert asgiri.__version__ in version, version
    service()
    print(f"{version}, {BUILD}: it starts, answers over HTTP/1.1 and HTTP/2, tells its status and stops")
