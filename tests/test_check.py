"""``--check-config``: what it finds wrong, what it warns of, and that it leaves no trace."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from asgiri.cli.certificates import check_dates
from asgiri.cli.check import check_files
from asgiri.cli.preflight import check
from asgiri.config.address import parse_bind
from asgiri.config.load import load
from asgiri.config.schema import Tls
from asgiri.errors import BindError, ConfigError
from asgiri.sockets.probe import InUseError, Names, probe
from tests.pki import Pki
from tests.proto.fakes import unused_port

ROOT = Path(__file__).resolve().parents[1]
LONG_AGO = datetime(2020, 2, 3, 4, 5, tzinfo=UTC)
GOOD = "asgiri: asgiri.yaml is good"
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to be somebody else")


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def nobody() -> Iterator[None]:
    """Be somebody without rights."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def for_all(tmp_path: Path) -> None:
    """Let everybody look at the directories here, which pytest makes for us alone."""
    for directory in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        directory.chmod(0o755)
    Path("asgiri.yaml").touch()
    Path("asgiri.yaml").chmod(0o666)


def found(text: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """All that is said of a file with this text, without the name of the program; its listener is any, if not given."""
    Path("asgiri.yaml").write_text(
        text if "listen" in text else f'{text}\nlisten: [{{bind: "127.0.0.1:0"}}]\n', "utf-8"
    )
    before = everything()
    errors: list[str] = []
    try:
        check(load("asgiri.yaml", {}), import_app=False)
    except ConfigError as error:
        errors = [str(problem) for problem in error.problems]
    assert everything() == before, "it has changed something"
    out, err = capsys.readouterr()
    assert out == ("" if errors else f"{GOOD}\n")
    return [*errors, *(line.removeprefix("asgiri: ") for line in err.splitlines())]


def everything() -> dict[str, tuple[int, int, int]]:
    """The files here: mode, size and inode of each."""
    there = [(str(path), path.lstat()) for path in Path().rglob("*")]
    return {path: (status.st_mode, status.st_size, status.st_ino) for path, status in there}


def test_everything_that_is_wrong_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("", "utf-8")
    text = """\
app_dir: gone
env_file: none
listen:
  - bind: 192.0.2.1:80
  - bind: unix:nowhere/x.sock
    owner: no-such-user
    group: "99999999999"
  - bind: 127.0.0.1:0
    tls: {certfile: none.pem}
admin: {bind: "unix:file"}
control: {socket: asgiri.yaml}
log: {file: none/log, access: {file: file/log}}
process:
  user: no-such-user
  pidfile: none/pid
"""
    assert found(text, capsys) == [
        'asgiri.yaml:1: app_dir: the directory "gone" is not there',
        'asgiri.yaml:2: env_file: cannot read "none": No such file or directory',
        "asgiri.yaml:4: listen[0].bind: cannot bind 192.0.2.1:80: this machine has no such address",
        'asgiri.yaml:5: listen[1].bind: cannot bind unix:nowhere/x.sock: there is no directory "nowhere"',
        'asgiri.yaml:6: listen[1].owner: there is no user "no-such-user"',
        "asgiri.yaml:7: listen[1].group: 99999999999 is larger than any id (4294967294)",
        'asgiri.yaml:9: listen[2].tls.certfile: cannot read "none.pem": No such file or directory',
        'asgiri.yaml:10: admin.bind: cannot bind unix:file: "file" is a file that is no socket, and is in the way',
        'asgiri.yaml:11: control.socket: "asgiri.yaml" is a file that is no socket, and is in the way',
        'asgiri.yaml:12: log.access.file: cannot open "file/log": Not a directory',
        'asgiri.yaml:12: log.file: cannot open "none/log": No such file or directory',
        'asgiri.yaml:14: process.user: there is no user "no-such-user"',
        'asgiri.yaml:15: process.pidfile: there is no directory "none"',
    ]


def test_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    text = """\
listen: [{bind: "127.0.0.1:0"}, {bind: "unix:run/a.sock", owner: "0", mode: "0600"}, {bind: "unix:@asgiri-check-test"}]
admin: {bind: "localhost:0"}
control: {socket: run/control}
log: {file: run/log, access: {file: run/access}}
process: {pidfile: run/pid}
"""
    assert found(text, capsys) == []


def test_without_the_directory_to_work_in_the_rest_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    text = 'process: {chdir: none, user: no-such-user}\nlog: {file: x/y}\nlisten: [{bind: "192.0.2.1:80"}]\n'
    assert found(text, capsys) == [
        "asgiri.yaml:1: process.chdir: cannot enter none: No such file or directory",
        'asgiri.yaml:1: process.user: there is no user "no-such-user"',
        "asgiri.yaml:3: listen[0].bind: cannot bind 192.0.2.1:80: this machine has no such address",
    ]


def test_a_start_and_a_reload_know_the_owners_of_sockets(capsys: pytest.CaptureFixture[str]) -> None:
    Path("asgiri.yaml").write_text('listen: [{bind: "unix:a", owner: nobody, group: no-such-group}]', "utf-8")
    with pytest.raises(ConfigError) as caught:
        check_files(load("asgiri.yaml", {}))
    assert str(caught.value) == 'asgiri.yaml:1: listen[0].group: there is no group "no-such-group"'


# Files


def test_what_could_not_be_read_twice_or_at_all_is_not_opened(capsys: pytest.CaptureFixture[str], pki: Pki) -> None:
    os.mkfifo("fifo")
    text = f"""\
env_file: fifo
listen:
  - {{bind: "127.0.0.1:0", tls: {{certfile: {pki.certfile}, keyfile: /dev/zero}}}}
  - {{bind: "127.0.0.1:0", tls: {{certfile: {pki.certfile}, keyfile: fifo}}}}
"""
    pipe = '"fifo": it is a pipe, which can be read only once; name a file'
    assert found(text, capsys) == [
        f"asgiri.yaml:1: env_file: {pipe}",
        'asgiri.yaml:3: listen[0].tls.keyfile: "/dev/zero": it is a device; name a file',
        f"asgiri.yaml:4: listen[1].tls.keyfile: {pipe}",
    ]
    assert found("env_file: /dev/null", capsys) == []


def test_each_bad_line_of_an_environment_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("env").write_text("A=1\nwhat\nB=2\n=\n", "utf-8")
    assert found("env_file: env", capsys) == ["env:2: expected KEY=VALUE", "env:4: expected KEY=VALUE"]


@as_root
@pytest.mark.usefixtures("for_all")
def test_directories_in_which_nothing_can_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    Path("sticky").mkdir()
    Path("sticky").chmod(0o1777)
    with socket.socket(socket.AF_UNIX) as old:
        old.bind("sticky/old")  # nobody listens: who may would replace it
    text = """\
listen: [{bind: "unix:a"}, {bind: "unix:sticky/old"}, {bind: "unix:sticky/new", owner: root, group: "12345"}]
process: {pidfile: pid}
control: {socket: control}
"""
    with nobody():
        said = found(text, capsys)
    denied = 'nothing can be made in ".": permission denied'
    assert said == [
        "asgiri.yaml:1: listen[2].owner: only root can make a socket that is root's",
        "asgiri.yaml:1: listen[2].group: you are not in the group 12345, and not root",
        f"asgiri.yaml:1: listen[0].bind: cannot bind unix:a: {denied}",
        (
            'asgiri.yaml:1: listen[1].bind: cannot bind unix:sticky/old: "sticky/old" is another user\'s (uid 0), and '
            'only that one may replace it in "sticky"'
        ),
        f"asgiri.yaml:2: process.pidfile: {denied}",
        f"asgiri.yaml:3: control.socket: {denied}",
    ]
    assert found(text, capsys) == []  # root may


# Addresses


OTHER = """\
import os, socket, sys
if sys.argv[1]:
    from setproctitle import setproctitle
    setproctitle(sys.argv[1])
if os.path.exists("live"):
    os.unlink("live")
tcp, file, name = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
file.bind("live")
name.bind(f"\\0asgiri-check-{os.getpid()}")
file.listen()
name.listen()
print(tcp.getsockname()[1], flush=True)
sys.stdin.read()
"""


@contextmanager
def other_program(title: str = "") -> Iterator[tuple[int, int]]:
    """Pid and port of another program, which listens at unix:live and unix:@asgiri-check-PID, too."""
    with subprocess.Popen([sys.executable, "-c", OTHER, title], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        yield other.pid, int(other.stdout.readline())
        other.communicate()


def test_an_address_that_is_taken_by_another_program(capsys: pytest.CaptureFixture[str]) -> None:
    with other_program() as (pid, port):
        text = f"""\
listen:
  - bind: 127.0.0.1:{port}
  - bind: unix:live
  - bind: unix:@asgiri-check-{pid}
"""
        said = found(text, capsys)
        said += found(f'admin: {{bind: "0.0.0.0:{port}"}}\ncontrol: {{socket: live}}', capsys)
    name = re.search(r"pid \d+ (\(.*?\))", said[0])
    assert name is not None
    who = f"the address is in use by pid {pid} {name[1]}"
    assert said == [
        f"asgiri.yaml:2: listen[0].bind: cannot bind 127.0.0.1:{port}: {who}",
        f"asgiri.yaml:3: listen[1].bind: cannot bind unix:live: {who}",
        f"asgiri.yaml:4: listen[2].bind: cannot bind unix:@asgiri-check-{pid}: {who}",
        f"asgiri.yaml:1: admin.bind: cannot bind 0.0.0.0:{port}: {who}",
        f'asgiri.yaml:2: control.socket: on "live" listens pid {pid} {name[1]}',
    ]


def test_what_a_process_is_called_tells_whether_it_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    def said(title: str, more: str = "") -> str:
        with other_program(title) as (pid, port):
            text = f'process: {{title: shop, pidfile: pid}}\nlisten: [{{bind: "127.0.0.1:{port}"{more}}}]\n'
            [line] = found(text, capsys)
        return line.replace(str(port), "PORT").replace(str(pid), "PID")

    taken = "asgiri.yaml:2: listen[0].bind: 127.0.0.1:PORT is in use by"
    assert said("shop: master [asgiri.demo:app]") == f"note: {taken} the running service, pid PID, which keeps it"
    other = f"warning: {taken} another service of asgiri, pid PID"
    assert said("asgiri: master [a:b]") == f"{other} (asgiri: master [a:b]): fine if that one is to reload this"
    # gunicorn's titles have the same form.
    error = "asgiri.yaml:2: listen[0].bind: cannot bind 127.0.0.1:PORT: the address is in use by"
    assert said("gunicorn: master [a:b]") == f"{error} pid PID (gunicorn: maste)"
    assert said("systemd") == f"{error} pid PID (systemd)"
    assert said("systemd", ", name: web") == f"note: {taken} systemd, which passes it on by the name web"


@as_root
@pytest.mark.usefixtures("for_all")
def test_the_pid_file_tells_of_a_service_that_cannot_be_looked_into(capsys: pytest.CaptureFixture[str]) -> None:
    with other_program("asgiri: master [a:b]") as (pid, port):
        Path("pid").write_text(f"{pid}\n", "utf-8")
        Path(".").chmod(0o777)
        with nobody():
            [said] = found(f'process: {{pidfile: pid}}\nlisten: [{{bind: "127.0.0.1:{port}"}}]\n', capsys)
    where = f"asgiri.yaml:2: listen[0].bind: 127.0.0.1:{port}"
    assert said == f"note: {where} is in use by the running service, pid {pid}, as it seems, which keeps it"


@as_root
@pytest.mark.usefixtures("for_all")
def test_who_has_an_address_may_not_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with other_program() as (_, port), nobody():
        said = found(f'listen: [{{bind: "127.0.0.1:{port}"}}]', capsys)
    assert said == [
        (
            f"warning: asgiri.yaml:1: listen[0].bind: 127.0.0.1:{port} is in use, by a process that cannot be seen "
            "from here: fine if that is the running service"
        )
    ]


def test_nobody_gets_in_while_it_is_looked(tmp_path: Path) -> None:
    """A listening socket, if only for a moment, would take a client's connection and reset it."""
    port = unused_port()
    address = parse_bind(f"127.0.0.1:{port}")
    names = Names([address])
    got_in = threading.Event()
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0 and client.getsockname() != client.getpeername():
                    got_in.set()

    client = threading.Thread(target=knock)
    client.start()
    for _ in range(300):
        try:
            probe(address, names)
        except InUseError:  # the client's own port, of a connection to itself
            continue
    done.set()
    client.join()
    assert not got_in.is_set()


def test_a_name_that_nobody_resolves_holds_nothing_up() -> None:
    stuck = threading.Event()
    addresses = [parse_bind("one.invalid:80"), parse_bind("two.invalid:80")]

    def never(_address: object) -> None:
        stuck.wait()
        raise OSError

    names = Names(addresses, patience=0.05, lookup=never)
    begun = time.monotonic()
    for address in addresses:
        with pytest.raises(BindError, match=rf"the name {address.host} was not resolved within 0.05s"):
            probe(address, names)
    assert time.monotonic() - begun < 5
    stuck.set()


def test_a_name_that_does_not_exist() -> None:
    address = parse_bind("asgiri-check.invalid:80")
    with pytest.raises(BindError, match=r"Name or service not known|name resolution"):
        probe(address, Names([address]))


def test_stale_sockets_are_left_for_the_start_to_replace(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind("old")
    assert found('listen: [{bind: "unix:old"}]\ncontrol: {socket: old2}', capsys) == []
    assert stat.S_ISSOCK(os.lstat("old").st_mode)


def test_sockets_that_are_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as idle, Path("file").open("w") as file:
        idle_fd, file_fd = idle.fileno(), file.fileno()
        text = f"""\
listen:
  - bind: fd:{listening.fileno()}
  - bind: fd:{idle_fd}
  - bind: fd:{file_fd}
  - bind: fd:987654
  - bind: systemd:web
"""
        said = found(text, capsys)
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert not idle.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    later = "it can be checked only where it is passed on"
    assert said == [
        "note: asgiri.yaml:6: listen[4].bind: whether systemd passes sockets for systemd:web is seen at the start only",
        (
            f"warning: asgiri.yaml:3: listen[1].bind: descriptor {idle_fd} is here a socket that does not listen: "
            f"{later}"
        ),
        (
            f"warning: asgiri.yaml:4: listen[2].bind: descriptor {file_fd} is here no socket to listen on "
            f"(Socket operation on non-socket): {later}"
        ),
        f"warning: asgiri.yaml:5: listen[3].bind: descriptor 987654 is not open here: {later}",
    ]


# Certificates


def with_pair(pair: Sequence[str], more: str = "") -> str:
    shutil.copy(pair[0], "c.pem")
    shutil.copy(pair[1], "c.key")
    Path("c.key").chmod(0o600)
    return f'listen:\n- bind: "127.0.0.1:0"\n  tls: {{certfile: c.pem, keyfile: c.key{more}}}\n'


def test_certificates_out_of_their_dates(capsys: pytest.CaptureFixture[str], pki: Pki) -> None:
    now = datetime.now(UTC)
    key = "asgiri.yaml:3: listen[0].tls.certfile"
    assert found(with_pair(pki.issue("old", "a", not_after=LONG_AGO)), capsys) == [
        f'{key}: the certificate in "c.pem" expired on 2020-02-03 04:05 UTC'
    ]
    [said] = found(with_pair(pki.issue("new", "a", not_before=now + timedelta(days=2))), capsys)
    assert said.startswith(f'{key}: the certificate in "c.pem" holds from {now + timedelta(days=2):%Y-%m-%d} ')
    soon = now + timedelta(days=13)
    assert found(with_pair(pki.issue("soon", "a", not_after=soon)), capsys) == [
        f'warning: {key}: the certificate in "c.pem" expires on {soon:%Y-%m-%d %H:%M} UTC'
    ]
    assert found(with_pair(pki.issue("late", "a", not_after=now + timedelta(days=15))), capsys) == []


def test_of_a_certificate_that_has_expired_a_start_and_a_reload_only_warn(pki: Pki) -> None:
    Path("asgiri.yaml").write_text(with_pair(pki.issue("old", "a", not_after=LONG_AGO)), "utf-8")
    [warning] = check_files(load("asgiri.yaml", {}))
    assert str(warning) == (
        'asgiri.yaml:3: listen[0].tls.certfile: the certificate in "c.pem" expired on 2020-02-03 04:05 UTC'
    )


def test_dates_of_other_certificates_than_the_servers_own(pki: Pki) -> None:
    middle = pki.authority.create_child_ca()
    certfile, keyfile = pki.issue("chain", "localhost", authority=middle)
    tls = Tls(
        certfile=certfile,
        keyfile=keyfile,
        client_ca=pki.write("two.pem", Path(pki.ca_file).read_bytes() * 2),
        client_certs="required",
    )
    warnings: list[str] = []
    errors: list[str] = []

    def told(now: datetime) -> tuple[list[str], list[str]]:
        warnings.clear()
        errors.clear()
        tell_warnings, tell_errors = (lambda *said, to=to: to.append(": ".join(said)) for to in (warnings, errors))
        check_dates(tls, "tls", tell_warnings, tell_errors, now)
        return warnings, errors

    assert told(datetime.now(UTC)) == ([], [])
    # trustme's authorities and certificates hold until 3000.
    late = datetime(3001, 1, 1, tzinfo=UTC)
    assert told(late) == (
        [
            f'tls.certfile: certificate 2 in "{certfile}" expired on 3000-01-01 00:00 UTC',
            (
                f'tls.client_ca: 2 of the 2 certificates in "{tls.client_ca}" do not hold now; the first expired on '
                "3000-01-01 00:00 UTC"
            ),
        ],
        [f'tls.certfile: the certificate in "{certfile}" expired on 3000-01-01 00:00 UTC'],
    )
    assert told(datetime(2999, 12, 20, tzinfo=UTC))[0] == [
        f'tls.certfile: the certificate in "{certfile}" expires on 3000-01-01 00:00 UTC',
        f'tls.certfile: certificate 2 in "{certfile}" expires on 3000-01-01 00:00 UTC',
        f'tls.client_ca: a certificate in "{tls.client_ca}" expires on 3000-01-01 00:00 UTC',
    ]


def test_the_certificates_of_names(capsys: pytest.CaptureFixture[str], pki: Pki) -> None:
    old = pki.issue("sni-old", "b", not_after=LONG_AGO)
    Path(old[1]).chmod(0o600)
    more = f', sni: {{b.example: {{certfile: "{old[0]}", keyfile: "{old[1]}"}}}}'
    assert found(with_pair((pki.certfile, pki.keyfile), more), capsys) == [
        (
            f'asgiri.yaml:3: listen[0].tls.sni.b.example.certfile: the certificate in "{old[0]}" expired on '
            "2020-02-03 04:05 UTC"
        )
    ]


def test_a_chain_in_the_wrong_order(capsys: pytest.CaptureFixture[str], pki: Pki) -> None:
    middle = pki.authority.create_child_ca()
    leaf = middle.issue_cert("localhost")
    own, second = (pem.bytes() for pem in leaf.cert_chain_pems)
    key = pki.write("order.key", leaf.private_key_pem.bytes())
    root = Path(pki.ca_file).read_bytes()
    name = "asgiri.yaml:3: listen[0].tls.certfile"

    def order(*certificates: bytes) -> list[str]:
        return found(with_pair((pki.write("order.pem", b"".join(certificates)), key)), capsys)

    assert order(own, second) == order(own, second, root) == order(own) == []
    assert order(second, own) == [
        f'{name}: "c.pem" begins with the certificate of an authority: put the server\'s own first'
    ]
    lost = "some clients will not find their way to an authority that they trust"
    assert order(own, root, second) == [
        f'warning: {name}: certificate 2 in "c.pem" is not that of the issuer of certificate 1: {lost}'
    ]
    assert order(own, second, trustme.CA().cert_pem.bytes()) == [
        f'warning: {name}: certificate 3 in "c.pem" is not that of the issuer of certificate 2: {lost}'
    ]


def test_secrets_that_others_may_read(capsys: pytest.CaptureFixture[str], pki: Pki) -> None:
    secret = b"never to be seen"
    key = pki.encrypted_key(secret)
    Path("password").write_bytes(secret)
    text = with_pair((pki.certfile, key), ", password_file: password")
    Path("c.key").chmod(0o640)
    Path("password").chmod(0o604)
    assert found(text, capsys) == [
        (
            "warning: asgiri.yaml:3: listen[0].tls.keyfile: "
            'others than the owner of "c.key" may use it (mode 0640): chmod 600'
        ),
        (
            "warning: asgiri.yaml:3: listen[0].tls.password_file: "
            'others than the owner of "password" may use it (mode 0604): chmod 600'
        ),
    ]
    Path("password").write_bytes(b"wrong and never to be seen")
    assert found(text, capsys) == [
        'asgiri.yaml:3: listen[0].tls.password_file: the password in "password" does not open the key in "c.key"'
    ]


# The real command


def asgiri(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "asgiri", "--check-config", "-b", "127.0.0.1:0", *arguments]
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_wsgi_without_the_package_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(None, {"ASGIRI_INTERFACE": "wsgi"})
    check_files(loaded)
    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ConfigError, match=r"^ASGIRI_INTERFACE: interface: wsgi takes the package a2wsgi, which is not"):
        check_files(loaded)


APPS = """\
import atexit, os, sys, threading, time
print("imported")
what = os.environ.get("WHAT", "")
if what == "threads":
    threading.Thread(target=time.sleep, args=(1000,)).start()
    atexit.register(print, "left")
if what == "exit":
    sys.exit("no")
if what == "crash":
    os.abort()
if what == "children":
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
        os._exit(0)
if what == "silent":
    os._exit(0)
if what == "orphan":
    pid = os.fork()
    if pid == 0:
        os.closerange(0, 3)
        time.sleep(1000)
    with open("orphan", "w") as file:
        file.write(str(pid))
    os._exit(5)

async def app(scope, receive, send): ...

def make():
    if what == "factory":
        raise ValueError("no")
    return app
"""


@pytest.fixture
def apps() -> None:
    Path("apps.py").write_text(APPS, "utf-8")


@pytest.mark.usefixtures("apps")
@pytest.mark.parametrize(
    ("what", "said"), [("", "imported\n"), ("threads", "imported\nleft\n"), ("children", "imported\n")]
)
def test_an_application_that_can_be_imported(what: str, said: str) -> None:
    done = asgiri("--import", "--set", f"env.WHAT={what}", "apps:make", "--factory")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{said}asgiri: the configuration is good\n"
    assert not Path("__pycache__").exists()


@pytest.mark.usefixtures("apps")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("exit", "module apps was found, but importing it called sys.exit('no')\nTraceback (most recent call last):\n"),
        ("crash", "importing apps:make ended the process: it was killed by SIGABRT"),
        ("silent", "importing apps:make ended the process: it exited with status 0\n"),
        ("factory", "factory apps:make was found, but calling it failed: ValueError: no\nTraceback "),
    ],
)
def test_an_application_that_cannot(what: str, said: str) -> None:
    done = asgiri("--import", "--set", f"env.WHAT={what}", "apps:make", "--factory", "--pidfile", "none/pid")
    assert done.returncode == 2
    assert "is good" not in done.stdout
    assert done.stderr.startswith(f"asgiri: {said}")
    assert done.stderr.endswith('asgiri: --pidfile: process.pidfile: there is no directory "none"\n')
    assert "/asgiri/" not in done.stderr


@pytest.mark.usefixtures("apps")
def test_who_ends_its_process_leaves_nobody_to_wait_for() -> None:
    begun = time.monotonic()
    done = asgiri("--import", "--set", "env.WHAT=orphan", "--set", "workers.boot_timeout=15s", "apps:app")
    os.kill(int(Path("orphan").read_text("utf-8")), signal.SIGKILL)  # it has the other end of what the check listens to
    assert done.stderr == "asgiri: importing apps:app ended the process: it exited with status 5\n"
    assert time.monotonic() - begun < 10


def test_an_application_that_raises_what_is_no_exception() -> None:
    Path("broken.py").write_text("raise KeyboardInterrupt\n", "utf-8")
    done = asgiri("--import", "broken:app")
    assert done.returncode == 2
    assert done.stderr.startswith("asgiri: importing broken:app crashed: KeyboardInterrupt\nTraceback ")


def test_an_application_that_never_ends_its_import() -> None:
    Path("stuck.py").write_text("import threading\ndef wait():\n    threading.Event().wait()\nwait()\n", "utf-8")
    done = asgiri("--import", "--set", "workers.boot_timeout=300ms", "stuck:app")
    assert (done.returncode, done.stdout) == (2, "")
    first, *trace = done.stderr.splitlines()
    assert first == "asgiri: importing stuck:app was not done after 300ms (workers.boot_timeout)"
    assert trace[-2:] == [
        f'  File "{Path.cwd()}/stuck.py", line 3 in wait',
        f'  File "{Path.cwd()}/stuck.py", line 4 in <module>',
    ]


def test_nothing_is_imported_for_what_is_wrong_already() -> None:
    done = asgiri("--import", "--app-dir", "gone", "apps:app")
    assert (done.returncode, done.stderr) == (2, 'asgiri: --app-dir: app_dir: the directory "gone" is not there\n')


def test_a_verdict_that_cannot_be_written_is_none() -> None:
    command = [sys.executable, "-m", "asgiri", "--check-config", "-b", "127.0.0.1:0"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, env={"PYTHONPATH": str(ROOT)}, stdout=full, stderr=subprocess.PIPE, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (
        1,
        b"asgiri: cannot write to the standard output: No space left on device\n",
    )


def test_who_ends_the_check_ends_the_import() -> None:
    Path("stuck.py").write_text(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('pid', 'w').write(str(os.getpid()) + '\\n')\ntime.sleep(1000)\n",
        "utf-8",
    )
    command = [sys.executable, "-m", "asgiri", "--check-config", "--import", "-b", "127.0.0.1:0", "stuck:app"]
    with subprocess.Popen(command, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE) as running:
        deadline = time.monotonic() + 20
        while not (Path("pid").exists() and Path("pid").read_text("utf-8").endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=20)  # which is at an end of file when the import has ended, too
    assert (running.returncode, err) == (143, b"")
