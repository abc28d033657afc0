"""The dictionaries of a round: who sums, and the mask seeds encrypted for each of them.

Two codecs with two purposes. The *local* seed dictionary is the part of an update message that holds the sender's mask seed
once per sum participant. The sum dictionary and the seed dictionary are what the coordinator publishes, in bincode. Order of
entries never matters. What an encrypted seed contains, this file must not know.

Source: docs/spec/pet.md 4.6, 5.4, 5.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SEAL_BYTES
from pet.errors import CryptoError, RemoteProtocolError
from pet.mask_object import MASK_SEED_BYTES

#: Public signing keys of the sum participants, and the ephemeral public key of each.
SumDictionary: TypeAlias = dict[bytes, bytes]
#: The seeds for one sum participant: public signing keys of the update participants, and the encrypted mask seed of each.
SeedDictionary: TypeAlias = dict[bytes, bytes]
#: The seeds of one update: public signing keys of the sum participants, and the mask seed encrypted for each.
LocalSeedDictionary: TypeAlias = Mapping[bytes, bytes]

ENCRYPTED_SEED_BYTES: Final[int] = SEAL_BYTES + MASK_SEED_BYTES
LENGTH_FIELD_BYTES: Final = 4
_COUNT_BYTES: Final = 8
_SEED_LAYOUT: Final = struct.Struct(f"<Q{PUBLIC_KEY_BYTES}sQ{ENCRYPTED_SEED_BYTES}s")
#: Entries that are kept together: 64 KiB, of which the last one wastes an eighth at most.
_BLOCK_ENTRIES: Final = 512


class EncodedSeeds(Mapping[bytes, bytes]):
    """A seed dictionary that only grows, in the bytes in which it is published: 128 for an entry, and no object of its own.

    One thread adds; any thread may read once nothing is added any longer.
    """

    def __init__(self) -> None:
        #: Entries one behind the other; all blocks but the last one are full. Empty once `_whole` is there.
        self._blocks: list[bytearray | bytes] = []
        self._count = 0
        self._whole: bytes | None = None

    def add(self, public_key: bytes, encrypted_seed: Buffer) -> None:
        """Add the entry of an update participant that has none yet.

        Args:
            public_key: of 32 bytes.
            encrypted_seed: of 80 bytes.
        """
        if self._whole is not None:
            self._blocks, self._whole = [self._whole[_COUNT_BYTES:]], None
        if self._count % _BLOCK_ENTRIES == 0:
            if self._blocks:
                self._blocks[-1] = bytes(self._blocks[-1])  # without the room that it kept to grow
            self._blocks.append(bytearray())
        elif isinstance(self._blocks[-1], bytes):
            self._blocks[-1] = bytearray(self._blocks[-1])
        entry = _SEED_LAYOUT.pack(PUBLIC_KEY_BYTES, public_key, ENCRYPTED_SEED_BYTES, bytes(encrypted_seed))
        self._blocks[-1] += entry
        self._count += 1

    def to_bytes(self) -> bytes:
        """Return the dictionary as the coordinator publishes it (spec 5.5): the same object every time."""
        blocks, whole = self._blocks, self._whole  # in this order: another thread may be putting them together
        if whole is None:
            whole = self._whole = b"".join([self._count.to_bytes(_COUNT_BYTES, "little"), *blocks])
            self._blocks = []
        return whole

    def __len__(self) -> int:
        """Return the number of entries."""
        return self._count

    def __iter__(self) -> Iterator[bytes]:
        """Yield the public keys."""
        return (key for key, _ in self._entries())

    def __getitem__(self, public_key: bytes) -> bytes:
        """Return an encrypted seed; looks at one entry after the other."""
        for key, seed in self._entries():
            if key == public_key:
                return seed
        raise KeyError(public_key)

    def _entries(self) -> Iterator[tuple[bytes, bytes]]:
        blocks, whole = self._blocks, self._whole
        for block in blocks if whole is None else [memoryview(whole)[_COUNT_BYTES:]]:
            for _, key, _, seed in _SEED_LAYOUT.iter_unpack(block):
                yield key, seed


def local_seed_dictionary_bytes(entry_count: int, encrypted_seed_bytes: int = ENCRYPTED_SEED_BYTES) -> int:
    """Return the size on the wire of a local seed dictionary, its length field included."""
    return LENGTH_FIELD_BYTES + entry_count * (PUBLIC_KEY_BYTES + encrypted_seed_bytes)


def encode_local_seed_dictionary(dictionary: LocalSeedDictionary, encrypted_seed_bytes: int = ENCRYPTED_SEED_BYTES) -> bytes:
    """Serialise the seeds of one update (spec 4.6).

    Raises:
        CryptoError: a key or an encrypted seed has another size than its kind.
    """
    _require_entry_sizes("local seed dictionary", dictionary, encrypted_seed_bytes)
    length = local_seed_dictionary_bytes(len(dictionary), encrypted_seed_bytes)
    return b"".join([length.to_bytes(LENGTH_FIELD_BYTES, "big"), *_flatten(dictionary.items())])


def decode_local_seed_dictionary(data: Buffer, encrypted_seed_bytes: int = ENCRYPTED_SEED_BYTES) -> tuple[SeedDictionary, int]:
    """Read the seeds of one update from the start of a buffer (spec 4.6).

    Returns:
        The dictionary, and how many bytes it took.

    Raises:
        RemoteProtocolError: "malformed_seed_dictionary" (the length field says less than its own size, more than there is, or
            no whole number of entries), "duplicate_key".
    """
    what = "local seed dictionary"
    if len(data) < LENGTH_FIELD_BYTES:
        raise RemoteProtocolError(
            "malformed_seed_dictionary", f"{what}: expected a length field of {LENGTH_FIELD_BYTES} bytes, got {len(data)}"
        )
    length = int.from_bytes(data[:LENGTH_FIELD_BYTES], "big")
    if not LENGTH_FIELD_BYTES <= length <= len(data):
        raise RemoteProtocolError(
            "malformed_seed_dictionary",
            f"{what}: its length field says {length} bytes, expected {LENGTH_FIELD_BYTES} to {len(data)}",
        )
    entry_bytes = PUBLIC_KEY_BYTES + encrypted_seed_bytes
    count, rest = divmod(length - LENGTH_FIELD_BYTES, entry_bytes)
    if rest:
        raise RemoteProtocolError(
            "malformed_seed_dictionary", f"{what}: {rest} bytes are left over after {count} entries of {entry_bytes} bytes"
        )
    entries = struct.iter_unpack(f"{PUBLIC_KEY_BYTES}s{encrypted_seed_bytes}s", data[LENGTH_FIELD_BYTES:length])
    return _without_duplicates(what, dict(entries), count), length


def encode_sum_dictionary(dictionary: Mapping[bytes, bytes]) -> bytes:
    """Serialise the sum dictionary as the coordinator publishes it: bincode, 8 + 80 bytes per entry (spec 5.4).

    Raises:
        CryptoError: a key is not of 32 bytes.
    """
    return _encode_bincode("sum dictionary", dictionary, PUBLIC_KEY_BYTES)


def decode_sum_dictionary(data: Buffer) -> SumDictionary:
    """Read a published sum dictionary (spec 5.4).

    Raises:
        RemoteProtocolError: "malformed_sums", "trailing_bytes" or "duplicate_key".
    """
    return _decode_bincode("sum dictionary", "malformed_sums", data, PUBLIC_KEY_BYTES)


def encode_seed_dictionary(dictionary: Mapping[bytes, bytes], encrypted_seed_bytes: int = ENCRYPTED_SEED_BYTES) -> bytes:
    """Serialise the seeds for one sum participant as the coordinator publishes them: bincode (spec 5.5).

    Raises:
        CryptoError: a key or an encrypted seed has another size than its kind.
    """
    return _encode_bincode("seed dictionary", dictionary, encrypted_seed_bytes)


def decode_seed_dictionary(data: Buffer, encrypted_seed_bytes: int = ENCRYPTED_SEED_BYTES) -> SeedDictionary:
    """Read the published seeds for one sum participant (spec 5.5).

    Raises:
        RemoteProtocolError: "malformed_seeds", "trailing_bytes" or "duplicate_key".
    """
    return _decode_bincode("seed dictionary", "malformed_seeds", data, encrypted_seed_bytes)


def _encode_bincode(what: str, dictionary: Mapping[bytes, bytes], value_bytes: int) -> bytes:
    _require_entry_sizes(what, dictionary, value_bytes)
    layout = struct.Struct(f"<Q{PUBLIC_KEY_BYTES}sQ{value_bytes}s")
    entries = [layout.pack(PUBLIC_KEY_BYTES, key, value_bytes, value) for key, value in dictionary.items()]
    return b"".join([len(dictionary).to_bytes(_COUNT_BYTES, "little"), *entries])


def _decode_bincode(what: str, reason: str, data: Buffer, value_bytes: int) -> dict[bytes, bytes]:
    layout = struct.Struct(f"<Q{PUBLIC_KEY_BYTES}sQ{value_bytes}s")
    if len(data) < _COUNT_BYTES:
        raise RemoteProtocolError(reason, f"{what}: expected a count of {_COUNT_BYTES} bytes, got {len(data)}")
    count = int.from_bytes(data[:_COUNT_BYTES], "little")
    surplus = len(data) - _COUNT_BYTES - count * layout.size
    if surplus < 0:
        raise RemoteProtocolError(reason, f"{what}: {count} entries need {-surplus} bytes more than the {len(data)} that came")
    if surplus > 0:
        raise RemoteProtocolError("trailing_bytes", f"{what}: {surplus} bytes follow its {count} entries")
    result = {}
    for key_size, key, value_size, value in layout.iter_unpack(data[_COUNT_BYTES:]):
        if (key_size, value_size) != (PUBLIC_KEY_BYTES, value_bytes):
            raise RemoteProtocolError(
                reason, f"{what}: expected sizes of {PUBLIC_KEY_BYTES} and {value_bytes} bytes, got {key_size} and {value_size}"
            )
        result[key] = value
    return _without_duplicates(what, result, count)


def _without_duplicates(what: str, dictionary: dict[bytes, bytes], count: int) -> dict[bytes, bytes]:
    if len(dictionary) != count:
        raise RemoteProtocolError("duplicate_key", f"{what}: its {count} entries have {len(dictionary)} different keys")
    return dictionary


def _require_entry_sizes(what: str, dictionary: Mapping[bytes, bytes], value_bytes: int) -> None:
    for key, value in dictionary.items():
        if len(key) != PUBLIC_KEY_BYTES or len(value) != value_bytes:
            raise CryptoError(
                f"{what}: expected entries of {PUBLIC_KEY_BYTES} and {value_bytes} bytes, got {len(key)} and {len(value)}"
            )


def _flatten(pairs: Iterable[tuple[bytes, bytes]]) -> Iterable[bytes]:
    for key, value in pairs:
        yield key
        yield value
