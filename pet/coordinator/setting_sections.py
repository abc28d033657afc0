"""The sections of a coordinator's settings: which values each setting may have, by itself.

Rules between settings are in pet/coordinator/settings.py, names and defaults in pet/coordinator/setting_names.py; this file
knows neither files nor the environment.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

from pet.coordinator.setting_names import RULES
from pet.errors import ConfigError
from pet.mask_config import BoundType, DataType, GroupType, ModelType

if TYPE_CHECKING:
    from pet.transports.nats import NatsSettings

_U64_MAX: Final = 2**64 - 1
_U32_MAX: Final = 2**32 - 1


def _refuse_bool(value: Any) -> Any:
    """TOML's true is no number, though Python would take it for 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "a boolean is not a number")
    return value


def _choice(kind: Callable[[str], Any]) -> BeforeValidator:
    """Accept the names of spec 2.1 in any case: Prime, prime, PRIME."""

    def parse(value: Any) -> Any:
        return kind(value.lower()) if isinstance(value, str) else value

    return BeforeValidator(parse)


def _check_bind_address(value: str) -> str:
    split_bind_address(value)
    return value


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _split_region(value: Any) -> Any:
    """The environment form of a region is "name endpoint" (spec 6.1)."""
    return value.split() if isinstance(value, str) else value


_Whole = Annotated[int, BeforeValidator(_refuse_bool), Field(ge=0, le=_U64_MAX)]
_Count = Annotated[_Whole, Field(ge=1)]
_Number = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
_Path = Annotated[Path, BeforeValidator(lambda value: value or None)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class CountWindow(_Section):
    """How many messages a phase needs, and how many it takes at most (spec 6.3)."""

    min: _Count
    max: _Count


class UpdateCountWindow(_Section):
    """The same for the Update phase, where fewer than three would give a model away."""

    min: Annotated[_Whole, Field(ge=3)]
    max: Annotated[_Whole, Field(ge=3)]


class TimeWindow(_Section):
    """How long a phase lasts at least, and how long it waits for its messages at most, in seconds (spec 6.3)."""

    min: Annotated[_Number, Field(ge=0)]
    max: Annotated[_Number, Field(gt=0)]


class SumSettings(_Section):
    """Selection and windows of the Sum phase."""

    prob: Annotated[_Number, Field(gt=0, lt=1)]
    count: CountWindow
    time: TimeWindow


class UpdateSettings(_Section):
    """Selection and windows of the Update phase."""

    prob: Annotated[_Number, Field(gt=0, le=1)]
    count: UpdateCountWindow
    time: TimeWindow


class Sum2Settings(_Section):
    """Windows of the Sum2 phase."""

    count: CountWindow
    time: TimeWindow


class PetSettings(_Section):
    """Section `pet`: the phases of a round."""

    sum: SumSettings
    update: UpdateSettings
    sum2: Sum2Settings


class MaskSettings(_Section):
    """Section `mask`: the mask config, used for the model and its scalar alike (spec 2.5)."""

    group_type: Annotated[GroupType, _choice(GroupType)]
    data_type: Annotated[DataType, _choice(DataType)]
    bound_type: Annotated[BoundType, _choice(BoundType)]
    model_type: Annotated[ModelType, _choice(ModelType)]


class ModelSettings(_Section):
    """Section `model`: its number of weights, which a message counts in 32 bits."""

    length: Annotated[_Whole, Field(ge=1, le=_U32_MAX)]


class ApiSettings(_Section):
    """Section `api`: where the coordinator listens, its TLS files, and whether it shows a page at `/`."""

    bind_address: Annotated[str, BeforeValidator(_check_bind_address)]
    tls_certificate: _Path | None = None
    tls_key: _Path | None = None
    tls_client_auth: _Path | None = None
    live_page: bool = True


class ServiceSettings(_Section):
    """Section `service`: what xaynet has no settings for.

    Attributes:
        workers: threads that open, check and add messages; None means one per core.
        max_bytes_in_flight: bodies in memory at the same time, in bytes.
        spool_folder: where large bodies wait; None means the system's temporary folder.
        max_spool_bytes: bodies on disk at the same time, in bytes; None means room for sixteen of the largest messages.
        max_connections: connections at the same time.
        max_connections_per_peer: the same from one address.
        header_seconds: the time for the headers of a request.
        max_requests_per_second: of one address, on average over ten seconds.
        max_bytes_per_second: the same for bytes of bodies; None means no bound.
        max_chunk_bytes: chunks of unfinished messages, in bytes; None means room for 64 of the largest messages.
        max_participant_chunk_bytes: the same for one participant; None means room for two.
        max_chunked_messages: unfinished messages in chunks.
        chunk_patience_seconds: one that was idle for this long may be evicted for another one.
        stall_seconds: how long a body may make no progress before its request is given up.
        allowed_participants: file of the public keys that may take part; None lets everybody.
        model_history: how many global models are kept.
    """

    workers: Annotated[_Whole, Field(ge=1, le=1024)] | None = None
    max_bytes_in_flight: Annotated[_Whole, Field(ge=65_536)]
    spool_folder: _Path | None = None
    max_spool_bytes: _Count | None = None
    max_connections: _Count
    max_connections_per_peer: _Count
    header_seconds: Annotated[_Number, Field(gt=0)]
    max_requests_per_second: Annotated[_Number, Field(gt=0)]
    max_bytes_per_second: Annotated[_Number, Field(gt=0)] | None = None
    max_chunk_bytes: _Count | None = None
    max_participant_chunk_bytes: _Count | None = None
    max_chunked_messages: _Count
    chunk_patience_seconds: Annotated[_Number, Field(ge=0)]
    stall_seconds: Annotated[_Number, Field(gt=0)]
    allowed_participants: _Path | None = None
    model_history: _Count


class NatsSection(_Section):
    """Section `nats`: a broker over which the coordinator is served too; see docs/nats.md.

    Attributes:
        hosts: URLs of the broker; None serves over HTTP only.
        federation_id: names the coordinator on the broker.
        mode: how uploads travel.
    """

    hosts: SecretStr | None = None
    federation_id: Annotated[str, Field(pattern=r"^[a-z0-9]{16}$")]
    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    nkey_seed: SecretStr | None = None
    ca_file: _Path | None = None
    request_timeout: Annotated[_Number, Field(gt=0, le=3600)]
    stream_max_memory: Annotated[str, BeforeValidator(_number_as_text)]
    mode: Annotated[Literal["direct", "stream"], BeforeValidator(lambda value: str(value).lower())]

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
            hosts=(self.hosts.get_secret_value(),),
            user=self.user,
            password=_revealed(self.password),
            token=_revealed(self.token),
            nkey_seed=_revealed(self.nkey_seed),
            ca_file=self.ca_file,
            request_timeout_seconds=self.request_timeout,
            stream_max_bytes=parse_size(self.stream_max_memory),
            mode=self.mode,
        )


class LogSettings(_Section):
    """Section `log`: `level` and `format` are ours, `filter` is xaynet's and unused."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lambda value: str(value).lower())]
    format: Annotated[Literal["text", "json"], BeforeValidator(lambda value: str(value).lower())] = "text"
    filter: str | None = None


class RedisSettings(_Section):
    """Section `redis`: where rounds are kept, if not in a folder."""

    url: SecretStr | None = None


class InfluxdbSettings(_Section):
    """Section `metrics.influxdb`, unused."""

    url: str | None = None
    db: str | None = None


class MetricsSettings(_Section):
    """Section `metrics`: whether `/metrics` answers; `influxdb` is xaynet's and unused."""

    prometheus: bool | None = None
    influxdb: InfluxdbSettings = InfluxdbSettings()


class BucketSettings(_Section):
    """Section `s3.buckets`."""

    global_models: str = "global-models"


class S3Settings(_Section):
    """Section `s3`: where global models are kept, if not in a folder; the region says that they are."""

    access_key: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    region: Annotated[Annotated[list[str], Field(min_length=1, max_length=2)] | None, BeforeValidator(_split_region)] = None
    buckets: BucketSettings = BucketSettings()


class RestoreSettings(_Section):
    """Section `restore`: whether a coordinator goes on with what is stored; absent means yes, as far as there is something."""

    enable: bool | None = None


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
        raise ConfigError(f"bind address: expected {RULES['api.bind_address']}, got {text!r}") from None
    is_port = port.isascii() and port.isdecimal() and int(port) <= 65_535
    if is_bracketed != (address.version == 6) or not is_port:
        raise ConfigError(f"bind address: expected {RULES['api.bind_address']}, got {text!r}")
    return str(address), int(port)
