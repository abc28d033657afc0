"""Attacks on the numbers: wrong shares, elements out of range, and vectors that are changed on their way."""

from __future__ import annotations

import numpy as np
import pytest
from pet1_parties import (
    CONFIG,
    THREE_OF_FIVE,
    HonestRound,
    LooseCoordinator,
    Parties,
    elements_of,
    fresh_secrets,
    shares_of,
    sum_of,
    unmask,
    upload_of,
)
from pet1_rounds import reason_of

import pet
from pet.errors import LocalProtocolError
from pet.pet1.checks import parse_sum2
from pet.pet1.leaves import LEAF_BYTES, Upload, derive_leaf_digests
from pet.pet1.manifest import UpdateManifest
from pet.pet1.share_header import ShareHeader

# ---- answers ---------------------------------------------------------------------------------------------------------------


def test_wrong_shares() -> None:
    """Of r answers, up to (r - t) / 2 wrong ones are named, up to r - t noticed; with r = t none is, and the result says so."""
    parties = Parties(THREE_OF_FIVE)
    played = HonestRound.play(parties)
    certificate = played.certify()
    right = {slot: member.answer(certificate.to_bytes()) or b"" for slot, member in enumerate(played.members)}
    shares = shares_of(right, played.coordinator.record, certificate.digest)
    vectors = [update.sent.vector for update in played.updates]

    def recover(slots: range, liars: set[int]) -> pet.shares.RecoveredMask:
        given = {slot: changed_share(shares[slot], 1 + slot) if slot in liars else shares[slot] for slot in slots}
        return pet.shares.recover_mask(THREE_OF_FIVE, given, threads=1)

    for liar in range(5):
        named = recover(range(5), {liar})
        assert (named.wrong_slots, named.unchecked_groups) == ((liar,), ())
        assert unmask(vectors, named.mask) == sum_of(played.updates)
    for slots, liars in ((range(5), {0, 1}), (range(4), {2})):
        with pytest.raises(pet.UnmaskError) as caught:
            recover(slots, liars)
        assert caught.value.reason == "wrong_share"
    unnoticed = recover(range(3), {0})
    assert (unnoticed.wrong_slots, unnoticed.unchecked_groups) == ((), (0,))
    assert unmask(vectors, unnoticed.mask) != sum_of(played.updates)


def changed_share(share: pet.Mask, surplus: int) -> pet.Mask:
    elements = [(element + surplus) % CONFIG.order for element in elements_of(share.to_vector())]
    return pet.Mask.from_vector(CONFIG, b"".join(element.to_bytes(4, "little") for element in elements))


def test_elements_above_the_order() -> None:
    """p + 1 is another 1: a vector or an answer with it would have two encodings, and sums would wrap."""
    parties = Parties()
    coordinator = LooseCoordinator(parties)
    committee = coordinator.form([parties.member(slot) for slot in range(3)])
    key, secrets = parties.participant_keys[0], fresh_secrets(parties)
    vector = (CONFIG.order + 1).to_bytes(4, "little") + bytes(12)
    upload = upload_of(key, committee, secrets, vector)
    assert reason_of(upload.check_leaf, 0, vector) == "invalid_element"
    payload = bytes(32) + vector
    assert reason_of(parse_sum2, payload, coordinator.record, bytes(32)) == "invalid_element"


# ---- vectors on their way --------------------------------------------------------------------------------------------------


def long_uploads() -> list[tuple[Upload, bytes]]:
    """Return two uploads of two leaves and a bit, as the coordinator opens them."""
    parties = Parties()
    coordinator = LooseCoordinator(parties, model_length=2 * LEAF_BYTES // 4 + 4)
    committee = coordinator.form([parties.member(slot) for slot in range(3)])
    found = []
    for number in range(2):
        vector = bytes([number + 1]) * coordinator.record.vector_bytes
        key = parties.participant_keys[number]
        found.append((upload_of(key, committee, fresh_secrets(parties), vector), vector))
    return found


def test_vectors_swapped_cut_and_reordered() -> None:
    """Somebody on the way changes a vector: no leaf of it stands for another, and a cut one never is complete."""
    (upload, vector), (_, other) = long_uploads()
    leaves = [vector[start : start + LEAF_BYTES] for start in range(0, len(vector), LEAF_BYTES)]
    assert len(leaves) == 3
    assert reason_of(upload.check_leaf, 0, other[:LEAF_BYTES]) == "wrong_leaf"
    # The same bytes in another place: the leaves of this vector are alike, their digests are not.
    assert leaves[0] == leaves[1]
    assert upload.leaf_digests[0] != upload.leaf_digests[1]
    flipped = bytes([leaves[1][0] ^ 1]) + leaves[1][1:]
    assert reason_of(upload.check_leaf, 1, flipped) == "wrong_leaf"
    for first, data in ((0, vector[:-4]), (2, leaves[2][:-4]), (0, vector + bytes(4)), (1, leaves[2]), (0, b"")):
        assert reason_of(upload.check_piece, first, data) == "length_mismatch"
    for index, leaf in enumerate(leaves[:2]):
        upload.check_leaf(index, leaf)
        upload.mark(index)
    assert not upload.is_complete


def test_leaf_of_another_update() -> None:
    """Two participants whose vectors agree: a leaf of the one is not one of the other."""
    (first, vector), (second, _) = long_uploads()
    again = [derive_leaf_digests(vector, upload.context) for upload in (first, second)]
    assert not set(again[0]) & set(again[1])
    swapped = Upload(record=second.record, context=second.context, leaf_digests=first.leaf_digests)
    assert reason_of(swapped.check_leaf, 0, vector[:LEAF_BYTES]) == "wrong_leaf"


def test_a_second_header() -> None:
    """One participant, two headers: a member takes the first, and a list with the other is refused."""
    played = HonestRound.play(Parties())
    key = played.parties.participant_keys[0]
    second = ShareHeader.build(key, played.committee, fresh_secrets(played.parties), bytes(32))
    others = [update.header for update in played.updates[1:]]
    for member in played.members:
        assert reason_of(member.receive_header, second.data) == "update_already_submitted"
        listed = UpdateManifest.of(played.committee, [second, *others])
        assert reason_of(member.receive_manifest, listed.to_bytes()) == "unknown_update"
    # The participant itself makes no second one.
    participant = played.parties.participant(5)
    played.coordinator.ask(participant, played.committee)
    with pytest.raises(LocalProtocolError, match="has no update yet"):
        participant.mask(played.committee.to_bytes(), np.ones(3, CONFIG.dtype))
