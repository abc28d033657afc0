"""The interface between a coordinator and whatever keeps its state.

A storage holds one *state* (a small record), a *journal* (small entries in order) and *blobs* (named, of any size). All of them
change together, in `commit`, and nowhere else: that is the one durable write there is. When it returns, the change survives the
process and a loss of power; when it does not, all of the change happened or nothing of it. A storage looks into none of the
bytes; what they mean, and whether they are damaged, is pet/coordinator/journal.py's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from pet.bodies.body import SealedBody
from pet.buffers import Buffer
from pet.errors import StateError
from pet.secret import hidden

#: What is to be stored under a name: buffers in order, or a body, which may lie in a file that only has to be kept.
Blob: TypeAlias = Sequence[Buffer] | SealedBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One change of everything that is stored, all of it or nothing.

    In this order: the journal and all blobs are dropped if `clears` says so, then the blobs named in `dropped_blobs` (those
    that do not exist are no error); then state, entries and blobs are written.

    Attributes:
        sequence: number of this change, one more than that of the change before; the first is 1.
        state: replaces the state; no two writers ever write the same.
        clears: begins with an empty journal and without blobs.
        entries: appended to the journal.
        blobs: written, in place of those of the same name.
        dropped_blobs: names of blobs that are no longer needed; a name can end with "*" and stands for all that begin so.
    """

    sequence: int
    state: bytes = hidden()
    clears: bool = False
    entries: Sequence[bytes] = hidden(default=())
    blobs: Mapping[str, Blob] = hidden(default_factory=dict)
    dropped_blobs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What a storage holds; blobs are read one by one.

    Attributes:
        sequence: number of the last change.
        state: the state.
        entries: the journal, in order.
        blob_names: the names of all blobs.
    """

    sequence: int
    state: bytes = hidden()
    entries: Sequence[bytes] = hidden()
    blob_names: frozenset[str]


class Storage(Protocol):
    """What a coordinator asks of a storage. Calls come one at a time, from any thread.

    Attributes:
        description: what and where it is, for people; without secrets.
    """

    description: str

    def load(self) -> Stored | None:
        """Return what is stored; None if nothing ever was.

        Raises:
            StateError: there is something that no coordinator has written, or of another version.
            StorageError: it cannot be reached.
        """
        ...

    def read_blob(self, name: str) -> Buffer:
        """Return the bytes of a blob.

        Raises:
            StateError: there is no such blob.
            StorageError: it cannot be reached.
        """
        ...

    def commit(self, transaction: Transaction) -> None:
        """Make a change durable.

        A change that was made already, as its sequence tells, is not made again, so that a caller that cannot know whether a
        commit succeeded may repeat it.

        Raises:
            StorageError: the change was not made, or it is not known whether it was; the same transaction may be tried again.
            StateError: what is stored is not what this change is for: somebody else has written, or the storage has lost data.
        """
        ...

    def close(self) -> None:
        """Close files and connections. Calling it twice does no harm; no other call may follow."""
        ...


def is_next(transaction: Transaction, sequence: int, state: bytes) -> bool:
    """Return whether a change is still to be made, given the number of the last one and the state that it wrote.

    Raises:
        StateError: it is neither the next one nor the last one.
    """
    if transaction.sequence == sequence + 1:
        return True
    if transaction.sequence == sequence and transaction.state == state:
        return False
    raise StateError(
        f"storage: expected change {transaction.sequence - 1} to be the last, got {sequence}: another coordinator uses this "
        "storage, or it has lost data"
    )


def matches(name: str, pattern: str) -> bool:
    """Return whether a pattern of `Transaction.dropped_blobs` stands for a name."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def size_of(blob: Blob) -> int:
    """Return how many bytes a blob has."""
    return sum(map(len, blob)) if isinstance(blob, Sequence) else blob.size_bytes


def join(blob: Blob) -> bytes:
    """Return the bytes of a blob."""
    if isinstance(blob, Sequence):
        return b"".join(blob)
    with blob.open() as buffer:
        return bytes(buffer)
