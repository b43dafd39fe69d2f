"""What the kernel knows of a connection, and its transport does not. Where there is no socket, nothing is known."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Final

# struct tcp_info of linux/tcp.h: where in it tcpi_bytes_acked is, and the bytes up to its end.
TCPI_BYTES_ACKED: Final = 120
TCP_INFO_SIZE: Final = 128
# struct linger: on, for no time at all.
NO_LINGER: Final = struct.pack("ii", 1, 0)


def reset_at_close(sock: socket.socket | None) -> None:
    """Let the socket's end be a TCP reset."""
    if sock is not None and sock.family != socket.AF_UNIX:
        with suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


def has_hung_up(sock: socket.socket | None) -> bool:
    """Whether the peer has reset the connection, or the socket is broken."""
    if sock is None or sock.fileno() < 0:
        return False
    news = select.poll()
    news.register(sock.fileno(), 0)  # errors and hang-ups are told without being asked for
    return bool(news.poll(0))


def unread(sock: socket.socket | None, passed: int) -> tuple[int, int]:
    """How many bytes the peer has not acknowledged, and a number that grows with those that it has.

    TLS transports have more than ``get_write_buffer_size()`` says, but only while the kernel takes no more.
    ``passed``, bytes that the transport has passed on, is what the second number is where the kernel tells none.
    """
    if sock is None or sock.fileno() < 0:
        return 0, passed
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # not on this platform
        return 0, passed
    waiting = int.from_bytes(answer, sys.byteorder)
    if sock.family == socket.AF_UNIX or sys.platform != "linux":
        return waiting, passed - waiting
    information = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    return waiting, int.from_bytes(information[TCPI_BYTES_ACKED:TCP_INFO_SIZE], sys.byteorder)
