"""The interface between an engine and whatever keeps its records.

Two records exist: the last round that was begun (round ids and round seeds continue from it, spec 1.5) and the last global
model (it is served until the next one). A round in progress is not resumed (spec 7.2). An implementation knows no phase and
no message, and may be slow: it is called between messages, never while a body is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pet.transports.base import PublishedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """A round that was begun.

    Attributes:
        round_id: its number.
        seed: its round seed, 32 bytes; public.
    """

    round_id: int
    seed: bytes


class Storage(Protocol):
    """What an engine asks of a storage. Calls come one at a time, from any thread."""

    def save_round(self, record: RoundRecord) -> None:
        """Remember the round that begins now; earlier ones may be forgotten."""
        ...

    def load_round(self) -> RoundRecord | None:
        """Return the last round that was saved, or None."""
        ...

    def save_model(self, model: PublishedModel) -> None:
        """Remember the global model that is published now; earlier ones may be forgotten."""
        ...

    def load_model(self) -> PublishedModel | None:
        """Return the last model that was saved, or None."""
        ...
