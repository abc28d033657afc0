"""How to reach a NATS broker, as whom, and how much of its storage to use.

A record of checked values; nothing here connects, or needs what does: who stores such a record may lack it. Secrets never show:
not in `repr`, not in an error, and what a URL says about user and password is taken out of it before anything keeps the URL.

Source: docs/spec/federation.md 2.4, 5.2, 5.5.
"""

from __future__ import annotations

import ipaddress
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from pet.errors import ConfigError
from pet.numbers import checked_number
from pet.secret import Secret
from pet.transports.tls import trusting
from pet.urls import shown_url

Mode = Literal["direct", "stream"]
Storage = Literal["file", "memory"]

DEFAULT_REQUEST_TIMEOUT_SECONDS: Final = 30.0
DEFAULT_STREAM_MAX_BYTES: Final = 2**30
#: Below this a quarter of it, the broadcasts, would not hold a handful of chunks.
_MIN_STREAM_BYTES: Final = 32 * 2**20
_DEFAULT_PORT: Final = 4222
_SUFFIXES: Final = {"K": 2**10, "M": 2**20, "G": 2**30}
#: An NKEY seed of a user is "SU" and 56 characters of base32 (spec 5.5).
_SEED_LENGTH: Final = 58


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """How to reach a broker. At most one of user and password, token, NKEY seed.

    Attributes:
        hosts: URLs nats://host[:port] or tls://host[:port]; afterwards complete, and without credentials. One text with
            commas is taken apart. Credentials in URLs are used, if all URLs have the same.
        user: name that belongs to `password`.
        password: of that user; afterwards a `Secret`, as token and NKEY seed.
        token: secret.
        nkey_seed: the text of the seed, "SU...".
        tls: whom to trust; goes before `ca_file`.
        ca_file: PEM file of the only authority to trust.
        request_timeout_seconds: how long to wait for a connection, and for an answer.
        stream_max_bytes: what the streams of one federation may hold together, 32 MiB or more.
        storage: where the broker keeps streams. `memory` loses them when the broker restarts.
        replicas: of each stream, in a cluster of brokers.
        mode: how uploads travel: `direct` from the sender to the receiver, `stream` by way of the broker's storage.
        chunk_bytes: largest chunk wanted; the broker may allow less.
        allow_plaintext: talk to hosts other than this machine without TLS. Everybody in between can then read along.

    Raises:
        ConfigError: a value breaks its rule; the message shows no secret.
    """

    hosts: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str | None = None
    password: Secret | str | None = None
    token: Secret | str | None = None
    nkey_seed: Secret | str | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    ca_file: Path | None = None
    request_timeout_seconds: float = DEFAULT_REQUEST_TIMEOUT_SECONDS
    stream_max_bytes: int = DEFAULT_STREAM_MAX_BYTES
    storage: Storage = "file"
    replicas: int = 1
    mode: Mode = "direct"
    chunk_bytes: int = 2**20
    allow_plaintext: bool = False

    def __post_init__(self) -> None:
        hosts, found = _split_hosts(self.hosts)
        object.__setattr__(self, "hosts", hosts)
        if found is not None and (self.user, self.password, self.token, self.nkey_seed) == (None,) * 4:
            user, password = found
            object.__setattr__(self, "user" if password is not None else "token", user)
            object.__setattr__(self, "password", password)
        elif found is not None:
            raise ConfigError("NATS: expected credentials in the URLs or as settings of their own, got both")
        for name in ("password", "token", "nkey_seed"):
            object.__setattr__(self, name, Secret.of(getattr(self, name)))
        self._check_credentials()
        self._check_numbers()
        if not (self.uses_tls or self.allow_plaintext) and (exposed := [host for host in hosts if not _is_loopback(host)]):
            raise ConfigError(
                f"nats_hosts: expected TLS for every host but this machine, got {exposed[0]}; use tls:// or a CA file"
            )

    @classmethod
    def from_entries(cls, entries: Mapping[str, str], *, tls: ssl.SSLContext | None = None, **others: object) -> Self:
        """Read the entries of a federation map (spec 2.4): nats_hosts, nats_sec_*, nats_req_timeout, nats_stream_max_memory.

        Entries of other names are left alone; `others` are further attributes, such as `storage`.

        Raises:
            ConfigError: an entry breaks its rule.
        """
        names = {
            "user": "nats_sec_user",
            "password": "nats_sec_passwd",
            "token": "nats_sec_token",
            "nkey_seed": "nats_sec_nkey_seed",
        }
        values: dict[str, object] = {name: entries[key] or None for name, key in names.items() if key in entries}
        if "nats_hosts" not in entries:
            raise ConfigError("nats_hosts: expected URLs, got nothing")
        values["hosts"] = (entries["nats_hosts"],)
        if "nats_req_timeout" in entries:
            values["request_timeout_seconds"] = _parse_seconds(entries["nats_req_timeout"])
        if "nats_stream_max_memory" in entries:
            values["stream_max_bytes"] = parse_size(entries["nats_stream_max_memory"])
        return cls(tls=tls, **(values | others))  # type: ignore[arg-type]  # checked by the constructor

    def to_entries(self) -> dict[str, str]:
        """Return the entries that `from_entries` reads, but for credentials."""
        return {
            "nats_hosts": ",".join(self.hosts),
            "nats_req_timeout": f"{self.request_timeout_seconds:g}",
            "nats_stream_max_memory": str(self.stream_max_bytes),
        }

    @property
    def uses_tls(self) -> bool:
        """Whether nothing may be sent before the connection is encrypted."""
        return self.tls is not None or self.ca_file is not None or any(host.startswith("tls:") for host in self.hosts)

    def tls_context(self) -> ssl.SSLContext | None:
        """Return whom to trust; None without TLS.

        Raises:
            ConfigError: the CA file cannot be read or holds something else.
        """
        if self.tls is not None or not self.uses_tls:
            return self.tls
        return trusting(self.ca_file)

    def _check_credentials(self) -> None:
        if not isinstance(self.user, str | None):
            raise ConfigError(f"NATS: expected a user's name, got {type(self.user).__name__}")
        if (self.user is None) != (self.password is None):
            raise ConfigError("NATS: expected user and password together, got one of them")
        given = [name for name in ("user", "token", "nkey_seed") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"NATS: expected one way to authenticate, got {' and '.join(given)}")
        seed = Secret.of(self.nkey_seed)
        if seed is not None and not (seed.reveal().startswith("SU") and len(seed.reveal()) == _SEED_LENGTH):
            raise ConfigError(f"nats_sec_nkey_seed: expected SU and 56 more characters, got {len(seed.reveal())} characters")

    def _check_numbers(self) -> None:
        seconds = checked_number(self.request_timeout_seconds, "nats_req_timeout", above=0, most=3600)
        object.__setattr__(self, "request_timeout_seconds", seconds)
        for attribute, name, least, most in (
            ("stream_max_bytes", "nats_stream_max_memory", _MIN_STREAM_BYTES, 2**62),
            ("replicas", "replicas", 1, 5),
            ("chunk_bytes", "chunk_bytes", 2**10, 2**23),
        ):
            number = checked_number(getattr(self, attribute), name, least=least, most=most)
            if not isinstance(number, int):
                raise ConfigError(f"{name}: expected a whole number, got {number}")
            object.__setattr__(self, attribute, number)
        if not (isinstance(self.mode, str) and isinstance(self.storage, str)):
            raise ConfigError("NATS: expected mode and storage as texts, got something else")
        if self.mode not in ("direct", "stream") or self.storage not in ("file", "memory"):
            raise ConfigError(f"NATS: expected mode direct or stream, storage file or memory, got {self.mode}, {self.storage}")


def parse_size(text: str) -> int:
    """Read a number of bytes, with K, M or G for powers of 1024: "1073741824", "1024M", "1g".

    Raises:
        ConfigError: it is something else.
    """
    digits, factor = text.strip(), 1
    if digits and digits[-1].upper() in _SUFFIXES:
        factor, digits = _SUFFIXES[digits[-1].upper()], digits[:-1]
    # Longer numbers than any disk has bytes are not worth a conversion.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise ConfigError(f"size: expected a number of bytes with an optional K, M or G, got {text[:30]!r}")
    return int(digits) * factor


def _parse_seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"nats_req_timeout: expected seconds, got {text[:30]!r}") from None


def _split_hosts(hosts: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, str | None] | None]:
    """Complete the URLs; return them without credentials, and the credentials, if there are any."""
    if isinstance(hosts, str):
        hosts = (hosts,)
    split = [_split_host(host.strip()) for text in hosts for host in text.split(",") if host.strip()]
    if not split:
        raise ConfigError("nats_hosts: expected at least one URL, got none")
    credentials = {found for _, found in split if found is not None}
    if len(credentials) > 1 or (credentials and any(found is None for _, found in split)):
        raise ConfigError("nats_hosts: expected the same credentials in every URL, got different ones")
    if len({url.partition(":")[0] for url, _ in split}) > 1:
        raise ConfigError("nats_hosts: expected all URLs with nats:// or all with tls://, got both")
    return tuple(url for url, _ in split), next(iter(credentials), None)


def _split_host(text: str) -> tuple[str, tuple[str, str | None] | None]:
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
        is_complete = parts.scheme in {"nats", "tls"} and bool(host) and parts.path in {"", "/"}
    except ValueError:
        is_complete = False
    if (
        not is_complete
        or not text.isprintable()
        or parts.query
        or parts.fragment
        or host is None
        or any(character.isspace() for character in text)
    ):
        raise ConfigError(f"nats_hosts: expected nats://host[:port] or tls://host[:port], got {shown_url(text)!r}")
    url = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    if parts.username is None:
        return url, None
    password = None if parts.password is None else urllib.parse.unquote(parts.password)
    return url, (urllib.parse.unquote(parts.username), password)


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_settings(settings: object) -> NatsSettings:
    """Return what is settings; a broker's URL in their place is the likeliest mistake, and would be found when connecting.

    Raises:
        ConfigError: it is something else. It is not shown: a URL may have a password.
    """
    if not isinstance(settings, NatsSettings):
        raise ConfigError(f"settings: expected NatsSettings(hosts=...), got {type(settings).__name__}")
    return settings
