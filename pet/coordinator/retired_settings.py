"""Keys of older xaynet configuration files that have no counterpart here, and what replaces them.

Up to spring 2020 xaynet was another system: a coordinator and an aggregator that spoke RPC, before that a Python server that
spoke gRPC. Their files set things that the PET protocol has no place for. Ignoring such a key would run something else than
its author meant, so each is refused by name. Keys that only changed their name are older names of a setting instead.
"""

from __future__ import annotations

from typing import Final

_COUNTS: Final = "pet.sum.count.min and pet.update.count.min"
_SHARES: Final = "pet.sum.prob and pet.update.prob"
_NOTHING: Final = "nothing"
_AGGREGATOR: Final = "nothing (the coordinator aggregates by itself)"
_ROUNDS: Final = "nothing (rounds follow each other until the coordinator is stopped)"

#: A key, or a section for each other key in it -> what replaces it.
_RETIRED: Final[dict[str, str]] = {
    "pet.expected_participants": f"nothing ({_SHARES} say how many of the participants are drawn)",
    "redis.timeout": "nothing (the time-outs for Redis are fixed)",
    # xaynet 0.8: coordinator and aggregator
    "aggregator_url": _AGGREGATOR,
    "rpc": "nothing (participants reach the coordinator at api.bind_address; there is no aggregator)",
    "aggregation": _AGGREGATOR,
    "federated_learning": _NOTHING,
    "federated_learning.rounds": _ROUNDS,
    "federated_learning.participants_ratio": _SHARES,
    "federated_learning.min_clients": _COUNTS,
    "federated_learning.heartbeat_timeout": "pet.sum.time.max, pet.update.time.max and pet.sum2.time.max",
    "metric_store": "metrics.prometheus",
    "logging": "log.level and log.format",
    # Before: a gRPC server in Python
    "server": "api.bind_address",
    "server.grpc_options": "nothing (there is no gRPC)",
    "ai": _NOTHING,
    "ai.rounds": _ROUNDS,
    "ai.epochs": "nothing (how a participant trains is its own affair)",
    "ai.min_participants": _COUNTS,
    "ai.fraction_participants": _SHARES,
    "storage": "s3.region, s3.access_key, s3.secret_access_key and s3.buckets.global_models",
    "storage.endpoint": "s3.region",
    "storage.bucket": "s3.buckets.global_models",
    "storage.access_key_id": "s3.access_key",
    "storage.secret_access_key": "s3.secret_access_key",
    "metrics.enable": "metrics.prometheus",
    "metrics.host": "metrics.prometheus",
    "metrics.port": "metrics.prometheus",
    "metrics.user": "metrics.prometheus",
    "metrics.password": "metrics.prometheus",
    "metrics.db_name": "metrics.prometheus",
}
#: Keys that mean the same where no section says whose they are.
_WITHOUT_SECTION: Final = frozenset(
    {"expected_participants", "participants_ratio", "min_clients", "heartbeat_timeout", "fraction_participants"}
    | {"min_participants", "aggregator_address", "coordinator_address"}
)
_BY_LEAF: Final[dict[str, str]] = {
    leaf: next((instead for name, instead in _RETIRED.items() if name.endswith(f".{leaf}")), _RETIRED["rpc"])
    for leaf in _WITHOUT_SECTION
}


def find_replacement(path: tuple[str, ...]) -> str | None:
    """Return what replaces a key of an older file, in words; None where the key is none of those.

    Case does not matter. A key that is not listed counts as its section does, if that is.
    """
    lower = tuple(part.lower() for part in path)
    for length in range(len(lower), 0, -1):
        replacement = _RETIRED.get(".".join(lower[:length]))
        if replacement is not None:
            return replacement
    return _BY_LEAF.get(lower[-1]) if len(lower) <= 2 else None
