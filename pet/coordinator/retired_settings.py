"""Keys of older xaynet configuration files that have no counterpart here, and what replaces them.

Up to spring 2020 xaynet was another system: a coordinator and an aggregator that spoke RPC, before that a Python server that
spoke gRPC. Their files set things that the PET protocol has no place for. Ignoring such a key would run something else than
its author meant, so each is refused by name. Keys that only changed their name are older names of a setting instead.
"""

from __future__ import annotations

from typing import Final

_COUNTS: Final = "use pet.sum.count.min and pet.update.count.min"
_SHARES: Final = "use pet.sum.prob and pet.update.prob"
_METRICS: Final = "use metrics.prometheus"
_AGGREGATOR: Final = "remove it: the coordinator aggregates by itself"
_ROUNDS: Final = "remove it: rounds follow each other until the coordinator is stopped"
_TRAINING: Final = "remove it: how a participant trains is its own affair"

#: A key, or a section for each other key in it -> what to do, in words.
_RETIRED: Final[dict[str, str]] = {
    "pet.expected_participants": f"remove it, and {_SHARES} for how many of the participants are drawn",
    "redis.timeout": "remove it: the time-outs for Redis are fixed",
    # xaynet 0.8: coordinator and aggregator
    "aggregator_url": _AGGREGATOR,
    "rpc": "use api.bind_address for participants, and nothing for an aggregator: there is none",
    "aggregation": _AGGREGATOR,
    "federated_learning": "use the settings of the section pet",
    "federated_learning.rounds": _ROUNDS,
    "federated_learning.participants_ratio": _SHARES,
    "federated_learning.min_clients": _COUNTS,
    "federated_learning.heartbeat_timeout": "use pet.sum.time.max, pet.update.time.max and pet.sum2.time.max",
    "metric_store": _METRICS,
    "logging": "use log.level and log.format",
    # Before: a gRPC server in Python
    "server": "use api.bind_address",
    "server.grpc_options": "remove it: there is no gRPC",
    "ai": "use the settings of the section pet",
    "ai.rounds": _ROUNDS,
    "ai.epochs": _TRAINING,
    "ai.min_participants": _COUNTS,
    "ai.fraction_participants": _SHARES,
    "storage": "use s3.region, s3.access_key, s3.secret_access_key and s3.buckets.global_models",
    "storage.endpoint": "use s3.region",
    "storage.bucket": "use s3.buckets.global_models",
    "storage.access_key_id": "use s3.access_key",
    "storage.secret_access_key": "use s3.secret_access_key",
    "metrics.enable": _METRICS,
    "metrics.host": _METRICS,
    "metrics.port": _METRICS,
    "metrics.user": _METRICS,
    "metrics.password": _METRICS,
    "metrics.db_name": _METRICS,
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
    """Return what to do about a key of an older file, in words; None where the key is none of those.

    Case does not matter. A key that is not listed counts as its section does, if that is.
    """
    lower = tuple(part.lower() for part in path)
    for length in range(len(lower), 0, -1):
        replacement = _RETIRED.get(".".join(lower[:length]))
        if replacement is not None:
            return replacement
    return _BY_LEAF.get(lower[-1]) if len(lower) <= 2 else None
