"""The names a setting may have, the value it takes when absent, and the rule it must keep.

Every setting has one full name here, that of xaynet's newest settings tree (spec 6.1), such as `pet.sum.count.min`. Older
names (spec 6.2), with or without their section, lead to the same full name. This file knows names and plain values: no
files, no environment, no models of pydantic.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Final

DEFAULT_BIND_ADDRESS: Final = "127.0.0.1:8081"

_U64_MAX: Final = 2**64 - 1
_LEAST_COUNTS: Final = {"pet.sum.count.min": 1, "pet.update.count.min": 3, "pet.sum2.count.min": 1}
_COUNT: Final = "a whole number, at least {least}"
_MIN_SECONDS: Final = "a number of seconds, at least 0"
_MAX_SECONDS: Final = "a number of seconds, above 0"
_UNUSED_TEXT: Final = "text"

#: Full name of every setting -> what its value must be, in words.
RULES: Final[dict[str, str]] = {
    "api.bind_address": f"IP:port such as {DEFAULT_BIND_ADDRESS} or [::1]:8081, no host name (empty means the former)",
    "api.tls_certificate": "the path of a PEM file, beside api.tls_key",
    "api.tls_key": "the path of a PEM file, beside api.tls_certificate",
    "api.tls_client_auth": "the path of a PEM file, beside api.tls_certificate and api.tls_key",
    "api.live_page": "true or false",
    "pet.sum.prob": "a number above 0 and below 1",
    "pet.update.prob": "a number above 0 and at most 1",
    "pet.sum.count.min": _COUNT.format(least=1),
    "pet.sum.count.max": _COUNT.format(least=1),
    "pet.sum.time.min": _MIN_SECONDS,
    "pet.sum.time.max": _MAX_SECONDS,
    "pet.update.count.min": _COUNT.format(least=3),
    "pet.update.count.max": _COUNT.format(least=3),
    "pet.update.time.min": _MIN_SECONDS,
    "pet.update.time.max": _MAX_SECONDS,
    "pet.sum2.count.min": _COUNT.format(least=1),
    "pet.sum2.count.max": _COUNT.format(least=1),
    "pet.sum2.time.min": _MIN_SECONDS,
    "pet.sum2.time.max": _MAX_SECONDS,
    "mask.group_type": "one of Integer, Prime, Power2",
    "mask.data_type": "one of F32, F64, I32, I64",
    "mask.bound_type": "one of B0, B2, B4, B6, Bmax",
    "mask.model_type": "one of M3, M6, M9, M12",
    "model.length": "a whole number of weights, from 1 to 4294967295",
    "service.workers": "a whole number of threads, at least 1 (absent: one per core)",
    "service.max_bytes_in_flight": "a whole number of bytes, at least 65536",
    "service.spool_folder": "the path of a folder (absent: one beside the stored rounds)",
    "service.max_spool_bytes": "a whole number of bytes, at least 1 (absent: room for 16 of the largest messages, or 1 GiB)",
    "service.max_connections": _COUNT.format(least=1),
    "service.max_connections_per_peer": _COUNT.format(least=1),
    "service.header_seconds": _MAX_SECONDS,
    "service.max_requests_per_second": "a number above 0",
    "service.max_bytes_per_second": "a number of bytes, above 0 (absent: no bound)",
    "service.max_chunk_bytes": "a whole number of bytes, at least 1 (absent: room for 64 of the largest messages, or 1 GiB)",
    "service.max_participant_chunk_bytes": "a whole number of bytes, at least 1 (absent: room for 2 of the largest messages)",
    "service.max_chunked_messages": _COUNT.format(least=1),
    "service.chunk_patience_seconds": _MIN_SECONDS,
    "service.stall_seconds": "a number of seconds, above 0",
    "service.allowed_participants": "the path of a file with a public key on each line (absent: anybody may take part)",
    "service.model_history": "a whole number of global models, at least 1",
    "nats.hosts": "URLs nats://host:port or tls://host:port, several with commas (absent: HTTP only)",
    "nats.federation_id": "16 characters a-z and 0-9",
    "nats.user": "text, beside nats.password",
    "nats.password": "text, beside nats.user",
    "nats.token": "text",
    "nats.nkey_seed": "text, SU and 56 more characters",
    "nats.ca_file": "the path of a PEM file (absent: public authorities)",
    "nats.request_timeout": "a number of seconds, above 0 and at most 3600",
    "nats.stream_max_memory": "a number of bytes, with an optional K, M or G; at least 32M",
    "nats.mode": "one of direct, stream",
    "log.level": "one of debug, info, warning, error",
    "log.format": "one of text, json",
    "log.filter": _UNUSED_TEXT,
    "redis.url": "redis://[user][:password@]host[:port][/database], or rediss:// for TLS",
    "metrics.prometheus": "true or false (absent: true where the extra metrics is installed)",
    "metrics.influxdb.url": _UNUSED_TEXT,
    "metrics.influxdb.db": _UNUSED_TEXT,
    "s3.access_key": "text, beside s3.secret_access_key",
    "s3.secret_access_key": "text, beside s3.access_key",
    "s3.region": 'a list such as ["eu-west-1"] or ["name", "http://endpoint"]',
    "s3.buckets.global_models": "the name of a bucket that exists",
    "restore.enable": "true or false",
}

#: Values that absent settings take: those that xaynet ships (spec 6.1). Absent sum2 settings take the values of sum.
SHIPPED: Final[dict[str, Any]] = {
    "api.bind_address": DEFAULT_BIND_ADDRESS,
    "pet.sum.prob": 0.5,
    "pet.sum.count.min": 1,
    "pet.sum.count.max": 100,
    "pet.sum.time.min": 5,
    "pet.sum.time.max": 3600,
    "pet.update.prob": 0.9,
    "pet.update.count.min": 3,
    "pet.update.count.max": 10_000,
    "pet.update.time.min": 10,
    "pet.update.time.max": 3600,
    "mask.group_type": "Prime",
    "mask.data_type": "F32",
    "mask.bound_type": "B0",
    "mask.model_type": "M3",
    "model.length": 4,
    "service.max_bytes_in_flight": 64 * 2**20,
    "service.max_connections": 10_000,
    "service.max_connections_per_peer": 2000,
    "service.header_seconds": 10.0,
    "service.max_requests_per_second": 1000.0,
    "service.max_chunked_messages": 10_000,
    "service.chunk_patience_seconds": 60.0,
    "service.stall_seconds": 30.0,
    "service.model_history": 5,
    "nats.federation_id": "pet0coordinator0",
    "nats.request_timeout": 30.0,
    "nats.stream_max_memory": "1G",
    "nats.mode": "direct",
    "log.level": "info",
    "log.format": "text",
    "api.live_page": True,
}

#: Accepted so that xaynet's files load; nothing in this release acts on them.
UNUSED: Final = frozenset(name for name in RULES if name == "log.filter" or name.startswith("metrics.influxdb."))

#: Their values are never shown.
SECRET: Final = frozenset(
    {"redis.url", "metrics.influxdb.url", "s3.access_key", "s3.secret_access_key"}
    | {"nats.hosts", "nats.password", "nats.token", "nats.nkey_seed"}  # hosts: a URL may hold a password
)

_SECTIONS: Final = (
    frozenset(name.rpartition(".")[0] for name in RULES) | {name.split(".")[0] for name in RULES} | {"trust_anchor"}
)
_PHASES: Final = ("sum", "update", "sum2")


def _older_names() -> dict[str, str]:
    """Map each name of v0.11 and v0.10, without its section, to the full name."""
    names = {
        f"{limit}_{phase}_{kind}": f"pet.{phase}.{kind}.{limit}"
        for phase in _PHASES
        for kind in ("count", "time")
        for limit in ("min", "max")
    }
    names |= {"sum": "pet.sum.prob", "update": "pet.update.prob", "size": "model.length"}
    for name in RULES:
        section, _, leaf = name.rpartition(".")
        if section in {"api", "mask", "model", "service"}:
            names[leaf] = name
    return names


_OLDER: Final = _older_names()


def find_full_name(path: tuple[str, ...]) -> str | None:
    """Find the setting that a path of sections and a key means, in any of the three versions' spellings.

    Tried in this order: the full name; the full name without its leading `pet`; an older name, alone or in a section.
    Case does not matter.
    """
    lower = tuple(part.lower() for part in path)
    full = ".".join(lower)
    for candidate in (full, f"pet.{full}"):
        if candidate in RULES:
            return candidate
    if len(lower) <= 2:
        return _OLDER.get(lower[-1])
    return None


def is_own_place(path: tuple[str, ...], full_name: str) -> bool:
    """Return whether a key stands where some version of xaynet has it, or in no section at all."""
    lower = tuple(part.lower() for part in path)
    return (
        len(lower) != 2
        or lower[0] == full_name.split(".")[0]
        or ".".join(lower) == full_name
        or f"pet.{'.'.join(lower)}" == full_name
    )


def is_section(path: tuple[str, ...]) -> bool:
    """Return whether a path is a section that holds settings, or the empty `trust_anchor`."""
    return ".".join(path).lower() in _SECTIONS


def nearest_name(path: tuple[str, ...]) -> str | None:
    """Return the known name that an unknown key resembles most, or None if it resembles none."""
    dotted = ".".join(path).lower()
    candidates = [*RULES, *(f"pet.{name}" for name in _OLDER if name.startswith(("min_", "max_"))), *_OLDER]
    matches = difflib.get_close_matches(dotted, candidates, n=1, cutoff=0.6) or difflib.get_close_matches(
        dotted.rpartition(".")[2], list(_OLDER), n=1, cutoff=0.75
    )
    return matches[0] if matches else None


def complete(written: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Give every absent setting its value.

    A limit that nobody wrote never contradicts one that somebody did: the default maximum rises to a written minimum
    above it, and the default minimum sinks to a written maximum below it.

    Args:
        written: full name -> value, unchecked.

    Returns:
        All settings (full name -> value), and for each value that is not written the reason for it, in words.
    """
    values = dict(written)
    reasons: dict[str, str] = {}
    for name, value in SHIPPED.items():
        if name not in values:
            values[name], reasons[name] = value, "default"
    for kind in ("count", "time"):
        for limit in ("min", "max"):
            name = f"pet.sum2.{kind}.{limit}"
            if name not in values:
                reasons[name] = f"as pet.sum.{kind}.{limit}"
        for phase in _PHASES:
            _fit_window(values, reasons, phase, kind)
    if values["api.bind_address"] == "":
        values["api.bind_address"] = DEFAULT_BIND_ADDRESS
        reasons["api.bind_address"] = "default, as the value is empty"
    return values, reasons


def _fit_window(values: dict[str, Any], reasons: dict[str, str], phase: str, kind: str) -> None:
    """Fill one minimum and maximum, moving whichever was not written."""
    least, most = f"pet.{phase}.{kind}.min", f"pet.{phase}.{kind}.max"
    for name in (least, most):
        if name not in values:
            values[name] = values[name.replace("sum2", "sum")]
    low, high = _as_number(values[least]), _as_number(values[most])
    if low is None or high is None or low <= high:
        return
    if most in reasons:
        values[most], reasons[most] = values[least], f"{reasons[most]} ({values[most]}), raised to {least}"
    elif least in reasons and high >= _LEAST_COUNTS.get(least, 0):
        values[least], reasons[least] = values[most], f"{reasons[least]} ({values[least]}), lowered to {most}"


def _as_number(value: Any) -> float | None:
    """Read a value that may still be text; None where it is no number (the models say so later)."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 <= number <= _U64_MAX else None
