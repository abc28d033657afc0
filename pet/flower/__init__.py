"""Flower: a strategy around yours and a client mod, so that the server learns sums alone.

    from pet.flower import SecureAggregation, pet_mod

    strategy = SecureAggregation(FedAvg(), max_weight=2000)       # in the ServerApp
    app = ClientApp(mods=[pet_mod])                               # in the ClientApp

Rounds are those of profile pet/1 (docs/spec/profile.md), run by its machines; their messages travel inside of Flower's `train`
messages. docs/flower.md says who learns what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pet.errors import MissingExtraError

if TYPE_CHECKING:
    from pet.flower.client_mod import PetMod as PetMod
    from pet.flower.client_mod import pet_mod as pet_mod
    from pet.flower.secure_aggregation import SecureAggregation as SecureAggregation

__all__ = ["PetMod", "SecureAggregation", "pet_mod"]


def __getattr__(name: str) -> Any:
    """Load the side that is asked for: a client needs nothing of the server."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with MissingExtraError.naming("flower"):
        if name == "SecureAggregation":
            from pet.flower import secure_aggregation as module
        else:
            from pet.flower import client_mod as module  # type: ignore[no-redef]
    return getattr(module, name)
