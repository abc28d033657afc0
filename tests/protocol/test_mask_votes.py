import numpy as np
import pytest
from coordinator_driver import CONFIG, LENGTH

from pet.errors import UnmaskError
from pet.mask_object import Mask, MaskSeed
from pet.protocol.votes import MaskVotes, choose_by_plurality, digest_mask

MASKS = [MaskSeed(bytes([number]) * 32).derive_mask(CONFIG, LENGTH) for number in range(3)]


def votes_of(*numbers: int) -> MaskVotes:
    votes = MaskVotes()
    for voter, number in enumerate(numbers):
        votes.add(bytes([voter]) * 32, MASKS[number])
    return votes


def test_without_a_vote_there_is_no_mask() -> None:
    with pytest.raises(UnmaskError) as caught:
        choose_by_plurality(votes_of())
    assert caught.value.reason == "no_mask"


@pytest.mark.parametrize("numbers", [(1,), (1, 1), (0, 1, 1), (1, 0, 2, 1), (0, 0, 1, 1, 1, 2)])
def test_the_mask_with_more_votes_than_any_other_wins(numbers: tuple[int, ...]) -> None:
    assert choose_by_plurality(votes_of(*numbers)) == MASKS[1]


@pytest.mark.parametrize("numbers", [(0, 1), (0, 1, 2), (0, 0, 1, 1, 2)])
def test_a_tie_for_the_first_place_is_ambiguous(numbers: tuple[int, ...]) -> None:
    with pytest.raises(UnmaskError) as caught:
        choose_by_plurality(votes_of(*numbers))
    assert caught.value.reason == "ambiguous_masks"


def test_equal_masks_are_kept_once() -> None:
    votes = votes_of(0, 0, 0, 1)
    votes.add(b"v" * 32, Mask.from_bytes(MASKS[0].to_bytes()))
    assert [candidate.count for candidate in votes.candidates.values()] == [4, 1]
    assert len(votes.voters) == 5


def test_the_digest_tells_masks_apart_in_every_part() -> None:
    mask = MASKS[0]
    other_vect = Mask(mask.config, np.roll(mask.vect, 1, axis=0), mask.unit)
    other_unit = Mask(mask.config, mask.vect, mask.unit ^ 1)
    assert len({digest_mask(each) for each in (mask, other_vect, other_unit)}) == 3
