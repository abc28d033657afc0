"""Whom an address is counted for: the name that limits and shares know a peer by. A pure function."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

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
