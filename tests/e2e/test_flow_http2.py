"""Flow control over HTTP/2 as a client sees it, and what it costs the worker: real processes, real sockets."""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from tests.e2e.conftest import APP_DIR
from tests.e2e.service import PATIENCE, Service, eventually
from tests.pki import Pki

MIB = 1 << 20
FRAME = 16 << 10
WINDOW = MIB  # http2.initial_window as it is by default
MOST_WINDOW = 2**31 - 1

ENGINES = ["native", "h2"]


class Flow(Service):
    """One worker. ``trust`` is what a client of it needs where it speaks TLS."""

    trust: ssl.SSLContext | None = None


@pytest.fixture(params=ENGINES)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Flow]:
    """A worker with this engine; a new one each time, whose memory holds nothing of an earlier test."""
    with begin(tmp_path, request.param) as running:
        yield running


@contextmanager
def begin(directory: Path, engine_name: str, *args: str) -> Iterator[Flow]:
    engine = ("--set", f"http2.engine={engine_name}")
    where = ("--bind", "127.0.0.1:0", "--http", "h2", "--app-dir", str(APP_DIR))
    running = Flow(directory, *where, *engine, *args, "--no-access-log", "--lifespan", "off", "flow_app:app")
    try:
        yield running.ready()
    finally:
        running.close()


class Client:
    """One connection that does as it is told: it reads, and opens its windows, only when it is asked to.

    ``window`` is what each stream of it lets the server send, ``connection_window`` what all of them do.
    """

    def __init__(self, service: Flow, window: int = 65_535, connection_window: int = 65_535) -> None:
        self.sock = socket.create_connection(("127.0.0.1", service.port), PATIENCE)
        if service.trust is not None:
            self.sock = service.trust.wrap_socket(self.sock, server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window, h2.settings.SettingCodes.ENABLE_PUSH: 0}
        self.h2.local_settings = h2.settings.Settings(initial_values=settings)
        self.h2.initiate_connection()
        if connection_window > 65_535:
            self.h2.increment_flow_control_window(connection_window - 65_535)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def ask(self, path: str, method: str = "GET", *fields: tuple[str, str]) -> int:
        """Begin a request; it leaves with the next :meth:`flush`. Returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
        self.h2.send_headers(stream, [*pseudo, *fields], end_stream=method == "GET")
        return stream

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def events(self) -> list[h2.events.Event]:
        """What comes next; acknowledgements wait for :meth:`flush`."""
        data = self.sock.recv(1 << 16)
        assert data, "the server closed the connection"
        return self.h2.receive_data(data)

    def body(self, stream: int) -> bytes:
        """The whole body of one answer; no other stream may be open."""
        found = b""
        while True:
            for event in self.events():
                if isinstance(event, h2.events.DataReceived):
                    assert event.stream_id == stream
                    found += event.data or b""
                elif isinstance(event, h2.events.StreamEnded):
                    return found
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event


def account(service: Flow) -> dict[str, int]:
    """What the application tells about itself."""
    with Client(service) as client:
        stream = client.ask("/account")
        client.flush()
        found: dict[str, int] = json.loads(client.body(stream))
    return found


def resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    match = re.search(r"^Rss: +(\d+) kB$", text, re.MULTILINE)
    assert match
    return int(match[1]) << 10


# Answers that nobody reads

STALLED = 200
# What a stream may hold: the bound at which send() waits, the piece of the application's that went over it, and its own
# objects. What a connection may hold besides: a transport's buffer to its bound, and one write that went over it.
PER_STREAM = (64 + 64 + 32) << 10
PER_CONNECTION = (64 + 256 + 64) << 10

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def stalled(service: Flow, before: dict[str, int]) -> bool:
    """Whether all of the large answers have begun, wait, and get no further."""
    first, second = account(service), account(service)
    begun = first["begun"] - before["begun"]
    return begun == STALLED and first["sending"] == STALLED and first["accepted"] == second["accepted"]


@linux
@pytest.mark.parametrize(
    ("path", "connections", "window", "connection_window"),
    [
        pytest.param("/large", 2, 0, MOST_WINDOW, id="streams-closed"),
        pytest.param("/large", 2, MOST_WINDOW, 65_535, id="connection-closed"),
        pytest.param("/large", 2, MOST_WINDOW, MOST_WINDOW, id="nothing-read-on-2-connections"),
        pytest.param("/large", STALLED, MOST_WINDOW, MOST_WINDOW, id="nothing-read-on-200-connections"),
        pytest.param("/whole", 2, 0, MOST_WINDOW, id="one-message-each"),
    ],
)
def test_stalled_large_answers_take_little_memory(
    service: Flow, path: str, connections: int, window: int, connection_window: int
) -> None:
    stall(service, path, connections, window, connection_window)


@linux
@pytest.mark.parametrize("engine", ENGINES)
def test_stalled_large_answers_over_tls_take_little_memory(engine: str, tmp_path: Path, pki: Pki) -> None:
    with begin(tmp_path, engine, "--certfile", pki.certfile, "--keyfile", pki.keyfile) as service:
        service.trust = pki.client(alpn=("h2",))
        account(service)  # the first handshake has costs of its own
        stall(service, "/large", STALLED, MOST_WINDOW, MOST_WINDOW)


def stall(service: Flow, path: str, connections: int, window: int, connection_window: int) -> None:
    """Ask for large answers, read none of them, and see what they take."""
    before = account(service)
    size = resident(before["pid"])
    # One message of the application's own, which all of these answers share, is not the server's to save.
    own = 100 * MIB if path == "/whole" else 0
    allowed = STALLED * PER_STREAM + connections * PER_CONNECTION + own
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(service, window, connection_window)) for _ in range(connections)]
        for client in clients:
            for _ in range(STALLED // connections):
                client.ask(path)
            client.flush()
        assert eventually(lambda: stalled(service, before)), account(service)
        grown = resident(before["pid"]) - size
        assert grown < allowed, f"{grown / MIB:.1f} MiB, of {allowed / MIB:.1f}"
        assert account(service)["pid"] == before["pid"]  # and it serves others meanwhile
    assert eventually(lambda: not account(service)["sending"])  # nobody waits for a client that has left


# Uploads


class Updates:
    """The credit that an upload got: for its stream, and for the connection."""

    def __init__(self) -> None:
        self.stream = 0
        self.connection = 0

    def count(self, events: list[h2.events.Event]) -> None:
        for event in events:
            if isinstance(event, h2.events.WindowUpdated):
                if event.stream_id:
                    self.stream += 1
                else:
                    self.connection += 1
            assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event


def test_an_upload_gets_credit_in_time_and_not_for_each_frame(service: Flow) -> None:
    """The client never lets less than 3/8 of its window be left: credit that comes later than that never comes.

    So a round trip may take as long as 3/8 of a window takes to send before an upload stands still. (A client of a test
    cannot tell a short stop from none by the clock.)
    """
    size, reserve = 24 * MIB, WINDOW * 3 // 8
    updates, piece = Updates(), bytes(FRAME)
    with Client(service) as client:
        client.flush()
        while client.h2.outbound_flow_control_window <= 65_535:  # the server's preface opens the connection's window
            client.events()
        stream = client.ask("/upload", "POST", ("content-length", str(size)))
        sent = 0
        while sent < size:
            while client.h2.local_flow_control_window(stream) < reserve + FRAME:
                client.flush()
                updates.count(client.events())
            client.h2.send_data(stream, piece, end_stream=sent + FRAME == size)
            sent += FRAME
            client.flush()
        assert client.body(stream) == b"%d" % size
    assert size // WINDOW - 1 <= updates.stream <= 4 * size // WINDOW
    assert updates.connection <= 4 * size // WINDOW


def test_small_frames_do_not_cost_a_credit_each(service: Flow) -> None:
    size, frame = 2 * MIB, 1 << 10
    updates = Updates()
    with Client(service) as client:
        stream = client.ask("/upload", "POST")
        sent = 0
        while sent < size:
            while client.h2.local_flow_control_window(stream) < frame:
                client.flush()
                updates.count(client.events())
            client.h2.send_data(stream, bytes(frame), end_stream=sent + frame == size)
            sent += frame
        client.flush()
        assert client.body(stream) == b"%d" % size
    assert updates.stream <= 4 * size // WINDOW
    assert updates.connection <= 4 * size // WINDOW + 1  # and that of the preface


# Turns


def frames_of(client: Client, streams: list[int]) -> list[int]:
    """The stream of each DATA frame with content that comes, until all of these answers are whole."""
    order: list[int] = []
    open_streams = set(streams)
    while open_streams:
        for event in client.events():
            if isinstance(event, h2.events.DataReceived):
                if event.data:
                    order.append(event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                open_streams.discard(event.stream_id)
    return order


def test_streams_take_turns(service: Flow) -> None:
    with Client(service, MOST_WINDOW, MOST_WINDOW) as client:
        streams = [client.ask("/medium") for _ in range(8)]
        client.flush()
        order = frames_of(client, streams)
    assert len(order) == 8 * 512
    # From the first frame of the last one to begin to the end of the first one to end, all have something to send.
    start = max(order.index(stream) for stream in streams)
    end = min(last(order, stream) for stream in streams)
    assert start < 64
    assert end > 7 * 512
    # A stream whose application has not refilled it in time may miss a turn, but not two.
    assert all(set(order[at : at + 24]) == set(streams) for at in range(start, end - 24))


def test_what_is_urgent_goes_first(service: Flow) -> None:
    """RFC 9218 section 4.1, as far as there is content to choose from: an application is 64 KiB ahead."""
    with Client(service, 0, MOST_WINDOW) as client:
        streams = [client.ask("/medium", "GET", ("priority", f"u={urgency}, i")) for urgency in (5, 3, 1)]
        client.flush()
        assert eventually(lambda: account(service)["sending"] == 3)  # all have begun before any may go
        client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: MOST_WINDOW})
        client.flush()
        order = frames_of(client, streams)
    slow, usual, urgent = streams
    assert set(order[:4]) == {urgent}
    assert set(order[8:12]) == {usual}
    assert last(order, urgent) < last(order, usual) < last(order, slow)


def last(order: list[int], stream: int) -> int:
    return len(order) - 1 - order[::-1].index(stream)
