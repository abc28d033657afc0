"""The mask vote of a round: every sum participant submits the sum of the masks, and equal ones are counted.

An honest majority is not asked for: the mask with the most votes wins, as in xaynet, and a tie for the first place means that
nobody can say which mask is right. Of all masks only one is kept, so that a hundred different ones of 150 MB cost no more than
a hundred equal ones. This file knows neither who may vote (pet/protocol/intake.py) nor how a mask is taken off.

Source: docs/spec/pet.md 7.1, "Mask choice in Unmask".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pet.crypto import hash_sha256
from pet.errors import UnmaskError
from pet.mask_object import Mask

MASK_DIGEST_BYTES: Final = 32


@dataclass(slots=True)
class MaskVotes:
    """The votes so far, and the mask that leads.

    Every vote brings its mask along. The one mask that will have more votes than any other has them from its last vote on, and
    is kept at that moment at the latest; no later vote can displace it.

    Attributes:
        counts: how many sum participants submitted a mask, by its digest.
        voters: public keys of the sum participants whose mask is counted.
        leader: the first mask that reached the highest count; None before the first vote.
    """

    counts: Counter[bytes] = field(default_factory=Counter)
    voters: set[bytes] = field(default_factory=set)
    leader: Mask | None = None
    _leader_digest: bytes = b""

    def add(self, participant_public_key: bytes, digest: bytes, mask: Mask | None) -> None:
        """Count a vote. The caller has checked that the participant may vote and has not done so.

        Args:
            participant_public_key: whose vote.
            digest: digest of the mask.
            mask: the mask itself; None where votes are counted again and this mask is known not to be kept.
        """
        self.voters.add(participant_public_key)
        self.counts[digest] += 1
        if digest != self._leader_digest and self.counts[digest] > self.counts[self._leader_digest]:
            self.leader, self._leader_digest = mask, digest


def digest_mask(mask: Mask) -> bytes:
    """Return a digest that two masks share only if their serialised objects are equal.

    The parts are hashed one by one, as joining them would copy the mask; what parts there are depends on its type alone.
    """
    return hash_sha256(b"".join(hash_sha256(part) for part in mask.to_parts()))


def choose_by_plurality(votes: MaskVotes) -> Mask:
    """Return the mask with more votes than any other.

    Raises:
        UnmaskError: reasons "no_mask" and "ambiguous_masks".
    """
    if votes.leader is None:
        raise UnmaskError("no_mask", "expected at least one mask, got none")
    highest = max(votes.counts.values())
    leaders = sum(count == highest for count in votes.counts.values())
    if leaders > 1:
        raise UnmaskError(
            "ambiguous_masks",
            f"expected one mask with the most votes, got {leaders} of {len(votes.counts)} masks with {highest} each",
        )
    return votes.leader
