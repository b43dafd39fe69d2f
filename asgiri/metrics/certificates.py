"""Which certificates a config shows, in the order in which the master tells their ends. Pure, and reads no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from asgiri.config.schema import Config


class NamedCertificate(Struct, frozen=True):
    """A certificate: the ``bind`` of its listener, the server name that it is shown for ("": any other), its file."""

    listener: str
    name: str
    certfile: str


def certificates_of(config: Config) -> list[NamedCertificate]:
    """The certificates of all listeners, in their order; of each its own one first, then those of its ``sni``."""
    found = []
    for listen in config.listen:
        if (tls := listen.tls) is not None:
            found.append(NamedCertificate(listen.bind, "", tls.certfile))
            found += [NamedCertificate(listen.bind, name, pair.certfile) for name, pair in tls.sni.items()]
    return found
