"""The settings of a coordinator beside those of a round, and the tree of all of them.

Each field declares one setting (pet/coordinator/setting_field.py). Rules between settings are in
pet/coordinator/settings.py, older names and defaults in pet/coordinator/setting_names.py; this file knows neither files nor
the environment.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from pet.coordinator.round_sections import MaskSettings, ModelSettings, PetSettings
from pet.coordinator.setting_field import (
    Count,
    LowerCase,
    NotNegative,
    OptionalPath,
    Positive,
    SecretText,
    Section,
    Whole,
    setting,
)
from pet.errors import ConfigError

if TYPE_CHECKING:
    from pet.transports.nats import NatsSettings

DEFAULT_BIND_ADDRESS: Final = "127.0.0.1:8081"
_BIND_ADDRESS: Final = f"IP:port such as {DEFAULT_BIND_ADDRESS} or [::1]:8081, no host name (empty means the former)"
_BOOLEAN: Final = "true or false"
_COUNT: Final = "a whole number, at least 1"
_SECONDS: Final = "a number of seconds, above 0"
_BYTES: Final = "a whole number of bytes, at least 1"
_TEXT: Final = "text"


def _check_bind_address(value: str) -> str:
    split_bind_address(value)
    return value


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _split_region(value: Any) -> Any:
    """The environment form of a region is "name endpoint" (spec 6.1)."""
    return value.split() if isinstance(value, str) else value


def _split_names(value: Any) -> Any:
    """The environment form of a list is its items with commas or spaces between them."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _check_network(value: str) -> str:
    ipaddress.ip_network(value.strip())
    return value


_Networks = list[Annotated[str, AfterValidator(_check_network)]]


class ApiSettings(Section):
    """Section `api`: where the coordinator listens, its TLS files, and whether it shows a page at `/`."""

    bind_address: Annotated[str, BeforeValidator(_check_bind_address)] = setting(
        DEFAULT_BIND_ADDRESS, _BIND_ADDRESS, "Where to listen; port 0 takes any free one."
    )
    tls_certificate: OptionalPath = setting(
        None,
        "the path of a PEM file, beside api.tls_key",
        "Certificate chain; without it the coordinator speaks plain HTTP.",
        is_file=True,
    )
    tls_key: OptionalPath = setting(
        None, "the path of a PEM file, beside api.tls_certificate", "The key of the certificate.", is_file=True
    )
    tls_client_auth: OptionalPath = setting(
        None,
        "the path of a PEM file, beside api.tls_certificate and api.tls_key",
        "The authority that clients must be certified by; without it no client certificates are asked for.",
        is_file=True,
    )
    live_page: bool = setting(
        default=True, rule=_BOOLEAN, help_text="Whether `/` shows the coordinator at work, kept up to date by `/events`."
    )


class ServiceSettings(Section):
    """Section `service`: bounds and folders that xaynet has no settings for."""

    workers: Annotated[Whole, Field(ge=1, le=1024)] | None = setting(
        None,
        "a whole number of threads, at least 1",
        "Threads that open, check and add messages.",
        absent="one per core",
    )
    max_bytes_in_flight: Annotated[Whole, Field(ge=65_536)] = setting(
        64 * 2**20,
        "a whole number of bytes, at least 65536",
        "Bytes of request bodies in memory at the same time; a body takes at most 1 MiB of them. "
        "One address (of IPv6: one /64 network) gets seven eighths, bodies above 64 KiB six; if there is too little, the "
        "address that holds most loses its newest body (503) to one that holds less.",
    )
    spool_folder: OptionalPath = setting(
        None,
        "the path of a folder",
        "Where bodies above 1 MiB are kept until they are handled, in files without a name, over NATS in its folder `nats`; a "
        "folder in memory (tmpfs) saves nothing.",
        absent="one beside the stored rounds",
    )
    max_spool_bytes: Count | None = setting(
        None,
        _BYTES,
        "Bytes of such bodies on disk at the same time, over HTTP and NATS together; beyond that, requests are answered with "
        "503 and Retry-After before they are read, and senders over NATS wait. One address, or peer, gets seven eighths, and "
        "its newest body makes room (503) for one of an address that holds less.",
        absent="room for 16 of the largest messages, or 1 GiB",
    )
    max_connections: Count = setting(
        10_000,
        _COUNT,
        "Connections at the same time, as far as the system lets a process have as many; further ones get 503 and are closed, "
        "or the newest one of the address that has most is, if it has more than theirs.",
    )
    max_connections_per_peer: Count | None = setting(
        None,
        _COUNT,
        "The same from one address (of IPv6: from one /64 network).",
        absent="seven eighths of service.max_connections",
    )
    max_connections_per_second: Positive = setting(
        200.0,
        "a number above 0",
        "New connections of one address, on average over ten seconds, while any other address is connected or was in these ten "
        "seconds; beyond that, 503, or with TLS an end before the handshake. One address alone has no such bound, nor have "
        "`service.trusted_proxies`. A handshake takes about a millisecond of the one thread that serves all.",
    )
    header_seconds: Positive = setting(
        10.0,
        _SECONDS,
        "How long the headers of a request may take, and a connection may wait for its first one, or for the end of its TLS "
        "handshake. Request line and headers may have 64 KiB and 128 lines; all above 4 KiB that are kept at the same time "
        "have 16 MiB, of which one address gets seven eighths.",
    )
    max_requests_per_second: Positive = setting(
        1000.0,
        "a number above 0",
        "Requests of one address, on average over ten seconds; beyond that, 429 and Retry-After. Over NATS, offers and "
        "questions of one participant: beyond that, its uploads wait, and its questions are not answered.",
    )
    max_bytes_per_second: Positive | None = setting(
        None,
        "a number of bytes, above 0",
        "Bytes of request bodies of one address, on average over ten seconds; beyond that, its next request gets 429.",
        absent="no bound",
    )
    max_chunk_bytes: Count | None = setting(
        None,
        _BYTES,
        "Bytes of chunks whose messages are not complete, kept in one file without a name; each chunk counts 160 bytes more.",
        absent="room for 64 of the largest messages, or 1 GiB",
    )
    max_participant_chunk_bytes: Count | None = setting(
        None, _BYTES, "The same for one participant.", absent="room for 2 of the largest messages"
    )
    max_chunked_messages: Count = setting(10_000, _COUNT, "Messages in chunks that are not complete.")
    chunk_patience_seconds: NotNegative = setting(
        60.0,
        "a number of seconds, at least 0",
        "An unfinished message in chunks that did not grow by a sixteenth for this long may be evicted for another one that "
        "needs the room.",
    )
    stall_seconds: Positive = setting(
        30.0,
        _SECONDS,
        "How long a body may make no progress before its request is ended: with 408, or with 503 where others wait for the "
        "memory it holds (then a body must advance by a sixteenth of its size in this time); also how long a reader may take "
        "for the next 64 KiB of an answer.",
    )
    allowed_participants: OptionalPath = setting(
        None,
        "the path of a file with a public key on each line",
        "The public keys that may take part, in hexadecimal or base64, `#` begins a comment; messages of others are refused "
        "as `not_admitted`.",
        absent="anybody may take part",
        is_file=True,
    )
    coordinator_key: OptionalPath = setting(
        None,
        "the path of a key file (pet key new)",
        "The key that signs parameters, dictionaries and models, so that participants that were given its public key take them "
        "from nobody else; clients that know no signatures work as before.",
        absent="answers are not signed",
        is_file=True,
    )
    trusted_proxies: Annotated[_Networks | None, BeforeValidator(_split_names)] = setting(
        None,
        'a list of IP addresses and networks such as ["127.0.0.1", "10.0.0.0/8"]',
        "Reverse proxies whose `X-Forwarded-For` says who sent a request; from anybody else it is ignored. The connections of "
        "a proxy still count as its own, but it may begin as many in a second as it likes.",
        absent="there are none",
    )
    model_history: Count = setting(5, "a whole number of global models, at least 1", "How many global models are kept.")


class NatsSection(Section):
    """Section `nats`: a broker over which the coordinator is served too (docs/nats.md)."""

    hosts: SecretText | None = setting(
        None,
        "URLs nats://host:port or tls://host:port, several with commas",
        "The broker; TLS is required beyond this machine.",
        absent="HTTP only",
    )
    federation_id: Annotated[str, Field(pattern=r"^[a-z0-9]{16}$")] = setting(
        "pet0coordinator0", "16 characters a-z and 0-9", "The name by which participants find the coordinator at the broker."
    )
    user: str | None = setting(None, "text, beside nats.password", "Credentials: this and the password, or a token, or a seed.")
    password: SecretText | None = setting(None, "text, beside nats.user", "The password of the user.")
    token: SecretText | None = setting(None, _TEXT, "A token.")
    nkey_seed: SecretText | None = setting(None, "text, SU and 56 more characters", "The seed of an NKEY.")
    ca_file: OptionalPath = setting(
        None,
        "the path of a PEM file",
        "The authority that the broker is certified by.",
        absent="public authorities",
        is_file=True,
    )
    request_timeout: Annotated[Positive, Field(le=3600)] = setting(
        30.0, "a number of seconds, above 0 and at most 3600", "The time for connections and answers."
    )
    stream_max_memory: Annotated[str, BeforeValidator(_number_as_text)] = setting(
        "1G",
        "a number of bytes, with an optional K, M or G; at least 32M",
        "What the broker may store for this coordinator.",
    )
    mode: Annotated[Literal["direct", "stream"], LowerCase] = setting(
        "direct",
        "one of direct, stream",
        "How uploads travel: `direct`, or `stream` through the broker's storage; participants use the same.",
    )

    def to_nats_settings(self) -> NatsSettings | None:
        """Return how to reach the broker, or None without one.

        Raises:
            ConfigError: values contradict each other.
            MissingExtraError: there are hosts, and the extra `nats` is not installed.
        """
        if self.hosts is None:
            return None
        from pet.transports.nats import NatsSettings, parse_size

        return NatsSettings(
            hosts=(self.hosts.reveal(),),
            user=self.user,
            password=self.password,
            token=self.token,
            nkey_seed=self.nkey_seed,
            ca_file=self.ca_file,
            request_timeout_seconds=self.request_timeout,
            stream_max_bytes=parse_size(self.stream_max_memory),
            mode=self.mode,
        )


class LogSettings(Section):
    """Section `log`: what the coordinator writes to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], LowerCase] = setting(
        "info", "one of debug, info, warning, error", "The least important lines that are written.", older=("log_level",)
    )
    format: Annotated[Literal["text", "json"], LowerCase] = setting(
        "text",
        "one of text, json",
        "Text, or JSON: one object a line, with round, phase, reason and counts as values of their own.",
    )
    filter: str | None = setting(None, _TEXT, "xaynet's filter of its own log lines.", is_unused=True)


class RedisSettings(Section):
    """Section `redis`: where rounds are kept, if not in a folder."""

    url: SecretText | None = setting(
        None,
        "redis://[user][:password@]host[:port][/database], or rediss:// for TLS",
        "Rounds are kept in this Redis (extra `redis`); without it in `pet-state/`.",
    )
    require_durable: bool = setting(
        default=False,
        rule=_BOOLEAN,
        help_text="Do not start with a Redis that can lose acknowledged messages (`appendonly` not yes, or `appendfsync` not "
        "always), or does not let us ask (`CONFIG GET`); without this it is warned about.",
    )


class InfluxdbSettings(Section):
    """Section `metrics.influxdb`, unused."""

    url: SecretText | None = setting(None, _TEXT, "xaynet's InfluxDB.", is_unused=True)
    db: str | None = setting(None, _TEXT, "Its database.", is_unused=True)


class MetricsSettings(Section):
    """Section `metrics`: whether `/metrics` answers."""

    prometheus: bool | None = setting(
        None,
        _BOOLEAN,
        "Whether `/metrics` answers in Prometheus' format; needs the extra `metrics`.",
        absent="true where the extra metrics is installed",
    )
    influxdb: InfluxdbSettings = InfluxdbSettings()


class BucketSettings(Section):
    """Section `s3.buckets`."""

    global_models: str = setting("global-models", "the name of a bucket that exists", "Where global models are kept.")


class S3Settings(Section):
    """Section `s3`: where global models are kept, if not in a folder; the region says that they are."""

    access_key: SecretText | None = setting(
        None, "text, beside s3.secret_access_key", "Without it, as AWS' own tools find it: environment, instance."
    )
    secret_access_key: SecretText | None = setting(None, "text, beside s3.access_key", "The secret of the access key.")
    region: Annotated[Annotated[list[str], Field(min_length=1, max_length=2)] | None, BeforeValidator(_split_region)] = setting(
        None,
        'a list such as ["eu-west-1"] or ["name", "http://endpoint"]',
        "Global models are kept in S3, or in what speaks its protocol (extra `s3`); without it in `pet-state/models`.",
    )
    buckets: BucketSettings = BucketSettings()


class RestoreSettings(Section):
    """Section `restore`: whether a coordinator goes on with what is stored."""

    enable: bool | None = setting(
        None,
        _BOOLEAN,
        "True, or absent: go on with the stored round, if there is one. False: forget it at every start, as "
        "`pet coordinator --fresh` does once.",
    )


class SettingsTree(Section):
    """All sections."""

    api: ApiSettings
    pet: PetSettings
    mask: MaskSettings
    model: ModelSettings
    service: ServiceSettings
    nats: NatsSection
    log: LogSettings
    redis: RedisSettings = RedisSettings()
    metrics: MetricsSettings = MetricsSettings()
    s3: S3Settings = S3Settings()
    restore: RestoreSettings = RestoreSettings()


def split_bind_address(text: str) -> tuple[str, int]:
    """Split "IP:port" or "[IPv6]:port" into the address and the port.

    Raises:
        ConfigError: neither form; host names are not looked up (spec 6.1).
    """
    host, _, port = str(text).rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise ConfigError(f"bind address: expected {_BIND_ADDRESS}, got {text!r}") from None
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65_535
    if is_bracketed != (address.version == 6) or not is_port:
        raise ConfigError(f"bind address: expected {_BIND_ADDRESS}, got {text!r}")
    return str(address), int(port)
