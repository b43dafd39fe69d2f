"""TLS contexts for listeners: certificate, key and client authorities, and in words what is wrong with their files.

Whoever serves makes its own context, from the files as they are then; the master makes one too, before it forks and
before it takes a reload, to know whether the workers will be able to.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence

import msgspec

from asgiri.config.schema import Config, Tls
from asgiri.errors import ConfigError, Problem

# A real file of this kind is a few KiB; the limit keeps a wrong path (a disk image) from being read whole.
FILE_MOST = 1 << 20

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

# RFC 7468 sections 5 and 10 to 13, and the older labels that OpenSSL takes too.
_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)
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
    (section 3.5). Client certificates are checked the same on every Python: without ``VERIFY_X509_STRICT``, which
    would refuse many a private authority. Raises ConfigError, whose keys begin with ``key``.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.ciphers is not None:
        try:
            context.set_ciphers(tls.ciphers)
        except ssl.SSLError:
            raise _refusal(f"{key}.ciphers", f'OpenSSL knows none of "{tls.ciphers}"') from None
    context.set_alpn_protocols(list(http))
    _load_pair(context, tls, key)
    _ask_clients(context, tls, key)
    return context


def certificate(tls: Tls) -> str:
    """The server's own certificate, in PEM: the first one of ``certfile``. For a section that made a context."""
    found = _CERTIFICATE.search(_read(tls.certfile, "tls.certfile"))
    return found[0].decode("ascii", "replace") + "\n" if found else ""


def with_certificate(config: Config, tls: Tls) -> Config:
    """The config with TLS on every listener that has none: what ``--certfile`` and ``--keyfile`` mean."""
    listen = tuple(msgspec.structs.replace(one, tls=tls) if one.tls is None else one for one in config.listen)
    return msgspec.structs.replace(config, listen=listen)


def _load_pair(context: ssl.SSLContext, tls: Tls, key: str) -> None:
    """Give the context its certificate and private key."""
    if not _CERTIFICATE.search(data := _read(tls.certfile, f"{key}.certfile")):
        raise _refusal(f"{key}.certfile", f'"{tls.certfile}" has no certificate in it{_form(data)}')
    keyfile, keyfile_key = (tls.keyfile, f"{key}.keyfile") if tls.keyfile else (tls.certfile, f"{key}.certfile")
    if not _KEY.search(data := _read(keyfile, keyfile_key)):
        raise _refusal(keyfile_key, f'"{keyfile}" has no private key in it{_form(data)}')
    secret = b""
    if tls.password_file is not None:
        secret = _read(tls.password_file, f"{key}.password_file").partition(b"\n")[0].rstrip(b"\r")
    asked = False

    def password() -> bytes:  # always given: without one, OpenSSL would ask at the terminal
        nonlocal asked
        asked = True
        return secret

    try:
        context.load_cert_chain(tls.certfile, keyfile, password)
    except ssl.SSLError as error:
        if asked and tls.password_file is None:
            raise _refusal(keyfile_key, f'the key in "{keyfile}" is encrypted; name a password_file') from None
        if asked:
            raise _refusal(
                f"{key}.password_file", f'the password in "{tls.password_file}" does not open the key in "{keyfile}"'
            ) from None
        raise _unusable(error, tls.certfile, keyfile, key, keyfile_key) from None
    except ValueError as error:
        raise _refusal(f"{key}.password_file", f'"{tls.password_file}": {error}') from None


def _unusable(error: ssl.SSLError, certfile: str, keyfile: str, key: str, keyfile_key: str) -> ConfigError:
    """Whose fault it is that a certificate and a key that is not encrypted make no pair."""
    reason = getattr(error, "reason", None) or ""
    if reason in _MISMATCH:
        return _refusal(keyfile_key, f'the key in "{keyfile}" does not belong to the certificate in "{certfile}"')
    if reason in _TOO_WEAK:
        return _refusal(f"{key}.certfile", f'OpenSSL refuses "{certfile}": {_TOO_WEAK[reason]}')
    if not _is_sound(certfile):
        return _refusal(f"{key}.certfile", f'a certificate in "{certfile}" is damaged')
    what = f": {reason.lower().replace('_', ' ')}" if reason else ""
    return _refusal(keyfile_key, f'the private key in "{keyfile}" cannot be read{what}')


def _ask_clients(context: ssl.SSLContext, tls: Tls, key: str) -> None:
    """Let the context ask clients for certificates, if they are to show any."""
    if tls.client_certs == "none":
        return
    if tls.client_ca is None:
        raise _refusal(f"{key}.client_ca", f"client_certs is {tls.client_certs}, and needs the authorities' file")
    data = _read(tls.client_ca, f"{key}.client_ca")
    if not _CERTIFICATE.search(data):
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
