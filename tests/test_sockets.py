"""Binding: every kind of address, what stands in the way in words, and nothing left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgiri.config.schema import Listen, Tls
from asgiri.errors import BindError, ExitCode
from asgiri.sockets.bind import bind, bind_all, reason
from tests.proto.fakes import unused_port


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def no_fd_left() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


def answers(sock: socket.socket) -> bool:
    """Whether a client gets through to the listening socket."""
    with socket.socket(sock.family) as client:
        client.settimeout(10)
        client.connect(sock.getsockname())
        sock.setblocking(True)
        accepted, _ = sock.accept()
        accepted.close()
    return True


# TCP


@pytest.mark.parametrize(
    ("text", "family", "url"),
    [
        ("127.0.0.1:0", socket.AF_INET, "http://127.0.0.1:{}"),
        ("0.0.0.0:0", socket.AF_INET, "http://0.0.0.0:{}"),
        ("[::1]:0", socket.AF_INET6, "http://[::1]:{}"),
        ("[::]:0", socket.AF_INET6, "http://[::]:{}"),
    ],
)
def test_a_tcp_address_is_bound_and_told_as_a_url(text: str, family: socket.AddressFamily, url: str) -> None:
    with contextlib.closing(bind(Listen(bind=text))) as listener:
        assert listener.sock.family == family
        assert not listener.is_unix
        assert not listener.sock.getblocking()
        assert not listener.sock.get_inheritable()
        assert listener.url == url.format(listener.sock.getsockname()[1])
        assert answers(listener.sock)


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "https://127.0.0.1:{}"), ("[::1]", "https://[::1]:{}")])
def test_the_url_of_a_tls_listener(host: str, url: str) -> None:
    listen = Listen(bind=f"{host}:0", tls=Tls(certfile="cert.pem", keyfile="key.pem"))
    with contextlib.closing(bind(listen)) as listener:
        assert listener.url == url.format(listener.sock.getsockname()[1])


def test_a_host_name() -> None:
    with contextlib.closing(bind(Listen(bind="localhost:0"))) as listener:
        assert listener.sock.getsockname()[0] in ("127.0.0.1", "::1")


def test_any_ipv6_address_means_both_families_and_one_address_means_itself() -> None:
    with contextlib.closing(bind(Listen(bind="[::]:0"))) as both:
        port = both.sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
    with contextlib.closing(bind(Listen(bind="[::1]:0"))) as one:
        assert one.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_the_port_of_a_predecessor_in_time_wait() -> None:
    with contextlib.closing(bind(Listen(bind="127.0.0.1:0"))) as first:
        port = first.sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            first.sock.setblocking(True)
            accepted, _ = first.sock.accept()
            accepted.close()  # this side closes first, so that TIME_WAIT is on the port
            assert client.recv(1) == b""
    bind(Listen(bind=f"127.0.0.1:{port}")).close()


def test_a_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, no_fd_left():
        port = other.getsockname()[1]
        with pytest.raises(BindError) as caught:
            bind(Listen(bind=f"127.0.0.1:{port}"))
    assert str(caught.value) == (
        f"cannot bind 127.0.0.1:{port}: the address is in use by this service itself, for 127.0.0.1:{port}"
    )
    assert caught.value.exit_code is ExitCode.BIND


def test_an_address_of_somebody_else() -> None:
    with no_fd_left(), pytest.raises(BindError, match=r"cannot bind 192\.0\.2\.1:80: this machine has no such address"):
        bind(Listen(bind="192.0.2.1:80"))


def test_a_name_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(BindError, match=r"cannot bind nobody\.invalid:80: Name or service not known"):
        bind(Listen(bind="nobody.invalid:80"))


def test_a_port_that_needs_privileges() -> None:
    assert reason(OSError(errno.EACCES, "")).startswith("permission denied")
    assert reason(OSError(errno.EIO, "Input/output error")) == "Input/output error"
    assert reason(OSError("words only")) == "words only"


def test_bind_all_keeps_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    port = unused_port()
    good = [Listen(bind=f"127.0.0.1:{port}"), Listen(bind=f"unix:{path}")]
    listeners = bind_all(good)
    assert [listener.listen for listener in listeners] == good
    for listener in listeners:
        listener.close()
    with no_fd_left(), pytest.raises(BindError, match="no such address"):
        bind_all([*good, Listen(bind="192.0.2.1:80")])
    assert not path.exists()
    bind(Listen(bind=f"127.0.0.1:{port}")).close()


# Unix sockets


def test_a_unix_socket_is_bound_and_its_file_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listener = bind(Listen(bind=f"unix:{path}"))
    assert listener.is_unix
    assert listener.url == f"unix:{path}"
    assert answers(listener.sock)
    listener.close()
    assert not path.exists()
    listener.close()  # twice is no harm


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
def test_unix_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "app.sock"
    before = os.umask(0o022)
    try:
        with contextlib.closing(bind(Listen(bind=f"unix:{path}", mode=mode))):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        assert os.umask(0o022) == 0o022, "the umask is as it was"
        with contextlib.closing(bind(Listen(bind=f"unix:{path}"))):
            assert stat.S_IMODE(path.stat().st_mode) == 0o755, "what umask leaves"
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize(("owner", "group"), [("nobody", None), ("65534", "65534"), (None, "12345")])
def test_unix_owner(tmp_path: Path, owner: str | None, group: str | None) -> None:
    path = tmp_path / "app.sock"
    with contextlib.closing(bind(Listen(bind=f"unix:{path}", owner=owner, group=group, mode=0o640))):
        found = path.stat()
        assert found.st_uid == (65534 if owner else os.getuid())
        assert found.st_gid == (int(group) if group else os.getgid())
        assert stat.S_IMODE(found.st_mode) == 0o640


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        ({"owner": "no-such-user"}, 'listen.owner: there is no user "no-such-user"'),
        ({"group": "no-such-group"}, 'listen.group: there is no group "no-such-group"'),
    ],
)
def test_an_unknown_owner(tmp_path: Path, listen: dict[str, str], message: str) -> None:
    path = tmp_path / "app.sock"
    with no_fd_left(), pytest.raises(BindError, match=message):
        bind(Listen(bind=f"unix:{path}", owner=listen.get("owner"), group=listen.get("group")))
    assert not path.exists(), "a socket that nobody listens on is not left behind"


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "app.sock"
    with no_fd_left(), pytest.raises(BindError, match=f"cannot bind unix:{path}: No such file or directory"):
        bind(Listen(bind=f"unix:{path}"))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    path.write_text("precious")
    with no_fd_left(), pytest.raises(BindError, match="a file that is no socket is in the way"):
        bind(Listen(bind=f"unix:{path}"))
    assert path.read_text() == "precious"


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with contextlib.closing(bind(Listen(bind=f"unix:{path}"))) as listener:
        assert answers(listener.sock)


def test_a_live_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with contextlib.closing(bind(Listen(bind=f"unix:{path}"))) as listener:
        with no_fd_left(), pytest.raises(BindError, match="a live server is listening there"):
            bind(Listen(bind=f"unix:{path}"))
        listener.sock.setblocking(True)
        listener.sock.accept()[0].close()  # the probe
        assert answers(listener.sock)


def test_a_live_socket_with_a_full_queue_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with contextlib.closing(bind(Listen(bind=f"unix:{path}", backlog=1))), contextlib.ExitStack() as clients:
        with contextlib.suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(BindError, match="a live server is listening there"):
            bind(Listen(bind=f"unix:{path}"))
    assert not path.exists()


def test_a_file_that_goes_while_it_is_looked_at_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops removes its file, at any moment of the look at it."""
    path = tmp_path / "app.sock"
    look = os.lstat

    def look_late(where: str) -> os.stat_result:
        monkeypatch.undo()
        found = look(where)
        gone.close()
        return found

    gone = bind(Listen(bind=f"unix:{path}"))
    monkeypatch.setattr(os, "lstat", look_late)
    with contextlib.closing(bind(Listen(bind=f"unix:{path}"))) as listener:
        assert answers(listener.sock)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_file_that_cannot_be_removed_stays_and_the_socket_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        listener = bind(Listen(bind=f"unix:{directory}/app.sock"))
        os.seteuid(65534)
        try:
            listener.close()
        finally:
            os.seteuid(0)
        assert listener.sock.fileno() == -1
        assert os.listdir(directory) == ["app.sock"]
    assert caplog.messages == [f"the file of unix:{directory}/app.sock cannot be removed: Permission denied"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_socket_of_somebody_else_is_in_the_way() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        with contextlib.closing(bind(Listen(bind=f"unix:{directory}/app.sock", mode=0o600))):
            os.seteuid(65534)
            try:
                with no_fd_left(), pytest.raises(BindError, match="there is a socket that we may not connect to"):
                    bind(Listen(bind=f"unix:{directory}/app.sock"))
            finally:
                os.seteuid(0)


def test_close_leaves_a_link_to_its_file_that_somebody_has_made(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    listener = bind(Listen(bind=f"unix:{path}"))
    path.rename(tmp_path / "moved.sock")
    path.symlink_to("moved.sock")
    assert not listener.is_lost, "clients get through"
    listener.close()
    assert path.is_symlink()


def test_close_leaves_the_file_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    first = bind(Listen(bind=f"unix:{path}"))
    path.rename(tmp_path / "old.sock")
    second = bind(Listen(bind=f"unix:{path}"))
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


# File descriptors


def test_a_passed_descriptor_is_bound_as_a_copy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        with contextlib.closing(bind(Listen(bind=f"fd:{given.fileno()}"))) as listener:
            assert listener.sock.fileno() != given.fileno(), "its own copy: the one that was passed stays its owner's"
            assert listener.sock.getsockname() == given.getsockname()
            assert not listener.sock.get_inheritable()
            assert not listener.is_unix
            assert answers(listener.sock)
        assert given.fileno() >= 0
        assert given.getsockname()


def test_fd_of_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        with contextlib.closing(bind(Listen(bind=f"fd:{given.fileno()}"))) as listener:
            assert listener.is_unix
            assert listener.url == f"unix:{path}"
            assert answers(listener.sock)
    assert path.exists(), "the file is the binder's"


def test_fd_of_nothing() -> None:
    with no_fd_left(), pytest.raises(BindError, match="cannot bind fd:987654: Bad file descriptor"):
        bind(Listen(bind="fd:987654"))


def test_fd_of_a_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, no_fd_left():
        with pytest.raises(BindError, match="Socket operation on non-socket"):
            bind(Listen(bind=f"fd:{file.fileno()}"))
        assert not file.closed


def test_fd_of_a_datagram_socket() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as given, no_fd_left():
        with pytest.raises(BindError, match="no stream socket"):
            bind(Listen(bind=f"fd:{given.fileno()}"))
        assert given.fileno() >= 0


def test_fd_of_another_family() -> None:
    try:
        given = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this kernel has no vsock")
    with given, no_fd_left(), pytest.raises(BindError, match="neither a TCP socket nor a unix socket"):
        bind(Listen(bind=f"fd:{given.fileno()}"))


def test_fd_of_a_connection() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as given,
        no_fd_left(),
        pytest.raises(BindError, match="cannot listen on fd:"),
    ):
        bind(Listen(bind=f"fd:{given.fileno()}"))
