"""Messages that are opened together: each is what it is alone, whatever comes beside it."""

from __future__ import annotations

import pytest
from decoder_cases import LOCAL_SEEDS, MASKED_MODEL, SIGNATURE
from hypothesis import given
from hypothesis import strategies as st
from strategies import messages

from pet import crypto_batches
from pet.crypto import EncryptionKeyPair, SigningKeyPair, seal, sign_in_place
from pet.errors import RemoteProtocolError
from pet.messages import Message, Refused, Tag, UpdatePayload, encode_message, open_message, open_messages, seal_message

PARTICIPANT = SigningKeyPair.from_seed(bytes(range(0x20)))
COORDINATOR = EncryptionKeyPair.from_seed(bytes(range(0x20, 0x40)))
OTHER_ROUND = EncryptionKeyPair.from_seed(bytes(range(0x60, 0x80)))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw a sealed message; one in two has something wrong with it."""
    message = draw(messages(PARTICIPANT, COORDINATOR))
    kind = draw(st.sampled_from(["good"] * 6 + ["body", "box", "round", "message", "signed", "header"]))
    if kind == "body":
        return draw(st.binary(max_size=300))
    if kind == "round":
        return seal(encode_message(message, PARTICIPANT), OTHER_ROUND.public_key)
    if kind == "box":
        body = seal_message(message, PARTICIPANT)
        body[draw(st.integers(0, len(body) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(body)
    encoded = encode_message(message, PARTICIPANT)
    if kind in ("message", "signed"):
        place = draw(st.integers(0, len(encoded) - 1) | st.integers(64, 136))
        encoded[place] ^= 1 << draw(st.integers(0, 7))
        del encoded[draw(st.just(len(encoded)) | st.integers(0, len(encoded))) :]
    elif kind == "header":
        encoded[96] ^= 1
    if kind in ("signed", "header") and len(encoded) >= 64:
        sign_in_place(encoded, PARTICIPANT)
    return seal(encoded, COORDINATOR.public_key)


def open_alone(body: bytes, accepted_tag: Tag | None) -> Message | Refused:
    try:
        return open_message(body, COORDINATOR, accepted_tag)
    except RemoteProtocolError as error:
        return Refused(error.reason, str(error))


def open_together(sealed: list[bytes], accepted_tag: Tag | None) -> list[Message | Refused]:
    return open_messages([memoryview(bytearray(body)) for body in sealed], COORDINATOR, accepted_tag)


@pytest.mark.parametrize("is_compiled", [True, False])
@given(sealed=st.lists(bodies(), max_size=6), accepted_tag=st.sampled_from([*Tag, None]))
def test_messages_that_are_opened_together_are_what_each_is_alone(
    is_compiled: bool, sealed: list[bytes], accepted_tag: Tag | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not is_compiled:
            patch.setattr(crypto_batches, "_native", lambda: None)
        opened = open_together(sealed, accepted_tag)
    assert opened == [open_alone(body, accepted_tag) for body in sealed]
    kept = [each.signed_bytes for each in opened if isinstance(each, Message) and each.tag is Tag.SUM and not each.is_multipart]
    assert all(signed is not None for signed in kept)


def test_a_message_is_a_view_of_its_own_buffer() -> None:
    payload = UpdatePayload(
        sum_signature=SIGNATURE, update_signature=SIGNATURE, masked_model=MASKED_MODEL, local_seed_dictionary=LOCAL_SEEDS
    )
    message = Message(
        participant_public_key=PARTICIPANT.public_key,
        coordinator_public_key=COORDINATOR.public_key,
        payload=payload,
        tag=Tag.UPDATE,
    )
    first, second = (bytearray(seal_message(message, PARTICIPANT)) for _ in range(2))
    opened = open_messages([memoryview(first), memoryview(second)], COORDINATOR, Tag.UPDATE)
    del opened[0]
    first.clear()  # nothing looks at it, though the second is still open
    with pytest.raises(BufferError):
        second.clear()
