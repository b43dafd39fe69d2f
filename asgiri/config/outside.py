"""What is wrong with a text that names somebody outside: a proxy, a host, a field, a receiver of metrics.

Each function gives the reason, and an empty text where there is none. Imported only where a config has such a key.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Network, IPv6Address, ip_network
from typing import Final

from asgiri.config.address import parse_bind

# RFC 9110 section 5.6.2 (token).
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)

# RFC 1123 section 2.1, with the underscore that container networks have; an asterisk is all that is below a name.
_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*", re.ASCII)

# What a name of a metric may begin with: of statsd's own grammar, nothing that ends a name.
_PREFIX = re.compile(r"[0-9A-Za-z_.-]*", re.ASCII)

_PEER: Final = 'an address, a network such as 10.0.0.0/8, "unix" or "*"'
_ANY_HOST: Final = "a host name, *.example.org, an IPv4 address or an IPv6 one in brackets"
_RECEIVER: Final = "HOST:PORT, [V6]:PORT or unix:PATH"


def peer(entry: str) -> str:
    """Of an entry of ``proxy.trusted``."""
    if entry in ("unix", "*"):
        return ""
    if "%" in entry:
        return f'expected {_PEER}, got "{entry}"; leave the interface (%...) out'
    try:
        network = ip_network(entry)
    except ValueError:
        return f'expected {_PEER}, got "{entry}"{_peer_meant(entry)}'
    if network.version == 6 and network.prefixlen >= 96 and (mapped := network.network_address.ipv4_mapped):
        meant = IPv4Network((mapped, network.prefixlen - 96))
        return f'an IPv4 peer is known by its own address; did you mean "{_shortest(meant)}"?'
    return ""


def _peer_meant(entry: str) -> str:
    try:
        return f'; did you mean "{ip_network(entry, strict=False)}"?'  # host bits are set
    except ValueError:
        pass
    text = entry.lower()
    if text.startswith("unix:"):
        return '; "unix" stands for every peer on a unix socket'
    if entry.startswith("[") and entry.endswith("]") and not peer(entry[1:-1]):
        return f'; did you mean "{entry[1:-1]}"?'
    return "; names are not looked up" if _HOST.fullmatch(entry) and re.search("[a-z]", text) else ""


def _shortest(network: IPv4Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def host(entry: str) -> str:
    """Of an entry of ``allowed_hosts``."""
    if entry.startswith("[") and entry.endswith("]"):
        try:
            IPv6Address(entry[1:-1])
        except AddressValueError:
            return f'expected an IPv6 address in the brackets, got "{entry}"'
        return "" if "%" not in entry else f'expected {_ANY_HOST}, got "{entry}"'
    if _HOST.fullmatch(entry) and len(entry) <= 253:
        return ""
    return f'expected {_ANY_HOST}, got "{entry}"{_host_meant(entry)}'


def _host_meant(entry: str) -> str:
    name, colon, port = entry.rpartition(":")
    if entry == "*":
        return "; all hosts are allowed where the list is empty"
    if "://" in entry:
        return "; without a scheme"
    if colon and port.isdecimal() and not host(name):
        return f'; ports are not looked at: did you mean "{name}"?'
    if not host(f"[{entry}]"):
        return f'; did you mean "[{entry}]"?'
    if entry.endswith(".") and not host(entry[:-1]):
        return f'; did you mean "{entry[:-1]}"?'
    if entry.startswith(".") and not host(f"*{entry}"):
        return f'; did you mean "*{entry}"?'
    return "" if entry.isascii() else "; beyond ASCII, as DNS has it (xn--...)"


def field(name: str, own: frozenset[str]) -> str:
    """Of the name of a header field that is sent and read; those that are the server's ``own`` cannot be one."""
    if not _FIELD_NAME.fullmatch(name):
        return f'expected the name of a header field, a token of RFC 9110, got "{name}"'
    if name.lower() in own or name.lower() == "host":
        return f"the field {name} says what the message is, and cannot name a request"
    if name.lower() == "forwarded" or name.lower().startswith("x-forwarded-"):
        return f"the field {name} says who the client is, and cannot name a request"
    return ""


def receiver(address: str) -> str:
    """Of ``metrics.statsd.address``."""
    scheme = address.partition(":")[0]
    try:
        found = parse_bind(address) if scheme not in ("fd", "systemd") else None
    except ValueError as error:
        return str(error) if scheme == "unix" or "port" in str(error) else f'expected {_RECEIVER}, got "{address}"'
    if found is None:
        return f'expected {_RECEIVER}, got "{address}"'
    if found.is_any_port:
        return 'expected a port from 1 to 65535, got "0"'
    return ""


def prefix(text: str) -> str:
    """Of ``metrics.statsd.prefix``."""
    return "" if _PREFIX.fullmatch(text) else f'expected letters, digits, ".", "_" and "-", got "{text}"'
