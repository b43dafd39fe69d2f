"""Our own side of an HTTP/2 connection: one request, so that a server's answer is seen to be right, and HTTP/2."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from tests.bench.client import TIMEOUT, Answer, Request, any_certificate, identify

STREAM = 1
WINDOW = 1 << 20  # bytes that the server may send before it hears from us: more than any case's answer


class Http2Error(OSError):
    """The server does not speak HTTP/2, or not as RFC 9113 has it."""


def fetch(port: int, request: Request, certificate: Path | None = None) -> Answer:
    """One request on a connection of its own. HTTP/2 by ALPN with a certificate, by prior knowledge without.

    Raises OSError.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as plain:
        if certificate is None:
            return converse(plain, request)
        context = any_certificate("h2")
        with context.wrap_socket(plain, server_hostname="localhost") as secure:
            return converse(secure, request, identify(secure, certificate), "https")


def converse(sock: socket.socket, request: Request, tls: str = "", scheme: str = "http") -> Answer:
    """The preface, the request, and all that comes until its stream is over."""
    if isinstance(sock, ssl.SSLSocket) and sock.selected_alpn_protocol() != "h2":
        raise Http2Error("did not choose h2 by ALPN")
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    initial = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW, h2.settings.SettingCodes.ENABLE_PUSH: 0}
    connection.local_settings = h2.settings.Settings(initial_values=initial)
    connection.initiate_connection()
    connection.increment_flow_control_window(WINDOW)
    fields = [(":method", request.method), (":scheme", scheme), (":authority", "localhost"), (":path", request.path)]
    fields += [(name.lower(), value) for name, value in request.headers.items()]
    connection.send_headers(STREAM, fields, end_stream=request.body is None)
    if request.body is not None:
        connection.send_data(STREAM, request.body, end_stream=True)  # no case posts more than a window
    sock.sendall(connection.data_to_send())
    return listen(sock, connection, tls)


def listen(sock: socket.socket, connection: h2.connection.H2Connection, tls: str) -> Answer:
    """The answer on the one stream; ``closes`` when the server said with it that the connection ends."""
    status, body, closes = 0, b"", False
    while True:
        data = sock.recv(1 << 16)
        if not data:
            raise Http2Error("closed the connection before the answer was whole")
        try:
            events = connection.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            raise Http2Error(f"{type(error).__name__}: {error}") from error
        for event in events:
            match event:
                case h2.events.ResponseReceived(headers=headers):
                    status = int(dict(headers or [])[b":status"])
                case h2.events.DataReceived(data=piece):
                    body += piece or b""
                case h2.events.ConnectionTerminated():
                    closes = True
                case h2.events.StreamReset(error_code=code):
                    raise Http2Error(f"reset the stream with {code!r}")
                case h2.events.StreamEnded():
                    return Answer(status, body, closes, tls)
        sock.sendall(connection.data_to_send())
