"""Bytes of a file onto a connection: by the kernel where the socket takes them as they are, else by reading them.

sendfile(2) goes around the transport, and uvloop has no verb for it. So the transport's own buffer is emptied first,
and while the file is on its way nobody writes to the transport: the session refuses other messages, and the deadlines
that could strike in the middle of an answer cut the connection and write nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgiri.proto.connection import Connection

# Bytes that one call of sendfile(2) may pass on before others have their turn.
AT_ONCE = 256 << 10
# Bytes that are read into memory at once where the kernel cannot send the file.
PIECE = 128 << 10

# What sendfile(2) says of a file or a socket that it cannot do; reading may still be possible.
NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW)
# Errors that are the socket's, beside those of ConnectionError; every other one is taken for the file's.
PEER_GONE = (errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)


async def send_file(connection: Connection, fd: int, offset: int, count: int) -> None:
    """Send ``count`` bytes of the open file ``fd`` from ``offset`` on, at the pace of the peer.

    Returns early when the connection is lost. Raises OSError when the file cannot be read that far. The descriptor
    is the caller's, and so is the file's position.
    """
    sent = 0
    out = plain_socket(connection.transport)
    if out is not None:
        try:
            await connection.flushed()
            sent = await send_by_kernel(connection, out, fd, offset, count)
        finally:
            os.close(out)
    await send_by_reading(connection, fd, offset + sent, count - sent)


def plain_socket(transport: asyncio.Transport) -> int | None:
    """A duplicate of the descriptor of a transport's socket; None where TLS or no socket is in between.

    A duplicate, because loops let nobody watch a transport's own descriptor, and because its number cannot become
    another connection's as long as we hold it.
    """
    if transport.get_extra_info("sslcontext") is not None or transport.get_extra_info("ssl_object") is not None:
        return None
    sock = transport.get_extra_info("socket")
    if sock is None:
        return None
    try:
        return os.dup(sock.fileno())
    except OSError:  # closed, or no descriptor is left: one more of them is only faster
        return None


async def send_by_kernel(connection: Connection, out: int, fd: int, offset: int, count: int) -> int:
    """How many bytes sendfile(2) has sent: less than ``count`` when the connection is lost, or it can send no more."""
    sent = 0
    while sent < count and not connection.transport.is_closing():
        try:
            passed = os.sendfile(out, fd, offset + sent, min(AT_ONCE, count - sent))
        except BlockingIOError:
            await connection.writable(out)
            continue
        except OSError as error:
            if error.errno in NO_SENDFILE:
                return sent
            if isinstance(error, ConnectionError) or error.errno in PEER_GONE:
                connection.abort()  # the transport may not be reading, and so not hear of it
                return sent
            raise
        if not passed:
            return sent  # the file is shorter than it was, as reading on will tell
        sent += passed
        connection.wrote_past_transport(passed)
        if sent < count:
            await asyncio.sleep(0)
    return sent


async def send_by_reading(connection: Connection, fd: int, offset: int, count: int) -> None:
    """Read pieces in a thread, for a disk may be slow, and give them to the transport."""
    loop = connection.shared.loop
    while count and not connection.transport.is_closing():
        data = await loop.run_in_executor(None, read_piece, fd, min(PIECE, count), offset)
        if connection.transport.is_closing():
            return
        connection.write(data)
        offset += len(data)
        count -= len(data)
        await connection.drained()


def read_piece(fd: int, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes of the file from ``offset`` on, one at least; to be called in a thread.

    Raises OSError when there is none.
    """
    data = os.pread(fd, count, offset)
    if not data:
        raise OSError(errno.EIO, f"the file ends at byte {offset} now: it was truncated while it was being sent")
    return data
