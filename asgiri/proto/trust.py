"""Whose word about a client is taken: the peers of ``proxy.trusted``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

UNIX: Final = "unix"
ANYBODY: Final = "*"


class Trusted:
    """Made of addresses, networks in CIDR notation, "unix" and "*". ValueError for what is none of these."""

    def __init__(self, entries: Sequence[str]) -> None:
        self._anybody = ANYBODY in entries
        self._unix = self._anybody or UNIX in entries
        self._networks: list[IPv4Network | IPv6Network] = []
        if named := [entry for entry in entries if entry not in (UNIX, ANYBODY)]:
            from ipaddress import ip_network  # most services have no proxy by address

            self._networks = [ip_network(entry) for entry in named]

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, host: str | None) -> bool:
        """Whether a peer at this address, None on a unix socket, is one of them. A text that is no address is none."""
        if host is None:
            return self._unix
        if self._anybody:
            return True
        if not self._networks:
            return False
        from ipaddress import ip_address

        try:
            address = ip_address(host.partition("%")[0])  # a link-local one may have its interface behind it
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)
