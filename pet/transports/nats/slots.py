"""Slots for uploads: how many may be under way, shared among peers.

One peer may have all but a reserve while nobody else asks; then it loses what it took last to one that has less
(pet/bodies/holders.py). Small uploads have slots of their own, so that large ones do not keep them waiting. An offer that no
chunk follows holds its slot for `SILENT_SECONDS` only; it can still be used afterwards, if there is a slot then. A whole upload
gives its slot back; while it waits for a digest it is counted in a table of its own.

A peer is a name in a subject: only where the broker lets each participant use its own name alone (docs/nats.md) can nobody
have the shares of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pet.bodies.holders import HolderTable, Holding
from pet.bodies.incoming import SMALL_BODY_BYTES

#: How long a slot is held before the first chunk has come. A window of chunks takes 3.4 s over 10 Mbit/s; meanwhile somebody
#: else may use the slot, and is done soon or evicts nobody.
SILENT_SECONDS: Final = 2.0
#: Uploads that are whole and wait for their digest, which follows within a round trip.
_MAX_WITHOUT_DIGEST: Final = 64
#: Offers without a slot that may still be used: each is two subscriptions.
_MAX_SILENT: Final = 64


class Slots:
    """The slots of one receiver; for one event loop.

    Args:
        count: for large uploads, and for small ones besides.
    """

    def __init__(self, count: int) -> None:
        self._large: Final = HolderTable(count)
        self._small: Final = HolderTable(count)
        self._without_digest: Final = HolderTable(_MAX_WITHOUT_DIGEST)
        #: What ends them, the oldest first.
        self._silent: Final[dict[Callable[[], None], None]] = {}

    def take(self, peer: str, size_bytes: int, end: Callable[[], None]) -> Holding | None:
        """Return a slot, if necessary at the expense of a peer that has more; None if there is none.

        Args:
            peer: who sends the upload.
            size_bytes: of the upload.
            end: called when the slot is given to somebody else; must only arrange for the end of the upload.
        """
        self._silent.pop(end, None)
        return self._table(size_bytes).take(peer, 1, end)

    def give_back(self, slot: Holding, size_bytes: int) -> None:
        """Give a slot back; calling it twice does no harm."""
        self._table(size_bytes).release(slot)

    @contextmanager
    def waiting_for_digest(self, peer: str, end: Callable[[], None]) -> Iterator[bool]:
        """Count an upload that is whole, without a slot, until the end of the `with`.

        Args:
            peer: who sends it.
            end: called when its place is given to somebody else; must only arrange for the end of the upload.

        Returns:
            Whether there is a place for it.
        """
        place = self._without_digest.take(peer, 1, end)
        try:
            yield place is not None
        finally:
            if place is not None:
                self._without_digest.release(place)

    def leave_silent(self, end: Callable[[], None]) -> None:
        """Remember an upload that gave its slot back before its first chunk came; of too many the oldest ends."""
        self._silent[end] = None
        if len(self._silent) > _MAX_SILENT:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest()

    def forget(self, end: Callable[[], None]) -> None:
        """Remember an upload no longer, as it has ended."""
        self._silent.pop(end, None)

    def _table(self, size_bytes: int) -> HolderTable:
        return self._small if size_bytes <= SMALL_BODY_BYTES else self._large
