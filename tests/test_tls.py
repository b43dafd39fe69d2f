"""TLS contexts: what they speak, and what is wrong with their files, in words."""

from __future__ import annotations

import datetime
import os
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from asgiri.config.schema import Config, Listen, SniPair, Tls
from asgiri.errors import ConfigError
from asgiri.tls import (
    certificate,
    first_certificate,
    server_context,
    server_contexts,
    weak_ciphers,
)
from tests.pki import Pki

BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def pair(pki: Pki, **more: Any) -> Tls:
    return Tls(**{"certfile": pki.certfile, "keyfile": pki.keyfile, **more})


def meet(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a handshake in memory; SSLError when one of them refuses. ``name`` is what the client asks for."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    finish(ours, theirs)
    return ours, theirs


def finish(ours: ssl.SSLObject, theirs: ssl.SSLObject) -> None:
    """Let both ends shake hands."""
    unfinished = [theirs, ours]
    for _ in range(10):
        for end in list(unfinished):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            unfinished.remove(end)
    assert not unfinished


def refusal(tls: Tls) -> str:
    with pytest.raises(ConfigError) as caught:
        server_context(tls, key="listen[0].tls")
    [problem] = caught.value.problems
    assert not problem.where
    return f"{problem.key}: {problem.what}"


# What it speaks


def test_http2_alone_takes_alpn(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "HAS_ALPN", False)
    with pytest.raises(ConfigError) as caught:
        server_context(pair(pki), ("h2",), "listen[0].tls")
    [problem] = caught.value.problems
    assert problem.key == "listen[0].http"
    assert problem.what == (
        "with listen[0].tls, HTTP/2 is agreed on by ALPN (RFC 9113 section 3.2), which "
        f"{ssl.OPENSSL_VERSION} has not: add http/1.1, or leave tls out"
    )
    server_context(pair(pki), BOTH)  # who knows that HTTP/2 is spoken may begin with its preface


def test_a_pair_serves(pki: Pki) -> None:
    ours, theirs = meet(server_context(pair(pki)), pki.client(alpn=("h2", "http/1.1")))
    assert ours.version() == theirs.version() == "TLSv1.3"
    assert theirs.selected_alpn_protocol() == "http/1.1"
    assert ours.compression() is None


def test_a_client_that_offers_nothing_that_is_spoken_gets_no_protocol(pki: Pki) -> None:
    _, theirs = meet(server_context(pair(pki)), pki.client(alpn=("h2",)))
    assert theirs.selected_alpn_protocol() is None


def test_alpn_is_what_the_listener_speaks_in_its_order(pki: Pki) -> None:
    _, theirs = meet(server_context(pair(pki), ("h2", "http/1.1")), pki.client(alpn=("http/1.1", "h2")))
    assert theirs.selected_alpn_protocol() == "h2"


def test_a_client_without_alpn_gets_no_protocol(pki: Pki) -> None:
    ours, theirs = meet(server_context(pair(pki), ("h2", "http/1.1")), pki.client())
    assert ours.selected_alpn_protocol() is theirs.selected_alpn_protocol() is None


def test_certificate_and_key_in_one_file(pki: Pki) -> None:
    tls = Tls(certfile=pki.bundle)
    meet(server_context(tls), pki.client())
    assert certificate(tls) == certificate(pair(pki))


def test_an_encrypted_key(pki: Pki) -> None:
    password = pki.write("password", b"secret \r\nnot this\n")  # blanks are a password's own, the line's end is not
    meet(server_context(pair(pki, keyfile=pki.encrypted_key(b"secret "), password_file=password)), pki.client())


def test_a_password_that_nothing_asks_for(pki: Pki) -> None:
    meet(server_context(pair(pki, password_file=pki.write("password", b"unused"))), pki.client())


def test_versions_below_the_least_are_refused(pki: Pki) -> None:
    old = pki.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = meet(server_context(pair(pki)), old)
    assert ours.version() == "TLSv1.2"
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
        meet(server_context(pair(pki, min_version="1.3")), old)
    assert server_context(pair(pki)).minimum_version is ssl.TLSVersion.TLSv1_2


def test_only_the_configured_ciphers_are_offered(pki: Pki) -> None:
    only = "ECDHE-ECDSA-AES256-GCM-SHA384"
    old = pki.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, _ = meet(server_context(pair(pki, ciphers=only)), old)
    assert ours.cipher() == (only, "TLSv1.2", 256)


def test_the_servers_order_of_ciphers_counts(pki: Pki) -> None:
    first, second = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
    old = pki.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers(f"{second}:{first}")
    ours, _ = meet(server_context(pair(pki, ciphers=f"{first}:{second}")), old)
    cipher = ours.cipher()
    assert cipher is not None
    assert cipher[0] == first


def test_no_compression_and_no_renegotiation(pki: Pki) -> None:
    options = server_context(pair(pki)).options
    assert options & ssl.OP_NO_COMPRESSION
    assert options & ssl.OP_NO_RENEGOTIATION


# Ciphers that HTTP/2 may use (RFC 9113 section 9.2.2)

GOOD, CBC, STATIC = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256"
BOTH = ("h2", "http/1.1")


def old_client(pki: Pki, ciphers: str) -> ssl.SSLContext:
    client = pki.client(alpn=BOTH)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(ciphers)
    return client


def test_without_a_list_http2_has_only_the_ciphers_that_it_may_use(pki: Pki) -> None:
    context = server_context(pair(pki), BOTH)
    assert weak_ciphers(context) == set()
    names = [str(suite["name"]) for suite in context.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names), names
    meet(context, old_client(pki, GOOD))
    with pytest.raises(ssl.SSLError, match=r"(?i)no.shared.cipher"):
        meet(context, old_client(pki, CBC))
    ours, _ = meet(server_context(pair(pki)), old_client(pki, CBC))  # HTTP/1.1 alone goes on with what OpenSSL has
    assert ours.cipher() == (CBC, "TLSv1.2", 128)


def test_the_mandatory_cipher_of_http2_is_there(pki: Pki) -> None:
    """RFC 9113 section 9.2.2: every deployment of HTTP/2 over TLS 1.2 has it."""
    names = {suite["name"] for suite in server_context(pair(pki), BOTH).get_ciphers()}
    assert "ECDHE-RSA-AES128-GCM-SHA256" in names


def test_a_list_is_put_in_an_order_that_gives_http2_what_it_may_use(pki: Pki) -> None:
    tls = pair(pki, ciphers=f"{CBC}:{STATIC}:{GOOD}")
    context = server_context(tls, BOTH)
    assert weak_ciphers(context) == {CBC, STATIC}
    chosen = [meet(context, old_client(pki, offer))[0].cipher() for offer in (f"{CBC}:{GOOD}", CBC)]
    assert [cipher and cipher[0] for cipher in chosen] == [GOOD, CBC]
    ours, _ = meet(server_context(tls), old_client(pki, f"{CBC}:{GOOD}"))  # as it was written, for HTTP/1.1
    cipher = ours.cipher()
    assert cipher is not None
    assert cipher[0] == CBC


def test_a_list_without_any_that_http2_may_use_is_refused(pki: Pki) -> None:
    for tls, http in ((pair(pki, ciphers=f"{CBC}:{STATIC}"), BOTH), (pair(pki, ciphers=CBC), ("h2",))):
        with pytest.raises(ConfigError) as caught:
            server_context(tls, http, "listen[0].tls")
        assert str(caught.value) == (
            "listen[0].tls.ciphers: HTTP/2 may use none of these (RFC 9113 appendix A):"
            " add one with ECDHE and GCM or CHACHA20"
        )
    server_context(pair(pki, ciphers=CBC))
    server_context(pair(pki, ciphers=CBC, min_version="1.3"), BOTH)  # whose ciphers are all good


# Certificates by name


def named(pki: Pki, **more: Any) -> tuple[Tls, dict[str, str]]:
    """A section with names, and the certificate that each is to show, in PEM; that of "" is the default one."""
    names = {"www.example.org": "www", "*.example.org": "any", "*.Shop.example": "shop"}
    pairs = {name: pki.issue(file, name.lower(), "localhost") for name, file in names.items()}
    sni = {name: SniPair(certfile=certfile, keyfile=keyfile) for name, (certfile, keyfile) in pairs.items()}
    tls = pair(pki, sni=sni, **more)
    return tls, {"": certificate(tls)} | {
        name: first_certificate(certfile, "") for name, (certfile, _) in pairs.items()
    }


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("www.example.org", "www.example.org"),
        ("WWW.Example.ORG", "www.example.org"),
        ("img.example.org", "*.example.org"),
        ("a.b.example.org", ""),
        ("example.org", ""),
        ("a.shop.example", "*.Shop.example"),
        ("elsewhere.test", ""),
        ("localhost", ""),
        (None, ""),
    ],
)
def test_the_certificate_is_that_of_the_name(pki: Pki, asked: str | None, shown: str, version: ssl.TLSVersion) -> None:
    tls, certificates = named(pki)
    context, by_context = server_contexts(tls, BOTH)
    client = pki.client(alpn=("http/1.1", "h2"))
    client.check_hostname = False
    client.maximum_version = version
    ours, theirs = meet(context, client, asked)
    der = theirs.getpeercert(binary_form=True)
    assert der is not None
    assert ssl.DER_cert_to_PEM_cert(der) == certificates[shown].replace("\r\n", "\n")
    assert by_context[ours.context] == certificates[shown]
    assert theirs.selected_alpn_protocol() == "h2"  # the server's order, whichever the name
    assert theirs.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("asked", ["www.example.org", "localhost"])
def test_each_name_asks_for_client_certificates(pki: Pki, asked: str) -> None:
    tls, _ = named(pki, client_certs="required", client_ca=pki.ca_file)
    for shows in (True, False):
        client = pki.client(pki.issue("client", "jane@asgiri.test") if shows else None)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        if not shows:
            with pytest.raises(ssl.SSLError, match=r"(?i)peer.did.not.return.a.certificate"):
                meet(server_context(tls, BOTH), client, asked)
            continue
        ours, _ = meet(server_context(tls, BOTH), client, asked)
        assert ours.getpeercert(binary_form=True)
        assert not ours.context.verify_flags & ssl.VERIFY_X509_STRICT


def test_a_resumed_session_has_the_certificate_of_its_name(pki: Pki) -> None:
    tls, certificates = named(pki)
    context, by_context = server_contexts(tls, BOTH)
    client = pki.client()
    client.check_hostname = False
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # whose session is there when the handshake ends
    _, first = meet(context, client, "www.example.org")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="www.example.org", session=first.session)
    finish(ours, theirs)
    assert theirs.session_reused
    assert by_context[ours.context] == certificates["www.example.org"]


def test_what_is_wrong_with_a_names_files_is_said_of_its_key(pki: Pki) -> None:
    at = "listen[0].tls.sni.www.example.org"

    def said(certfile: str, keyfile: str, **more: Any) -> str:
        return refusal(pair(pki, sni={"www.example.org": SniPair(certfile=certfile, keyfile=keyfile)}, **more))

    assert said("gone.pem", pki.keyfile) == f'{at}.certfile: cannot read "gone.pem": No such file or directory'
    assert said(pki.certfile, "gone.key") == f'{at}.keyfile: cannot read "gone.key": No such file or directory'
    _, other = pki.issue("other", "localhost")
    assert said(pki.certfile, other) == (
        f'{at}.keyfile: the key in "{other}" does not belong to the certificate in "{pki.certfile}"'
    )
    encrypted = pki.encrypted_key(b"secret")
    assert said(pki.certfile, encrypted) == f'{at}.keyfile: the key in "{encrypted}" is encrypted; name a password_file'
    password = pki.write("password", b"secret")
    server_context(
        pair(
            pki,
            password_file=password,  # the listener's, for all of its keys
            sni={"a": SniPair(certfile=pki.certfile, keyfile=encrypted)},
        )
    )


# Client certificates


@pytest.mark.parametrize("shows", [True, False])
@pytest.mark.parametrize("asked", ["none", "optional", "required"])
def test_client_certificates(pki: Pki, asked: str, shows: bool) -> None:
    tls = pair(pki, client_certs=asked, client_ca=None if asked == "none" else pki.ca_file)
    client = pki.client(pki.issue("client", "jane@asgiri.test") if shows else None)
    client.maximum_version = ssl.TLSVersion.TLSv1_2  # whose handshake tells the client of a refusal
    if asked == "required" and not shows:
        with pytest.raises(ssl.SSLError, match=r"(?i)peer.did.not.return.a.certificate"):
            meet(server_context(tls), client)
        return
    ours, _ = meet(server_context(tls), client)
    assert bool(ours.getpeercert(binary_form=True)) == (shows and asked != "none")


def test_a_client_of_another_authority(pki: Pki, tmp_path: Path) -> None:
    client = pki.client(Pki(tmp_path).issue("stranger", "eve@asgiri.test"))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    for asked in ("optional", "required"):
        with pytest.raises(ssl.SSLCertVerificationError):
            meet(server_context(pair(pki, client_certs=asked, client_ca=pki.ca_file)), client)


def test_a_private_authority_that_the_strict_check_would_refuse(pki: Pki) -> None:
    """As of RFC 5280 it lacks key identifiers; VERIFY_X509_STRICT is a default of Python 3.13's own contexts, not ours.

    There, what ``ssl.create_default_context`` makes for a server would refuse the certificates of such an authority.
    """
    default = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert bool(default.verify_flags & ssl.VERIFY_X509_STRICT) == (sys.version_info >= (3, 13))
    now = datetime.datetime.now(datetime.UTC)
    authority_key, client_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority, client = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "client"))

    def issue(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder(authority, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    ca_file = pki.write("old-ca.pem", issue(authority, authority_key, ca=True))
    chain = pki.write("old.pem", issue(client, client_key, ca=False))
    key = pki.write("old.key", private(client_key))
    context = server_context(pair(pki, client_certs="required", client_ca=ca_file))
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    meet(context, pki.client((chain, key)))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    client_context = pki.client((chain, key))
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(context, client_context)


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# What is wrong, in words


def test_files_that_cannot_be_read(pki: Pki, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone.pem")
    for name in ("certfile", "keyfile"):
        assert refusal(pair(pki, **{name: gone})) == (
            f'listen[0].tls.{name}: cannot read "{gone}": No such file or directory'
        )
    assert refusal(pair(pki, password_file=gone)).startswith("listen[0].tls.password_file: cannot read")
    assert refusal(pair(pki, client_ca=gone, client_certs="required")).startswith(
        "listen[0].tls.client_ca: cannot read"
    )
    assert refusal(pair(pki, certfile=str(tmp_path))).endswith(": Is a directory")


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_a_file_of_somebody_else(pki: Pki) -> None:
    path = pki.write("secret.key", b"")
    Path(path).chmod(0)
    assert refusal(pair(pki, keyfile=path)) == f'listen[0].tls.keyfile: cannot read "{path}": Permission denied'


def test_a_file_that_is_too_large(pki: Pki) -> None:
    path = pki.write("disk.img", bytes((1 << 20) + 1))
    assert refusal(pair(pki, certfile=path)) == f'listen[0].tls.certfile: "{path}" is larger than 1MiB'


def test_files_that_are_not_what_they_should_be(pki: Pki) -> None:
    der = pki.write("der.pem", ssl.PEM_cert_to_DER_cert(certificate(pair(pki))))
    empty = pki.write("empty.pem", b"")
    for path, why in (
        (der, "it looks like DER, and PEM is expected"),
        (empty, "it is empty"),
        (pki.keyfile, "PEM is expected"),
    ):
        assert refusal(pair(pki, certfile=path)) == f'listen[0].tls.certfile: "{path}" has no certificate in it; {why}'
        assert refusal(pair(pki, client_ca=path, client_certs="optional")) == (
            f'listen[0].tls.client_ca: "{path}" has no certificate in it; {why}'
        )
    assert refusal(pair(pki, keyfile=pki.certfile)) == (
        f'listen[0].tls.keyfile: "{pki.certfile}" has no private key in it; PEM is expected'
    )
    assert refusal(Tls(certfile=pki.certfile)) == (
        f'listen[0].tls.certfile: "{pki.certfile}" has no private key in it; PEM is expected'
    )


def test_damaged_files(pki: Pki) -> None:
    chain = Path(pki.certfile).read_bytes()
    for name, data in (("leaf", BROKEN), ("chain", chain + BROKEN), ("base64", chain.replace(b"MII", b"@@@", 1))):
        path = pki.write(f"{name}.pem", data)
        assert refusal(pair(pki, certfile=path)) == f'listen[0].tls.certfile: a certificate in "{path}" is damaged'
    path = pki.write("ca-broken.pem", BROKEN)
    assert refusal(pair(pki, client_ca=path, client_certs="required")) == (
        f'listen[0].tls.client_ca: a certificate in "{path}" is damaged'
    )
    path = pki.write("cut.key", Path(pki.keyfile).read_bytes()[:60])
    assert refusal(pair(pki, keyfile=path)).startswith(
        f'listen[0].tls.keyfile: the private key in "{path}" cannot be read'
    )


def test_a_key_of_another_certificate(pki: Pki) -> None:
    _, same_kind = pki.issue("other", "localhost")
    other_kind = pki.write("rsa.key", private(rsa.generate_private_key(65537, 2048)))
    for path in (same_kind, other_kind):
        assert refusal(pair(pki, keyfile=path)) == (
            f'listen[0].tls.keyfile: the key in "{path}" does not belong to the certificate in "{pki.certfile}"'
        )


def test_a_password_opens_its_key_or_is_refused_with_the_file(pki: Pki) -> None:
    key = pki.encrypted_key(b"secret")
    assert refusal(pair(pki, keyfile=key)) == (
        f'listen[0].tls.keyfile: the key in "{key}" is encrypted; name a password_file'
    )
    for wrong in (b"guess", b"", b"\nsecret"):
        path = pki.write("password", wrong)
        assert refusal(pair(pki, keyfile=key, password_file=path)) == (
            f'listen[0].tls.password_file: the password in "{path}" does not open the key in "{key}"'
        )
    path = pki.write("password", b"x" * 1025)
    assert refusal(pair(pki, keyfile=key, password_file=path)) == (
        f'listen[0].tls.password_file: "{path}": password cannot be longer than 1024 bytes'
    )


def test_a_certificate_that_openssl_finds_too_weak(pki: Pki) -> None:
    now = datetime.datetime.now(datetime.UTC)
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    weak = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = pki.write("weak.pem", weak.public_bytes(serialization.Encoding.PEM) + private(key))
    assert refusal(Tls(certfile=path)) == f'listen[0].tls.certfile: OpenSSL refuses "{path}": its key is too small'


def test_ciphers_that_nobody_knows(pki: Pki) -> None:
    assert refusal(pair(pki, ciphers="ROT13")) == 'listen[0].tls.ciphers: OpenSSL knows none of "ROT13"'


def test_client_certificates_without_an_authority(pki: Pki) -> None:
    assert refusal(pair(pki, client_certs="required")) == (
        "listen[0].tls.client_ca: client_certs is required, and needs the authorities' file"
    )


# For a whole config


def test_the_flags_put_tls_where_there_is_none(pki: Pki) -> None:
    own = Tls(certfile="own.pem")
    config = Config(listen=(Listen(bind="a:1"), Listen(bind="a:2", tls=own), Listen(bind="unix:a")))
    given = pair(pki)
    assert [listen.tls for listen in config.secured(given).listen] == [given, own, given]
    assert [listen.tls for listen in config.listen] == [None, own, None]
