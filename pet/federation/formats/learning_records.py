"""Units of rows as requests name them and stores remember them: pieces, requests that were carried out, unfinished ones.

Records only; what is done with them is in learning.py.

Source: docs/spec/federation.md 9.3.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final

from pet.errors import FederationValueError

#: Different tables of one project whose digests are kept: about 100 bytes each.
MAX_LEARNED_TABLES: Final = 100_000
#: Requests of one project that can be repeated without being carried out again; the oldest are forgotten.
MAX_REQUESTS: Final = 10_000
MAX_PIECES: Final = 1_000_000
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")


class Change(enum.StrEnum):
    """What a unit is for."""

    LEARN = "learn"
    FORGET = "forget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Which part of which unit some rows are.

    Attributes:
        request: id of the request, drawn by its sender: 16 to 64 letters, digits, "_", "-". A repeated one counts once.
        change: what the unit is for.
        number: of the piece, from 0.
        is_last: whether the unit is complete with it.
        again: learn the table even if it was learned already, or forget it even if it was forgotten.

    Raises:
        FederationValueError: names the key that breaks a rule.
    """

    request: str
    change: Change = Change.LEARN
    number: int = 0
    is_last: bool = True
    again: bool = False

    def __post_init__(self) -> None:
        if not _REQUEST_ID.fullmatch(self.request):
            raise FederationValueError("request: expected 16 to 64 letters, digits, '_' and '-'", key="request")
        if not 0 <= self.number < MAX_PIECES:
            raise FederationValueError(f"piece: expected a number from 0 to {MAX_PIECES - 1}", key="piece")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The outcome of a piece.

    Attributes:
        rows: of the whole unit where it is done, else those so far.
        is_done: whether the unit was learned or forgotten.
    """

    rows: int
    is_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DoneRequest:
    """A request that was carried out, as it is remembered.

    Attributes:
        request: its id.
        change: what it did.
        first: digest after its first piece.
        digest: digest of all its rows.
        pieces: how many it had.
        rows: how many.
    """

    request: str
    change: Change
    first: bytes
    digest: bytes
    pieces: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUnit:
    """An unfinished unit, as it is shown."""

    request: str
    change: Change
    pieces: int
    rows: int
    idle_seconds: float
