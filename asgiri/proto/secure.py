"""TLS under a connection: who does it, and what the application is told of it (ASGI TLS extension 0.2)."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from socket import socket
from typing import Any, Protocol

# The loops want a limit for the closing of a TLS connection, and cut with it a slow reader's answer short. This is
# none: each sweep looks after a connection that does not end (``Connection.write_overdue``).
SHUTDOWN_SECONDS = 24 * 3600.0
# The loops want a limit for the handshake too. This is none.
NO_TIMEOUT = 10 * 365 * 24 * 3600.0

# What aiofastnet may hold of a connection's ciphertext on either side: four TLS records (RFC 8446 section 5.1) and
# what frames them. By default it keeps 2 * 257 KiB a connection.
BUFFER_SIZE = 4 * (16384 + 64)

# RFC 5246 section 6.2.1, RFC 8446 section 4.1.2: the number that stands for the version.
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

# OpenSSL's names of the attribute types that RFC 4514 section 3 has a short name for.
_SHORT_NAMES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}

MakeConnection = Callable[[], asyncio.Protocol]


class Connect(Protocol):
    """Makes a transport of an accepted socket, and its protocol; OSError when the peer did not play along."""

    def __call__(
        self, make: MakeConnection, sock: socket, /
    ) -> Coroutine[Any, Any, tuple[asyncio.BaseTransport, asyncio.Protocol]]: ...


@functools.cache
def fast_connect() -> Callable[..., Coroutine[Any, Any, Any]] | None:
    """What aiofastnet, the extra "fast", makes TLS transports with; None without it.

    Nor where Python has OpenSSL linked statically, for then it has no fast way. Imported for TLS alone: it is large.
    """
    try:
        import aiofastnet
    except ImportError:
        return None
    return aiofastnet.connect_accepted_socket if aiofastnet.OPENSSL_DYN_LIBS is not None else None


@dataclass(frozen=True, slots=True)
class Secure:
    """What the TLS connections of one listener have in common.

    ``certificates`` are the server's own in PEM, by the contexts that show them: ``context``, and those which its
    callback may choose by the server's name. ``handshake_timeout`` is in seconds; 0 is none. ``weak`` are the names of
    ciphers that HTTP/2 may not use. ``made`` is what asgiri.tls knows of them, for those that come after.
    """

    context: ssl.SSLContext
    certificates: dict[ssl.SSLContext, str]
    handshake_timeout: float
    weak: frozenset[str] = frozenset()
    made: Mapping[str, Any] | None = None
    suites: dict[str, int] = field(init=False)  # IANA's numbers by OpenSSL's names

    def __post_init__(self) -> None:
        # OpenSSL puts the number of its own protocol family before IANA's 16 bits.
        suites = {suite["name"]: suite["id"] & 0xFFFF for suite in self.context.get_ciphers()}
        object.__setattr__(self, "suites", suites)

    def connect(self, loop: asyncio.AbstractEventLoop) -> Connect:
        """What makes TLS transports on this loop: aiofastnet where there is one, else the loop itself."""
        options: dict[str, Any] = {
            "ssl": self.context,
            "ssl_handshake_timeout": self.handshake_timeout or NO_TIMEOUT,
            "ssl_shutdown_timeout": SHUTDOWN_SECONDS,
        }
        # Not for client certificates: to read one, aiofastnet writes it to a temporary file, while the loop waits. Nor
        # for a choice by name: Python's callback finds no SSLObject behind aiofastnet's handshake, and crashes.
        fast = fast_connect()
        if fast is None or self.context.verify_mode is not ssl.CERT_NONE or self.context.sni_callback:
            return functools.partial(loop.connect_accepted_socket, **options)
        options |= {"ssl_incoming_bio_size": BUFFER_SIZE, "ssl_outgoing_bio_size": BUFFER_SIZE}
        return functools.partial(fast, LoopForAiofastnet(loop), **options)

    def extension(self, tls: Any) -> dict[str, Any]:
        """The scope's ``tls`` extension; ``tls`` is the transport's ``ssl_object``."""
        chain = client_chain(tls) if self.context.verify_mode is not ssl.CERT_NONE else []
        cipher = tls.cipher()
        chosen = tls.context if len(self.certificates) > 1 else self.context
        return {
            "server_cert": self.certificates[chosen],
            "client_cert_chain": [ssl.DER_cert_to_PEM_cert(one) for one in chain],
            "client_cert_name": distinguished_name(tls.getpeercert()["subject"]) if chain else None,
            "client_cert_error": None,  # one that does not pass ends the handshake
            "tls_version": _VERSIONS.get(tls.version()),
            "cipher_suite": self.suites.get(cipher[0]) if cipher else None,
        }

    def is_weak(self, tls: Any) -> bool:
        """Whether the transport's ``ssl_object`` has agreed on a cipher that HTTP/2 may not use."""
        cipher = tls.cipher()
        return cipher is None or cipher[0] in self.weak


class LoopForAiofastnet:
    """The loop as aiofastnet is to see it.

    A peer that leaves in the middle of its handshake is no news; aiofastnet 1.2 tells the loop's exception handler of
    it all the same, with an exception that is a class, which the standard handler fails to print.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = self.__dict__[name] = getattr(self._loop, name)
        return found

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, type) and issubclass(error, OSError)):
            self._loop.call_exception_handler(context)


def client_chain(tls: Any) -> list[bytes]:
    """The certificates that the client has shown, in DER, its own first; none when it has shown none.

    Its own alone before Python 3.13, which is the first to tell the others, and in a session that is resumed.
    """
    own = tls.getpeercert(binary_form=True)
    if not own:
        return []
    shown: list[bytes] = tls.get_unverified_chain() if hasattr(tls, "get_unverified_chain") else []
    return shown or [own]


def distinguished_name(subject: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """The name of a certificate's subject, as ``getpeercert`` has it, as a text (RFC 4514): the last part first."""
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(kind, kind)}={escape(value)}" for kind, value in part)
        for part in reversed(subject)
    )


def escape(value: str) -> str:
    """A value of a distinguished name with its special characters escaped (RFC 4514 section 2.4)."""
    escaped = "".join(f"\\{char}" if char in '"+,;<>\\' else "\\00" if char == "\0" else char for char in value)
    if escaped.startswith((" ", "#")):
        escaped = f"\\{escaped}"
    if value.endswith(" ") and len(value) > 1:
        escaped = f"{escaped[:-1]}\\ "
    return escaped
