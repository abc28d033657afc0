import weakref
from collections import Counter

import numpy as np
import pytest
from coordinator_driver import CONFIG, LENGTH
from hypothesis import given
from hypothesis import strategies as st

from pet.errors import UnmaskError
from pet.mask_object import Mask, MaskSeed
from pet.protocol.votes import MaskVotes, choose_by_plurality, digest_mask

MASKS = [MaskSeed(bytes([number]) * 32).derive_mask(CONFIG, LENGTH) for number in range(3)]


def votes_of(*numbers: int) -> MaskVotes:
    votes = MaskVotes()
    for voter, number in enumerate(numbers):
        votes.add(bytes([voter]) * 32, digest_mask(MASKS[number]), MASKS[number])
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
    mask = Mask.from_bytes(MASKS[0].to_bytes())
    votes.add(b"v" * 32, digest_mask(mask), mask)
    assert sorted(votes.counts.values()) == [1, 4]
    assert len(votes.voters) == 5


def test_one_mask_is_kept_however_many_different_ones_come() -> None:
    votes = MaskVotes()
    kept = []
    for voter in range(20):
        mask = MaskSeed(bytes([voter]) * 32).derive_mask(CONFIG, LENGTH)
        kept.append(weakref.ref(mask.vect))
        votes.add(bytes([voter]) * 32, digest_mask(mask), mask)
        del mask
    assert sum(reference() is not None for reference in kept) == 1


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_the_kept_mask_is_the_one_that_won(numbers: list[int]) -> None:
    ranking = Counter(numbers).most_common()
    if len(ranking) > 1 and ranking[0][1] == ranking[1][1]:
        with pytest.raises(UnmaskError, match=f"{ranking[0][1]} each"):
            choose_by_plurality(votes_of(*numbers))
    else:
        assert choose_by_plurality(votes_of(*numbers)) == MASKS[ranking[0][0]]


def test_the_digest_tells_masks_apart_in_every_part() -> None:
    mask = MASKS[0]
    other_vect = Mask(mask.config, np.roll(mask.vect, 1, axis=0), mask.unit)
    other_unit = Mask(mask.config, mask.vect, mask.unit ^ 1)
    assert len({digest_mask(each) for each in (mask, other_vect, other_unit)}) == 3
