"""TLS contexts for listeners: certificates, keys and client authorities, and in words what is wrong with their files.

Whoever serves makes its own context, from the files as they are then; the master makes one too, before it forks and
before it takes a reload, to know whether the workers will be able to.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from asgiri.config.schema import Tls
from asgiri.errors import ConfigError, Problem
from asgiri.x509 import PEM, Certificate, in_pem

# A real file of this kind is a few KiB; the limit keeps a wrong path (a disk image) from being read whole.
FILE_MOST = 1 << 20

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

# Of TLS 1.2, what HTTP/2 may use (RFC 9113 section 9.2.2): ephemeral keys and authenticated encryption.
HTTP2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

# RFC 7468 sections 10, 11 and 13, and the older labels that OpenSSL takes too.
_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )?PRIVATE KEY-----")

_MISMATCH = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
_TOO_WEAK = {
    "EE_KEY_TOO_SMALL": "its key is too small",
    "CA_KEY_TOO_SMALL": "the key of an authority in its chain is too small",
    "CA_MD_TOO_WEAK": "its signature algorithm is too weak",
}


def server_context(tls: Tls, http: Sequence[str] = ("http/1.1",), key: str = "tls") -> ssl.SSLContext:
    """The context of a listener with this ``tls`` section, which speaks ``http`` (ALPN names, the preferred one first).

    Beyond the section: the server's order of ciphers, no compression (RFC 9325 section 3.3) and no renegotiation
    (section 3.5), as RFC 9113 section 9.2 wants it too. Client certificates are checked the same on every Python:
    without ``VERIFY_X509_STRICT``, which would refuse many a private authority. Raises ConfigError, whose keys begin
    with ``key``.
    """
    return server_contexts(tls, http, key)[0]


def server_contexts(
    tls: Tls, http: Sequence[str] = ("http/1.1",), key: str = "tls"
) -> tuple[ssl.SSLContext, dict[ssl.SSLContext, str]]:
    """What :func:`server_context` says, and the certificate in PEM of each context that a client may come to."""
    context = _context(tls, tls.certfile, tls.keyfile, http, key, "")
    certificates = {context: certificate(tls)}
    named = {}
    for name, pair in tls.sni.items():
        own = _context(tls, pair.certfile, pair.keyfile, http, key, f".sni.{name}")
        named[name.lower()] = own
        certificates[own] = first_certificate(pair.certfile, f"{key}.sni.{name}.certfile")
    if named:
        context.sni_callback = by_name(named)
    return context, certificates


def by_name(named: dict[str, ssl.SSLContext]) -> Callable[[Any, str | None, ssl.SSLContext], None]:
    """The callback that gives a handshake the context of the name that the client asked for (RFC 6066 section 3).

    The name itself goes before ``*.`` and what is behind its first label (RFC 9525 section 6.3); names are in lower
    case. A client that names no server, or another one, stays with the context it has.
    """

    def choose(tls: Any, asked: str | None, context: ssl.SSLContext) -> None:
        del context
        if asked is not None:
            name = asked.lower()
            found = named.get(name) or named.get(f"*.{name.partition('.')[2]}")
            if found is not None:
                tls.context = found

    return choose


def weak_ciphers(context: ssl.SSLContext) -> frozenset[str]:
    """OpenSSL's names of the context's ciphers that HTTP/2 may not use (RFC 9113 section 9.2.2 and appendix A)."""
    return frozenset(str(suite["name"]) for suite in context.get_ciphers() if not _is_for_http2(suite))


def _is_for_http2(suite: Any) -> bool:
    """Appendix A lists all that TLS 1.2 had, but those with ephemeral keys and authenticated encryption."""
    ephemeral: bool = suite["kea"].startswith(("kx-ecdhe", "kx-dhe"))
    return suite["protocol"] == "TLSv1.3" or (ephemeral and suite["aead"])


def _context(tls: Tls, certfile: str, keyfile: str | None, http: Sequence[str], key: str, place: str) -> ssl.SSLContext:
    """A context for one pair of files, which the config names at ``key`` and ``place``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    _set_ciphers(context, tls, "h2" in http, f"{key}.ciphers")
    _set_alpn(context, http, key)
    _load_pair(context, certfile, keyfile, tls.password_file, key, place)
    _ask_clients(context, tls, key)
    return context


def _set_alpn(context: ssl.SSLContext, http: Sequence[str], key: str) -> None:
    """Offer what is spoken, the preferred one first (RFC 7301). Without it, HTTP/2 alone cannot be agreed on."""
    if ssl.HAS_ALPN:
        context.set_alpn_protocols(list(http))
    elif list(http) == ["h2"]:
        section = key.rpartition("tls")[0]
        what = f"with {key}, HTTP/2 is agreed on by ALPN (RFC 9113 section 3.2), which {ssl.OPENSSL_VERSION} has not"
        raise _refusal(f"{section}http", f"{what}: add http/1.1, or leave tls out")


def _set_ciphers(context: ssl.SSLContext, tls: Tls, http2: bool, key: str) -> None:
    """The ciphers of TLS 1.2, such that a client that speaks HTTP/2 gets one that HTTP/2 may use."""
    if tls.ciphers is None:
        if http2:
            context.set_ciphers(HTTP2_CIPHERS)
        return
    try:
        context.set_ciphers(tls.ciphers)
    except ssl.SSLError:
        raise _refusal(key, f'OpenSSL knows none of "{tls.ciphers}"') from None
    if not http2 or tls.min_version == "1.3":
        return
    suites = [suite for suite in context.get_ciphers() if suite["protocol"] != "TLSv1.3"]
    good = [str(suite["name"]) for suite in suites if _is_for_http2(suite)]
    if not good:
        raise _refusal(
            key, "HTTP/2 may use none of these (RFC 9113 appendix A): add one with ECDHE and GCM or CHACHA20"
        )
    # Every client of HTTP/2 has good ones (section 9.2.2); the others are left to clients that have nothing else.
    context.set_ciphers(":".join(good + [str(suite["name"]) for suite in suites if not _is_for_http2(suite)]))


def certificate(tls: Tls) -> str:
    """The server's own certificate, in PEM: the first one of ``certfile``. For a section that made a context."""
    return first_certificate(tls.certfile, "tls.certfile")


def first_certificate(certfile: str, key: str) -> str:
    """The first certificate of a file that ``key`` names, in PEM; empty when there is none."""
    found = PEM.search(_read(certfile, key))
    return found[0].decode("ascii", "replace") + "\n" if found else ""


def certificates(path: str, key: str) -> list[Certificate]:
    """What the certificates in a file say of themselves, in its order. ConfigError when one is not understood."""
    try:
        return list(in_pem(_read(path, key)))
    except ValueError as error:
        raise _refusal(key, f'a certificate in "{path}" is not understood: {error}') from None


def _load_pair(
    context: ssl.SSLContext, certfile: str, keyfile: str | None, password_file: str | None, key: str, place: str
) -> None:
    """Give the context its certificate and private key."""
    pair_key = key + place
    if not PEM.search(data := _read(certfile, f"{pair_key}.certfile")):
        raise _refusal(f"{pair_key}.certfile", f'"{certfile}" has no certificate in it{_form(data)}')
    keyfile, keyfile_key = (keyfile, f"{pair_key}.keyfile") if keyfile else (certfile, f"{pair_key}.certfile")
    if not _KEY.search(data := _read(keyfile, keyfile_key)):
        raise _refusal(keyfile_key, f'"{keyfile}" has no private key in it{_form(data)}')
    password_key = f"{key}.password_file"
    secret = b""
    if password_file is not None:
        secret = _read(password_file, password_key).partition(b"\n")[0].rstrip(b"\r")
    asked = False

    def password() -> bytes:  # always given: without one, OpenSSL would ask at the terminal
        nonlocal asked
        asked = True
        return secret

    try:
        context.load_cert_chain(certfile, keyfile, password)
    except ssl.SSLError as error:
        if asked and password_file is None:
            raise _refusal(keyfile_key, f'the key in "{keyfile}" is encrypted; name a password_file') from None
        if asked:
            raise _refusal(
                password_key, f'the password in "{password_file}" does not open the key in "{keyfile}"'
            ) from None
        raise _unusable(error, certfile, keyfile, pair_key, keyfile_key) from None
    except ValueError as error:
        raise _refusal(password_key, f'"{password_file}": {error}') from None


def _unusable(error: ssl.SSLError, certfile: str, keyfile: str, key: str, keyfile_key: str) -> ConfigError:
    """Whose fault it is that a certificate and a key that is not encrypted make no pair."""
    reason = getattr(error, "reason", None) or ""
    if reason in _MISMATCH and _begins_with_authority(certfile):
        what = f'"{certfile}" begins with the certificate of an authority: put the server\'s own first'
        return _refusal(f"{key}.certfile", what)
    if reason in _MISMATCH:
        return _refusal(keyfile_key, f'the key in "{keyfile}" does not belong to the certificate in "{certfile}"')
    if reason in _TOO_WEAK:
        return _refusal(f"{key}.certfile", f'OpenSSL refuses "{certfile}": {_TOO_WEAK[reason]}')
    if not _is_sound(certfile):
        return _refusal(f"{key}.certfile", f'a certificate in "{certfile}" is damaged')
    what = f": {reason.lower().replace('_', ' ')}" if reason else ""
    return _refusal(keyfile_key, f'the private key in "{keyfile}" cannot be read{what}')


def _begins_with_authority(certfile: str) -> bool:
    """Whether the first certificate of a file is of an issuer of others in it: OpenSSL takes it for the server's."""
    try:
        first, *others = certificates(certfile, "")
    except (ConfigError, ValueError):  # ValueError: there is none
        return False
    return any(first.subject == other.issuer for other in others)


def _ask_clients(context: ssl.SSLContext, tls: Tls, key: str) -> None:
    """Let the context ask clients for certificates, if they are to show any."""
    if tls.client_certs == "none":
        return
    if tls.client_ca is None:
        raise _refusal(f"{key}.client_ca", f"client_certs is {tls.client_certs}, and needs the authorities' file")
    data = _read(tls.client_ca, f"{key}.client_ca")
    if not PEM.search(data):
        raise _refusal(f"{key}.client_ca", f'"{tls.client_ca}" has no certificate in it{_form(data)}')
    try:
        context.load_verify_locations(tls.client_ca)
    except ssl.SSLError:
        raise _refusal(f"{key}.client_ca", f'a certificate in "{tls.client_ca}" is damaged') from None
    context.verify_mode = _VERIFY[tls.client_certs]


def _is_sound(certfile: str) -> bool:
    """Whether OpenSSL can read all the certificates of a file."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certfile)
    except ssl.SSLError:
        return False
    return True


def _read(path: str | os.PathLike[str], key: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MOST + 1)
    except OSError as error:
        raise _refusal(key, f'cannot read "{os.fspath(path)}": {error.strerror}') from None
    if len(data) > FILE_MOST:
        raise _refusal(key, f'"{os.fspath(path)}" is larger than 1MiB')
    return data


def _form(data: bytes) -> str:
    """What to say of the form of a file that has not in it what it should."""
    if not data:
        return "; it is empty"
    return "; it looks like DER, and PEM is expected" if data[:1] == b"\x30" else "; PEM is expected"


def _refusal(key: str, what: str) -> ConfigError:
    return ConfigError([Problem("", key, what)])
