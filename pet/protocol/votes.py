"""The mask vote of a round: every sum participant submits the sum of the masks, and equal ones are counted.

An honest majority is not asked for: the mask with the most votes wins, as in xaynet, and a tie for the first place means that
nobody can say which mask is right. This file knows neither who may vote (pet/protocol/intake.py) nor how a mask is taken off.

Source: spec/PET.md 7.1, "Mask choice in Unmask".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pet.crypto import hash_sha256
from pet.errors import UnmaskError
from pet.mask_object import Mask


@dataclass(slots=True)
class Candidate:
    """A mask, and how many sum participants submitted exactly it."""

    mask: Mask
    count: int


@dataclass(slots=True)
class MaskVotes:
    """The masks submitted so far; equal masks are kept once.

    Attributes:
        candidates: by digest of the mask, the mask and its votes.
        voters: public keys of the sum participants whose mask is counted.
    """

    candidates: dict[bytes, Candidate] = field(default_factory=dict)
    voters: set[bytes] = field(default_factory=set)

    def add(self, participant_public_key: bytes, mask: Mask) -> None:
        """Count a vote. The caller has checked that the participant may vote and has not done so."""
        self.voters.add(participant_public_key)
        digest = digest_mask(mask)
        candidate = self.candidates.get(digest)
        if candidate is None:
            self.candidates[digest] = Candidate(mask, 1)
        else:
            candidate.count += 1


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
    ranking = sorted(votes.candidates.values(), key=lambda candidate: candidate.count, reverse=True)
    if not ranking:
        raise UnmaskError("no_mask", "expected at least one mask, got none")
    best = ranking[0]
    if len(ranking) > 1 and ranking[1].count == best.count:
        raise UnmaskError(
            "ambiguous_masks",
            f"expected one mask with the most votes, got {len(ranking)} masks, the best two with {best.count}",
        )
    return best.mask
