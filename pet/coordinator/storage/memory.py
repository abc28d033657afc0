"""A storage that lives as long as this object does: for tests, and for an embedder that builds one engine after another.

Nothing is written to disk. Blobs are copied, as a storage must not keep the message that one is a part of.
"""

from __future__ import annotations

from pet.buffers import Buffer
from pet.coordinator.storage.base import Stored, Transaction, is_next, join, matches
from pet.errors import StateError


class MemoryStorage:
    """`Storage` in memory."""

    def __init__(self) -> None:
        self.description = "in memory"
        self._sequence = 0
        self._state = b""
        self._entries: list[bytes] = []
        self._blobs: dict[str, bytes] = {}

    def load(self) -> Stored | None:
        """Return what is stored."""
        if not self._sequence:
            return None
        return Stored(
            sequence=self._sequence, state=self._state, entries=list(self._entries), blob_names=frozenset(self._blobs)
        )

    def read_blob(self, name: str) -> Buffer:
        """Return the bytes of a blob."""
        if name not in self._blobs:
            raise StateError(f"storage: expected a blob {name!r}, got none")
        return self._blobs[name]

    def commit(self, transaction: Transaction) -> None:
        """Make a change."""
        if not is_next(transaction, self._sequence, self._state):
            return
        if transaction.clears:
            self._entries.clear()
            self._blobs.clear()
        for pattern in transaction.dropped_blobs:
            for name in [name for name in self._blobs if matches(name, pattern)]:
                del self._blobs[name]
        self._blobs.update({name: join(blob) for name, blob in transaction.blobs.items()})
        self._entries += transaction.entries
        self._sequence, self._state = transaction.sequence, transaction.state

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
