"""Whom an address is counted for: the name that limits and shares know a peer by; and networks of addresses. Pure functions."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import Final, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Addresses whose peer is remembered: reading one takes longer than counting it.
_KNOWN_ADDRESSES: Final = 4096


def peer_of(client: tuple[str, int] | None) -> str:
    """Return whom to count an address for: itself, or the /64 network of an IPv6 address, which one host can use up alone."""
    return "" if client is None else _peer_of_host(client[0])


@functools.lru_cache(_KNOWN_ADDRESSES)
def _peer_of_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)


def parse_network(text: str) -> Network:
    """Read an address, or a network such as 10.0.0.0/8.

    Raises:
        ValueError: it is neither.
    """
    return ipaddress.ip_network(text.strip())


def parse_address(text: str) -> Address | None:
    """Read an address as proxies write it, with or without a port; None for anything else. IPv4 within IPv6 is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_among(address: Address | None, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of some networks; None is in none."""
    return address is not None and any(address in network for network in networks)
