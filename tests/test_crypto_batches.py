"""Signatures that are verified together: as each alone, and none behind one that is not valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet import crypto_batches
from pet.crypto import SUM_TASK, EncryptionKeyPair, SigningKeyPair, seal, sign_task, verify_signed, verify_task
from pet.crypto_batches import Claim, Opened, Places, open_signed_boxes, task_claim, verify_groups
from pet.errors import CryptoError

KEY = SigningKeyPair.from_seed(bytes(range(32)))
COORDINATOR = EncryptionKeyPair.from_seed(bytes(range(32)))
SIGNED = KEY.sign(b"data") + b"data"


@st.composite
def claims(draw):
    """A claim; one in two does not hold, or holds nothing that could be signed."""
    signed = bytearray(SIGNED)
    if draw(st.booleans()):
        signed[draw(st.integers(0, len(signed) - 1))] ^= 1 << draw(st.integers(0, 7))
    size = draw(st.sampled_from([len(signed)] * 6 + [0, 63, 64, 65]))
    return Claim(bytes(signed[:size]), draw(st.sampled_from([KEY.public_key] * 6 + [bytes(32)])))


@pytest.mark.parametrize("is_compiled", [True, False])
@given(groups=st.lists(st.lists(claims(), max_size=3), max_size=5))
def test_groups_are_counted_to_the_first_that_is_not_valid(is_compiled, groups):
    with pytest.MonkeyPatch.context() as patch:
        if not is_compiled:
            patch.setattr(crypto_batches, "_native", lambda: None)
        counts = verify_groups(groups)
    for group, count in zip(groups, counts, strict=True):
        assert all(verify_signed(*claim) for claim in group[:count])
        assert count == len(group) or not verify_signed(*group[count])


def test_a_task_claim_is_what_verify_task_verifies():
    signature = sign_task(KEY, bytes(32), SUM_TASK)
    assert verify_groups([[task_claim(signature, KEY.public_key, bytes(32), SUM_TASK)]]) == [1]
    assert verify_task(signature, KEY.public_key, bytes(32), SUM_TASK)
    assert verify_groups([[task_claim(signature, KEY.public_key, bytes(31) + b"1", SUM_TASK)]]) == [0]


def test_sizes_are_checked_before_anything_is_read():
    with pytest.raises(CryptoError, match="task signature: expected 64 bytes, got 63"):
        task_claim(bytes(63), KEY.public_key, bytes(32), SUM_TASK)
    with pytest.raises(CryptoError, match="public signing key: expected 32 bytes, got 31"):
        verify_groups([[Claim(SIGNED, bytes(31))]])


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_plain_text_that_ends_before_its_key_is_unexpected(is_compiled, monkeypatch):
    if not is_compiled:
        monkeypatch.setattr(crypto_batches, "_native", lambda: None)
    plains = [b"", b"ab", b"abc", b"abd", b"abc" + bytes(31), b"abc" + bytes(32)]
    boxes = [memoryview(bytearray(seal(plain, COORDINATOR.public_key))) for plain in plains]
    boxes.append(memoryview(bytearray(47)))
    states = open_signed_boxes(boxes, COORDINATOR, Places(expected=0, key=3), [b"abc"] * len(boxes))
    assert states == [*[Opened.UNEXPECTED] * 5, Opened.FORGED, Opened.CLOSED]


def test_a_box_that_cannot_be_written_to_is_refused_before_any_is_opened():
    good = bytearray(seal(SIGNED, COORDINATOR.public_key))
    before = bytes(good)
    with pytest.raises(BufferError):
        open_signed_boxes([memoryview(good), memoryview(b"")], COORDINATOR, Places(expected=0, key=0), [b"", b""])
    assert good == before
    good.clear()  # its loan has ended
