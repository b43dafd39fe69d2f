"""Certificates for the tests, of an authority of their own."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Pki:
    """An authority, and a server's certificate for localhost in files: the chain, the key, and both in one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.ca_file = self.write("ca.pem", self.authority.cert_pem.bytes())
        self.certfile, self.keyfile = self.issue("server", "localhost", "127.0.0.1")
        self.bundle = self.write("bundle.pem", Path(self.keyfile).read_bytes() + Path(self.certfile).read_bytes())

    def write(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.write_bytes(data)
        return str(path)

    def issue(
        self,
        name: str,
        *identities: str,
        authority: trustme.CA | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> tuple[str, str]:
        """The files of a new certificate's chain and of its key."""
        issuer = authority or self.authority
        leaf = issuer.issue_cert(*identities, not_before=not_before, not_after=not_after)
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return self.write(f"{name}.pem", chain), self.write(f"{name}.key", leaf.private_key_pem.bytes())

    def encrypted_key(self, password: bytes) -> str:
        key = serialization.load_pem_private_key(Path(self.keyfile).read_bytes(), None)
        return self.write(
            "encrypted.key",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password),
            ),
        )

    def client(self, pair: tuple[str, str] | None = None, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        """What a client of this authority trusts; ``pair`` is its own certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if pair is not None:
            context.load_cert_chain(*pair)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
