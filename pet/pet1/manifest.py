"""The manifest: all updates of a round, as its coordinator lists them, and members sign them.

Source: docs/spec/profile.md 10.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES
from pet.pet1.committee import Committee
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES, digest, magic, u32
from pet.pet1.refusing import is_ascending, require, split_keys
from pet.pet1.share_header import ShareHeader

NAME: Final = "pet-1 manifest"
_HEAD_BYTES: Final = MAGIC_BYTES + DIGEST_BYTES + 4
_ENTRY_BYTES: Final = PUBLIC_KEY_BYTES + DIGEST_BYTES
_MALFORMED: Final = "malformed_manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateManifest:
    """The list of a round's updates.

    Attributes:
        committee_digest: whose round it is.
        headers: the share header of each update, by participant, ascending.
    """

    committee_digest: bytes
    headers: Mapping[bytes, ShareHeader] = field(repr=False)

    @classmethod
    def of(cls, committee: Committee, headers: Iterable[ShareHeader]) -> UpdateManifest:
        """List updates: all that were accepted, and nothing else (K2)."""
        by_key = {header.participant: header for header in headers}
        return cls(committee_digest=committee.digest, headers=dict(sorted(by_key.items())))

    @classmethod
    def from_bytes(cls, data: Buffer, committee: Committee, headers: Mapping[bytes, ShareHeader]) -> UpdateManifest:
        """Read a manifest.

        Args:
            data: its bytes.
            committee: of the round.
            headers: by participant, those that were served and passed S1 to S7.

        Raises:
            RemoteProtocolError: "malformed_manifest", "wrong_committee", "manifest_order", "too_few_updates",
                "too_many_updates", "unknown_update".
        """
        listed = {}
        for key, named in read_list(data, committee).items():
            header = headers.get(key)
            is_served = header is not None and header.digest == named
            require(is_served, "unknown_update", "manifest: expected updates whose headers were served, got another one")
            listed[key] = headers[key]
        return cls(committee_digest=committee.digest, headers=listed)

    def to_bytes(self) -> bytes:
        """Return the bytes that the root covers."""
        entries = (key + header.digest for key, header in self.headers.items())
        return b"".join([magic(NAME), self.committee_digest, u32(len(self.headers)), *entries])

    @property
    def root(self) -> bytes:
        """What members sign."""
        return digest(NAME, self.to_bytes())


def read_list(data: Buffer, committee: Committee) -> dict[bytes, bytes]:
    """Read the list itself, without the headers that it names.

    Returns:
        Header digests by participant, ascending.

    Raises:
        RemoteProtocolError: "malformed_manifest", "wrong_committee", "manifest_order", "too_few_updates", "too_many_updates".
    """
    data = bytes(data)
    is_begun = len(data) >= _HEAD_BYTES and data.startswith(magic(NAME))
    require(is_begun, _MALFORMED, f"manifest: expected {_HEAD_BYTES} or more bytes with its name, got {len(data)}")
    named = data[MAGIC_BYTES : MAGIC_BYTES + DIGEST_BYTES]
    require(named == committee.digest, "wrong_committee", "manifest: expected this round's committee, got another")
    count = int.from_bytes(data[_HEAD_BYTES - 4 : _HEAD_BYTES], "little")
    size = _HEAD_BYTES + _ENTRY_BYTES * count
    require(len(data) == size, _MALFORMED, f"manifest: expected {size} bytes for {count} updates, got {len(data)}")
    entries = split_keys(data[_HEAD_BYTES:], _ENTRY_BYTES)
    keys = [entry[:PUBLIC_KEY_BYTES] for entry in entries]
    require(is_ascending(keys), "manifest_order", "manifest: expected keys that ascend strictly, got others")
    least, most = committee.min_updates, committee.record.config.max_model_count
    require(count >= least, "too_few_updates", f"manifest: expected {least} or more updates, got {count}")
    require(count <= most, "too_many_updates", f"manifest: expected at most {most} updates, got {count}")
    return {entry[:PUBLIC_KEY_BYTES]: entry[PUBLIC_KEY_BYTES:] for entry in entries}
