"""Where leaves of updates are until the model is out.

A coordinator only puts and gets. What may be forgotten follows from its state, and only once that state is durable: who is
killed between the end of a round and the write of its result goes on from the state before, and adds the same leaves again.

Source: docs/spec/profile.md 7.3, 14.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol


class LeafStore(Protocol):
    """Keeps leaves by the header digest of their update and their number; what it holds outlives the process.

    What is put is durable once `sync` has returned. Any thread may call this, several at a time. A store that cannot be used
    raises StorageError.
    """

    def put(self, upload: bytes, index: int, leaf: memoryview) -> None:
        """Keep a leaf."""

    def sync(self, upload: bytes) -> None:
        """Make durable what was put of an upload: one call for many leaves takes little longer than for one."""

    def get(self, upload: bytes, index: int) -> bytes:
        """Return a leaf that was put.

        Raises:
            StateError: it is damaged.
        """

    def held(self, upload: bytes) -> Collection[int]:
        """Return the numbers of the leaves of an upload that are there."""

    def uploads(self) -> Collection[bytes]:
        """Return the header digests of all uploads of which leaves are there."""

    def drop(self, upload: bytes) -> None:
        """Forget all leaves of an upload."""


@dataclass(slots=True)
class MemoryLeafStore:
    """Leaves in memory, which do not outlive the process.

    Attributes:
        leaves: by header digest and number.
    """

    leaves: dict[bytes, dict[int, bytes]] = field(default_factory=dict, repr=False)

    def put(self, upload: bytes, index: int, leaf: memoryview) -> None:
        """Keep a leaf of an upload."""
        self.leaves.setdefault(upload, {})[index] = bytes(leaf)

    def sync(self, upload: bytes) -> None:
        """Do nothing: there is no disk."""

    def get(self, upload: bytes, index: int) -> bytes:
        """Return a leaf that was put."""
        return self.leaves[upload][index]

    def held(self, upload: bytes) -> Collection[int]:
        """Return the numbers of the leaves of an upload that are there."""
        return tuple(self.leaves.get(upload, ()))

    def uploads(self) -> Collection[bytes]:
        """Return the header digests of all uploads of which leaves are there."""
        return tuple(self.leaves)

    def drop(self, upload: bytes) -> None:
        """Forget all leaves of an upload."""
        self.leaves.pop(upload, None)
