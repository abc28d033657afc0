"""One way to refuse what does not hold, with the reason that docs/spec/profile.md names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pet.errors import RemoteProtocolError


def require(holds: bool, reason: str, expected: str) -> None:
    """Refuse what a peer sent unless something holds.

    Args:
        holds: whether it does.
        reason: the short stable identifier of the refusal.
        expected: a sentence for people: what was expected, and what came.

    Raises:
        RemoteProtocolError: it does not.
    """
    if not holds:
        raise RemoteProtocolError(reason, expected)


def is_ascending(values: Sequence[bytes] | Sequence[int]) -> bool:
    """Return whether each value is above the one before."""
    return all(left < right for left, right in itertools.pairwise(values))  # type: ignore[operator]  # all of one type


def split_keys(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces of one size; the last is shorter if they are no whole number of pieces."""
    return [data[start : start + size] for start in range(0, len(data), size)]
