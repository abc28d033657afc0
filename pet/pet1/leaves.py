"""The vector of an update: its digest over leaves, the message that carries the leaf digests, and its arrival leaf by leaf.

Source: docs/spec/profile.md 7.3, 9.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, SupportsIndex

import numpy as np

from pet.buffers import Buffer
from pet.crypto import SEAL_BYTES, SigningKeyPair
from pet.field_config import FieldConfig
from pet.kernels import fields
from pet.kernels.digests import digest_parts
from pet.messages import HEADER_BYTES
from pet.pet1.committee import Committee
from pet.pet1.hashes import DIGEST_BYTES, digest, magic, u64
from pet.pet1.messages import Pet1Tag, read_message, sign_message
from pet.pet1.refusing import require, split_keys
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, header_bytes
from pet.threads import occupy, run_together

#: A leaf and its frame fit the default NATS message, and it is whole elements and whole batches.
LEAF_BYTES: Final = 2**19
#: Leaves of one piece, at most.
MAX_PIECE_LEAVES: Final = 16
SALT_BYTES: Final = 32
#: Leaves whose digests one thread computes at a time: as many as there are lanes, and what a thread is worth waking for.
_DIGESTED_TOGETHER: Final = 16


def leaf_count(vector_bytes: int) -> int:
    """Return how many leaves a vector has."""
    return -(-vector_bytes // LEAF_BYTES)


def derive_leaf_digest(leaf: Buffer, index: int, vector_bytes: int, context: bytes) -> bytes:
    """Return the digest of a leaf: no leaf can stand for another one, of this update or any."""
    state = hashlib.sha256(_leaf_head(index, vector_bytes, context))
    state.update(leaf)
    return state.digest()


def _leaf_head(index: int, vector_bytes: int, context: bytes) -> bytes:
    return magic("pet-1 leaf") + u64(index) + u64(vector_bytes) + context


def derive_leaf_digests(vector: Buffer, context: bytes, threads: SupportsIndex | None = None) -> list[bytes]:
    """Return the digests of all leaves of a packed vector; nothing can be sent before the last of them is known.

    Args:
        vector: packed elements.
        context: of the update.
        threads: as everywhere (pet/threads.py).

    Raises:
        ConfigError: as `pet.threads.resolve_threads`.
    """
    view = memoryview(vector).cast("B")
    heads = [_leaf_head(index, len(view), context) for index in range(leaf_count(len(view)))]
    starts = range(0, len(heads), _DIGESTED_TOGETHER)
    digests = dict[int, list[bytes]]()
    remaining = iter(starts)

    def work() -> None:
        for start in remaining:
            end = start + _DIGESTED_TOGETHER
            digests[start] = digest_parts(heads[start:end], view[start * LEAF_BYTES : end * LEAF_BYTES], LEAF_BYTES)

    with occupy(threads, max(1, len(starts))) as count:
        run_together(work, count)
    return [digest for start in starts for digest in digests[start]]


def derive_vector_digest(leaf_digests: Sequence[bytes], vector_bytes: int, salt: bytes) -> bytes:
    """Return the digest that the share header has; keyed, so that nobody can test guesses of a vector."""
    return digest("pet-1 vector", u64(vector_bytes), *leaf_digests, key=salt)


def check_elements(packed: Buffer, config: FieldConfig) -> None:
    """Refuse packed elements that are not below the order.

    Raises:
        RemoteProtocolError: "invalid_element".
    """
    elements = np.frombuffer(packed, dtype=np.uint8).reshape(-1, config.element_bytes)
    place = fields.find_above(elements, config.order - 1, config.order)
    require(place is None, "invalid_element", f"vector: expected elements below {config.order}, got another at {place}")


def sealed_update_bytes(committee: Committee) -> int:
    """Return the size of the sealed part of an update: known before its first byte comes."""
    return SEAL_BYTES + HEADER_BYTES + _payload_bytes(committee)


def _payload_bytes(committee: Committee) -> int:
    return header_bytes(committee) + SALT_BYTES + DIGEST_BYTES * leaf_count(committee.record.vector_bytes)


def build_update(
    key: SigningKeyPair, committee: Committee, header: ShareHeader, salt: bytes, leaf_digests: Sequence[bytes]
) -> bytes:
    """Return the signed Update message, which is sealed before it is sent; the vector follows it in clear."""
    payload = b"".join([header.data, salt, *leaf_digests])
    return sign_message(key, committee.record.coordinator_key, Pet1Tag.UPDATE, payload)


def read_update(message: Buffer, committee: Committee) -> tuple[ShareHeader, list[bytes]]:
    """Read an opened Update message: all that is checked before a byte of the vector is taken.

    Returns:
        The share header, and the leaf digests.

    Raises:
        RemoteProtocolError: as `read_message` and `ShareHeader.from_bytes`; "length_mismatch", "wrong_participant",
            "wrong_vector".
    """
    sender, payload = read_message(message, committee.record.coordinator_key, Pet1Tag.UPDATE)
    size = _payload_bytes(committee)
    require(len(payload) == size, "length_mismatch", f"update payload: expected {size} bytes, got {len(payload)}")
    end = header_bytes(committee)
    header = ShareHeader.from_bytes(payload[:end], committee)
    is_own = header.participant == sender
    require(is_own, "wrong_participant", "update: expected the share header of its sender, got another participant's")
    salt, leaf_digests = payload[end : end + SALT_BYTES], split_keys(payload[end + SALT_BYTES :], DIGEST_BYTES)
    of_digests = derive_vector_digest(leaf_digests, committee.record.vector_bytes, salt)
    is_bound = of_digests == header.vector_digest
    require(is_bound, "wrong_vector", "update: expected leaf digests of the vector that its header names, got others")
    return header, leaf_digests


@dataclass(slots=True, kw_only=True)
class Upload:
    """Which leaves of a vector have come; they may come in any order, twice, and from anybody.

    It keeps no leaf: `check_piece` judges one, `note_kept` notes that its owner has it, and `mark` that it has it durably.

    Attributes:
        record: of the round.
        context: of the update.
        leaf_digests: of all leaves.
        have: for each leaf whether it is there.
        kept: numbers of leaves that are right, and will be there once they are durable.
    """

    record: RoundRecord
    context: bytes
    leaf_digests: Sequence[bytes] = field(repr=False)
    have: list[bool] = field(init=False, repr=False)
    kept: set[int] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        self.have = [False] * len(self.leaf_digests)

    def check_piece(self, first: int, data: Buffer) -> list[memoryview]:
        """Check the extent of a piece: 1 to 16 whole leaves, of which only the vector's last may be shorter.

        Returns:
            Its leaves, views of the data.

        Raises:
            RemoteProtocolError: "length_mismatch".
        """
        view, start, end = memoryview(data).cast("B"), first * LEAF_BYTES, self.record.vector_bytes
        is_within = 0 < len(view) <= MAX_PIECE_LEAVES * LEAF_BYTES and start + len(view) <= end
        is_whole = len(view) % LEAF_BYTES == 0 or start + len(view) == end
        require(
            is_within and is_whole,
            "length_mismatch",
            f"piece: expected 1 to {MAX_PIECE_LEAVES} whole leaves of a vector of {end} bytes, got {len(view)} from {start}",
        )
        return [view[place : place + LEAF_BYTES] for place in range(0, len(view), LEAF_BYTES)]

    def check_leaf(self, index: int, leaf: Buffer) -> None:
        """Check a leaf of `check_piece` by its digest, then its elements.

        Raises:
            RemoteProtocolError: "wrong_leaf": it and the rest of its piece are dropped, and nothing else; "invalid_element":
                the update is closed for good, as its participant signed this leaf.
        """
        found = derive_leaf_digest(leaf, index, self.record.vector_bytes, self.context)
        require(
            found == self.leaf_digests[index], "wrong_leaf", f"leaf {index}: expected the digest that was signed, got another"
        )
        check_elements(leaf, self.record.config)

    def note_kept(self, index: int) -> None:
        """Note that a leaf was written, and is not durable yet."""
        self.kept.add(index)

    def mark(self, index: int) -> None:
        """Note that a leaf is there."""
        self.have[index] = True
        self.kept.discard(index)

    @property
    def is_complete(self) -> bool:
        """Whether all leaves are there."""
        return all(self.have)

    @property
    def bitmap(self) -> bytes:
        """Bit i % 8 of byte i // 8 is set if leaf i is there."""
        return np.packbits(self.have, bitorder="little").tobytes()
