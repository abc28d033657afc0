"""Which proxy of the environment a request goes through.

The variables are those that every client reads: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, also in upper case.
`no_proxy` lists what is reached directly: names (with everything below them), IP addresses, networks such as 10.0.0.0/8 or
fe80::/10, IPv6 addresses with or without brackets, each with a port if wanted; `*` is everything.

httpx reads them too, but refuses with its own errors what is common in `no_proxy`, keeps the password in its URLs, and knows no
networks. So it is given one proxy, or none.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pet.errors import ConfigError, MissingExtraError
from pet.secret import Secret
from pet.urls import shown_url, split_credentials

_SCHEMES: Final = ("http", "https", "socks5", "socks5h")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
        url: without credentials.
        credentials: user and password; None without any.
    """

    url: str
    credentials: tuple[str, Secret] | None


def proxy_for(url: str, variables: Mapping[str, str] | None = None) -> Proxy | None:
    """Return the proxy for a URL, or None if it is reached directly. This machine's loopback always is.

    Args:
        url: http or https, checked before.
        variables: proxies by "http", "https", "all", and "no"; the environment's, or the system's, if not given.

    Raises:
        ConfigError: the variable that applies holds no URL of a proxy.
        MissingExtraError: it is a SOCKS proxy, for which a package is missing.
    """
    found = urllib.request.getproxies() if variables is None else variables
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    if is_loopback(host) or _is_excepted(host, port, found.get("no", "")):
        return None
    name = next((name for name in (parts.scheme, "all") if found.get(name)), None)
    return None if name is None else _parse(f"{name}_proxy", found[name])


def is_loopback(host: str) -> bool:
    """Return whether the host of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(variable: str, text: str) -> Proxy:
    proxy: Proxy | None = None
    try:
        url, credentials = split_credentials(text.strip() if "://" in text else f"http://{text.strip()}")
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in _SCHEMES and parts.hostname and parts.port != 0 and parts.path in {"", "/"} and url.isprintable():
            proxy = Proxy(url, credentials)
    except ValueError:
        pass
    if proxy is None or parts.query or parts.fragment or any(character.isspace() for character in url):
        raise ConfigError(f"{variable}: expected {', '.join(_SCHEMES)}://host[:port] of a proxy, got {shown_url(text)!r}")
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise MissingExtraError(
            f"{variable}: expected the package socksio for a SOCKS proxy (pip install 'httpx[socks]'), got {shown_url(text)!r}",
            "socksio",
        )
    return proxy


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    return any(_matches(entry.strip().lower(), host.lower(), port) for entry in no_proxy.split(",") if entry.strip())


def _matches(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of `no_proxy` means a host; one that nobody could have meant means none."""
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    if (network := _network(entry)) is None:
        entry, wanted = _split_port(entry)
        if wanted not in {None, port}:
            return False
        network = _network(entry)
    if network is not None:
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return address.version == network.version and address in network
    name = entry.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(name) and (host.rstrip(".") == name or host.rstrip(".").endswith(f".{name}"))


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network of an address or network, in brackets or not; None for anything else."""
    address, slash, length = entry.partition("/")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        return ipaddress.ip_network(f"{address.partition('%')[0]}{slash}{length}", strict=False)
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, int | None]:
    name, colon, port = entry.rpartition(":")
    is_port = bool(colon) and port.isascii() and port.isdecimal() and len(port) <= 5
    return (name, int(port)) if is_port else (entry, None)
