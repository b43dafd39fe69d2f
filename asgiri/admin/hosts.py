"""For which hosts the admin child answers.

Who binds it to a loopback address means: for those on this machine. A web page from elsewhere, open in a browser here,
can have its own name lead to 127.0.0.1 and then read what is there as its own (DNS rebinding). The Host field tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from asgiri.sockets.listener import Listener


class Hosts:
    """``named`` are names besides those of the loopback; None: any host is served."""

    def __init__(self, named: frozenset[str] | None) -> None:
        self._named = named

    @classmethod
    def of(cls, listeners: Iterable[Listener]) -> Hosts:
        """Any host where there is a listener on another address; a unix socket no browser reaches."""
        listeners = [*listeners]
        if any(one.is_unix or not is_loopback(one.sock.getsockname()[0]) for one in listeners):
            return cls(None)
        return cls(frozenset(one.listen.address.host.lower() for one in listeners))

    def serves(self, host: str | None) -> bool:
        """Whether a request with this Host field is answered. One without it comes from no browser."""
        if self._named is None or host is None:
            return True
        name = name_of(host)
        return name in self._named or name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def name_of(host: str) -> str:
    """The name or address in a Host field, small, without the port, brackets and the root's dot."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().removesuffix(".")


def is_loopback(text: str) -> bool:
    """Whether this is an address of the loopback; a text that is no address is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
