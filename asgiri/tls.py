"""TLS contexts for listeners: certificates, keys and client authorities, and in words what is wrong with their files.

Whoever serves makes its own contexts; the master makes them too, before it forks, before it takes a reload and before
it gives the workers what has changed, to know whether they will be able to. A worker has its files' contents from the
master (docs/design/tls.md); without one they are read.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from asgiri.config.schema import Tls
from asgiri.errors import ConfigError, Problem
from asgiri.tls_files import CLIENT_CA, Contents, Material, Part, parts_of, paths_to, read_file, read_part
from asgiri.x509 import PEM, Certificate, in_pem

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


class Made(Struct, frozen=True, eq=False):
    """A context, what it was made of, and the certificate that it shows, in PEM. ``section`` is the config's."""

    context: ssl.SSLContext
    section: Tls
    contents: Contents
    authorities: Contents
    certificate: str


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
    made = make_contexts(tls, http, key)
    return made[""].context, {one.context: one.certificate for one in made.values()}


def make_contexts(
    tls: Tls,
    http: Sequence[str],
    key: str,
    material: Material | None = None,
    before: Mapping[str, Made] | None = None,
) -> dict[str, Made]:
    """The contexts of a section by their places; that at "" is the listener's, which comes to the others by name.

    ``material`` is what is in the files; None: read them. Those ``before`` are taken again where nothing of theirs has
    changed; the listener's, where nothing has. Raises ConfigError, whose keys begin with ``key``.
    """
    authorities: Contents = {}
    made: dict[str, Made] = {}
    by_place = {part.place: part for part in parts_of(tls)}
    if (part := by_place.pop(CLIENT_CA, None)) is not None:
        authorities = read_part(part, key) if material is None else material[CLIENT_CA]
    for place, part in by_place.items():
        contents = read_part(part, key) if material is None else material[place]
        known = None if before is None else before.get(place)
        if known is None or (known.section, known.contents, known.authorities) != (tls, contents, authorities):
            known = make_context(tls, http, key, part, contents, authorities)
        made[place] = known
    if made == before:
        return made
    if before is not None and made[""] is before.get(""):
        # With a callback of its own: a handshake that is under way finds the others as they were.
        made[""] = make_context(tls, http, key, by_place[""], made[""].contents, authorities)
    if tls.sni:
        made[""].context.sni_callback = by_name({name.lower(): made[f".sni.{name}"].context for name in tls.sni})
    return made


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


def make_context(
    tls: Tls, http: Sequence[str], key: str, part: Part, contents: Contents, authorities: Contents
) -> Made:
    """A context for one pair of the section, by what is in its files and in that of the clients' authorities.

    Raises ConfigError, whose keys begin with ``key``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    _set_ciphers(context, tls, "h2" in http, f"{key}.ciphers")
    _set_alpn(context, http, key)
    pair = _Pair(tls, key, part, contents)
    try:
        pair.load(context)
        _ask_clients(context, tls, authorities, key)
    except OSError as error:  # no descriptor, no room in memory
        raise _refusal(key, f"OpenSSL cannot be given its files: {error.strerror}") from None
    return Made(context, tls, contents, authorities, _first_certificate(pair.certificates))


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
    return _first_certificate(read_file(certfile, key))


def _first_certificate(data: bytes) -> str:
    found = PEM.search(data)
    return found[0].decode("ascii", "replace") + "\n" if found else ""


def certificates(path: str, key: str) -> list[Certificate]:
    """What the certificates in a file say of themselves, in its order. ConfigError when one is not understood."""
    try:
        return list(in_pem(read_file(path, key)))
    except ValueError as error:
        raise _refusal(key, f'a certificate in "{path}" is not understood: {error}') from None


class _Pair:
    """A certificate and its private key, and what is wrong with them. ``key`` is that of their section."""

    def __init__(self, tls: Tls, key: str, part: Part, contents: Contents) -> None:
        # The certificate's file is the first; without a keyfile, the key is in it too.
        self._certfile = part.files[0][1]
        keyfile = tls.sni[part.place.removeprefix(".sni.")].keyfile if part.place else tls.keyfile
        self._keyfile = keyfile or self._certfile
        self._password_file = tls.password_file
        self._certfile_key = f"{key}{part.place}.certfile"
        self._keyfile_key = f"{key}{part.place}.keyfile" if keyfile else self._certfile_key
        self._password_key = f"{key}.password_file"
        self.certificates = contents[self._certfile]
        self._private_key = contents[self._keyfile]
        self._password = b"" if tls.password_file is None else contents[tls.password_file]

    def load(self, context: ssl.SSLContext) -> None:
        """Give them to the context. ConfigError, or OSError when there is no way to."""
        certfile, keyfile, password_file = self._certfile, self._keyfile, self._password_file
        if not PEM.search(self.certificates):
            what = f'"{certfile}" has no certificate in it{_form(self.certificates)}'
            raise _refusal(self._certfile_key, what)
        if not _KEY.search(self._private_key):
            raise _refusal(self._keyfile_key, f'"{keyfile}" has no private key in it{_form(self._private_key)}')
        secret = self._password.partition(b"\n")[0].rstrip(b"\r")
        asked = False

        def password() -> bytes:  # always given: without one, OpenSSL would ask at the terminal
            nonlocal asked
            asked = True
            return secret

        try:
            with paths_to(self.certificates, self._private_key) as (chain, private_key):
                context.load_cert_chain(chain, private_key, password)
        except ssl.SSLError as error:
            if asked and password_file is None:
                what = f'the key in "{keyfile}" is encrypted; name a password_file'
                raise _refusal(self._keyfile_key, what) from None
            if asked:
                what = f'the password in "{password_file}" does not open the key in "{keyfile}"'
                raise _refusal(self._password_key, what) from None
            raise self._unusable(error) from None
        except ValueError as error:
            raise _refusal(self._password_key, f'"{password_file}": {error}') from None

    def _unusable(self, error: ssl.SSLError) -> ConfigError:
        """Whose fault it is that a certificate and a key that is not encrypted make no pair."""
        certfile, keyfile = self._certfile, self._keyfile
        reason = getattr(error, "reason", None) or ""
        if reason in _MISMATCH and _begins_with_authority(self.certificates):
            what = f'"{certfile}" begins with the certificate of an authority: put the server\'s own first'
            return _refusal(self._certfile_key, what)
        if reason in _MISMATCH:
            what = f'the key in "{keyfile}" does not belong to the certificate in "{certfile}"'
            return _refusal(self._keyfile_key, what)
        if reason in _TOO_WEAK:
            return _refusal(self._certfile_key, f'OpenSSL refuses "{certfile}": {_TOO_WEAK[reason]}')
        if not _is_sound(self.certificates):
            return _refusal(self._certfile_key, f'a certificate in "{certfile}" is damaged')
        what = f": {reason.lower().replace('_', ' ')}" if reason else ""
        return _refusal(self._keyfile_key, f'the private key in "{keyfile}" cannot be read{what}')


def _begins_with_authority(data: bytes) -> bool:
    """Whether the first certificate is of an issuer of others with it: OpenSSL takes it for the server's."""
    try:
        first, *others = in_pem(data)
    except ValueError:  # there is none, or one that is not understood
        return False
    return any(first.subject == other.issuer for other in others)


def _ask_clients(context: ssl.SSLContext, tls: Tls, authorities: Contents, key: str) -> None:
    """Let the context ask clients for certificates, if they are to show any."""
    if tls.client_certs == "none":
        return
    if tls.client_ca is None:
        raise _refusal(f"{key}.client_ca", f"client_certs is {tls.client_certs}, and needs the authorities' file")
    data = authorities[tls.client_ca]
    if not PEM.search(data):
        raise _refusal(f"{key}.client_ca", f'"{tls.client_ca}" has no certificate in it{_form(data)}')
    try:
        with paths_to(data) as (path,):
            context.load_verify_locations(path)
    except ssl.SSLError:
        raise _refusal(f"{key}.client_ca", f'a certificate in "{tls.client_ca}" is damaged') from None
    context.verify_mode = _VERIFY[tls.client_certs]


def _is_sound(data: bytes) -> bool:
    """Whether OpenSSL can read all the certificates."""
    try:
        with paths_to(data) as (path,):
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError:
        return False
    return True


def _form(data: bytes) -> str:
    """What to say of the form of a file that has not in it what it should."""
    if not data:
        return "; it is empty"
    return "; it looks like DER, and PEM is expected" if data[:1] == b"\x30" else "; PEM is expected"


def _refusal(key: str, what: str) -> ConfigError:
    return ConfigError([Problem("", key, what)])
