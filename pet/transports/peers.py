"""Whom an address is counted for: the name that limits and shares know a peer by. A pure function."""

from __future__ import annotations

import ipaddress


def peer_of(client: tuple[str, int] | None) -> str:
    """Return whom to count an address for: itself, or the /64 network of an IPv6 address, which one host can use up alone."""
    if client is None:
        return ""
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return client[0]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)
