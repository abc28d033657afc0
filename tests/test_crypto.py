"""Keys, signatures, sealed boxes and eligibility; the vectors are of docs/spec/pet.md 14.1 to 14.3, made with libsodium."""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
from fractions import Fraction

import nacl.bindings
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from strategies import encryption_key_pairs, signatures, signing_key_pairs

from pet.crypto import (
    SEAL_BYTES,
    SIGNATURE_BYTES,
    SUM_TASK,
    UPDATE_TASK,
    EncryptionKeyPair,
    SigningKeyPair,
    derive_round_seed,
    hash_sha256,
    is_eligible,
    is_low_order,
    open_sealed,
    open_sealed_in_place,
    seal,
    seal_in_place,
    sign_in_place,
    sign_task,
    verify,
    verify_signed,
    verify_task,
)
from pet.errors import CryptoError

PARTICIPANT = SigningKeyPair.from_seed(bytes(range(0x20)))
COORDINATOR = EncryptionKeyPair.from_seed(bytes(range(0x20, 0x40)))
EPHEMERAL = EncryptionKeyPair.from_seed(bytes(range(0x60, 0x80)))
ROUND_SEED = bytes.fromhex("cdc32bad8c799dad787666d75958fc5f2e5f4ae12dfbab38bdec0562cc9f51e3")
SUM_SIGNATURE = bytes.fromhex(
    "63044434e265141e75aa37eec8dd347624f46f162b8725c57949acc032a46794"
    "46fc35086dae6bbeb827e86821e4ac20a03e40982fb7a6512b02052228a2640f"
)
UPDATE_SIGNATURE = bytes.fromhex(
    "b4685636f858db12496ba8c4f6dad9c74ed9c1236d37a133db43d1ecca597de6"
    "4a9baa867912dfbc633900c1a540fe66f244c11854f86f2e03ec21b991a2c00b"
)

# The u-coordinates of all points of Curve25519 and its twist whose order divides 8, and those not reduced modulo
# p = 2^255 - 19 that fit in 255 bits. The top bit is ignored by X25519.
_P = 2**255 - 19
LOW_ORDER_COORDINATES = [
    0,
    1,
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    _P - 1,
    _P,
    _P + 1,
]


def test_key_pairs_of_seeds_are_the_worked_ones() -> None:
    assert PARTICIPANT.public_key.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert PARTICIPANT.secret_key == bytes(range(0x20)) + PARTICIPANT.public_key
    assert COORDINATOR.public_key.hex() == "5730800ab340fcb18ce5111eda9d705f91388b41e4544cbd103ba5942db2233e"
    assert COORDINATOR.secret_key.hex() == "887af58a36202e05c4c1cfec5bf6c61fad66bca851536004074b31f1b56e4ac9"
    assert EPHEMERAL.public_key.hex() == "e240f142b821efa128c8a1b1ee98c5c2d0d6186429edeedd3cccde89f7bf754a"


def test_round_seed_is_the_worked_one() -> None:
    assert derive_round_seed(COORDINATOR, bytes(32), 0.5, 0.9) == ROUND_SEED


def test_round_seed_needs_a_previous_seed_of_32_bytes() -> None:
    with pytest.raises(CryptoError, match="expected 32 bytes, got 31"):
        derive_round_seed(COORDINATOR, bytes(31), 0.5, 0.9)


def test_task_signatures_are_the_worked_ones() -> None:
    assert sign_task(PARTICIPANT, ROUND_SEED, SUM_TASK) == SUM_SIGNATURE
    assert sign_task(PARTICIPANT, ROUND_SEED, UPDATE_TASK) == UPDATE_SIGNATURE
    assert verify_task(SUM_SIGNATURE, PARTICIPANT.public_key, ROUND_SEED, SUM_TASK)
    assert not verify_task(SUM_SIGNATURE, PARTICIPANT.public_key, ROUND_SEED, UPDATE_TASK)
    assert not verify_task(SUM_SIGNATURE, PARTICIPANT.public_key, bytes(32), SUM_TASK)


@pytest.mark.parametrize(
    ("signature", "digest", "share"),
    [
        (SUM_SIGNATURE, "3616e19eb286a3be250a8a31d344ab007468717b51e22d8e5e73b470c8f4de52", 0.3237145413),
        (UPDATE_SIGNATURE, "bdebcc01298b06e2bdf3c78a0bd098b1514121afaef4b292972a32f0c6ed583d", 0.2396381960),
    ],
    ids=["sum", "update"],
)
def test_eligibility_of_the_worked_signatures(signature: bytes, digest: str, share: float) -> None:
    assert hash_sha256(signature).hex() == digest
    assert not is_eligible(signature, share - 1e-9)
    assert is_eligible(signature, share + 1e-9)
    assert is_eligible(signature, 0.5)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (-math.inf, False),
        (-1.0, False),
        (-5e-324, False),
        (-0.0, False),
        (0.0, False),
        (5e-324, False),
        (math.nextafter(1, 0), True),
        (1.0, True),
        (math.nextafter(1, 2), True),
        (2.0, True),
        (math.inf, True),
    ],
)
def test_eligibility_at_the_edges(threshold: float, expected: bool) -> None:
    assert is_eligible(SUM_SIGNATURE, threshold) is expected


def test_eligibility_refuses_nan_and_a_short_signature() -> None:
    with pytest.raises(CryptoError, match="got NaN"):
        is_eligible(SUM_SIGNATURE, math.nan)
    with pytest.raises(CryptoError, match="expected 64 bytes, got 63"):
        is_eligible(SUM_SIGNATURE[1:], 0.5)


@given(signatures, st.floats(allow_nan=False))
def test_eligibility_is_the_comparison_of_exact_fractions(signature: bytes, threshold: float) -> None:
    share = Fraction(int.from_bytes(hashlib.sha256(signature).digest(), "little"), 2**256 - 1)
    if math.isinf(threshold):
        assert is_eligible(signature, threshold) is (threshold > 0)
    else:
        assert is_eligible(signature, threshold) is (Fraction(threshold) >= 0 and share <= Fraction(threshold))


@given(signatures)
def test_eligibility_is_exact_beside_the_share_of_a_signature(signature: bytes) -> None:
    share = Fraction(int.from_bytes(hashlib.sha256(signature).digest(), "little"), 2**256 - 1)
    for threshold in (math.nextafter(float(share), 0), float(share), math.nextafter(float(share), 1)):
        assert is_eligible(signature, threshold) is (share <= Fraction(threshold))


@given(signing_key_pairs, st.binary(max_size=100))
def test_signatures_verify_and_tampering_shows(keys: SigningKeyPair, data: bytes) -> None:
    signature = keys.sign(data)
    assert len(signature) == SIGNATURE_BYTES
    assert verify(signature, data, keys.public_key)
    assert verify_signed(memoryview(signature + data), keys.public_key)
    assert not verify(signature, data + b"\0", keys.public_key)
    assert not verify(bytes([signature[0] ^ 1]) + signature[1:], data, keys.public_key)


def test_a_signature_with_top_bits_set_is_refused() -> None:
    for bit in (0x20, 0x40, 0x80):
        signature = SUM_SIGNATURE[:-1] + bytes([SUM_SIGNATURE[-1] | bit])
        assert not verify_task(signature, PARTICIPANT.public_key, ROUND_SEED, SUM_TASK)


def test_signing_in_place_overwrites_only_the_place_of_the_signature() -> None:
    buffer = bytearray(b"x" * SIGNATURE_BYTES + b"content")
    sign_in_place(memoryview(buffer), PARTICIPANT)
    assert buffer == PARTICIPANT.sign(b"content") + b"content"


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 5])
def test_large_messages_get_the_signature_that_libsodium_makes(size: int) -> None:
    content = random.Random(size).randbytes(size - SIGNATURE_BYTES)
    signed = bytearray(SIGNATURE_BYTES) + content
    sign_in_place(signed, PARTICIPANT)
    assert signed == nacl.bindings.crypto_sign(content, PARTICIPANT.secret_key)


def test_large_messages_are_signed_without_ed25519_in_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes) -> None:
        raise UnsupportedAlgorithm("as in a build for FIPS 140-2")

    signed = bytearray(2**20)
    sign_in_place(signed, PARTICIPANT)
    again = bytearray(2**20)
    monkeypatch.setattr(Ed25519PrivateKey, "from_private_bytes", refuse)
    sign_in_place(again, PARTICIPANT)
    assert again == signed


def test_buffers_too_short_are_refused() -> None:
    with pytest.raises(CryptoError, match="at least 64 bytes, got 63"):
        sign_in_place(bytearray(63), PARTICIPANT)
    with pytest.raises(CryptoError, match="at least 48 bytes, got 47"):
        seal_in_place(bytearray(47), COORDINATOR.public_key)
    with pytest.raises(CryptoError, match="box of 47 bytes does not open"):
        open_sealed_in_place(bytearray(47), COORDINATOR)
    assert not verify_signed(bytes(63), PARTICIPANT.public_key)


@given(encryption_key_pairs, st.binary(max_size=100))
def test_sealed_boxes_open(keys: EncryptionKeyPair, data: bytes) -> None:
    box = seal(data, keys.public_key)
    assert len(box) == len(data) + SEAL_BYTES
    assert open_sealed(box, keys) == data


@pytest.mark.parametrize(
    ("work", "size"),
    [
        (lambda box: open_sealed_in_place(box, COORDINATOR), 300),
        (lambda box: seal_in_place(box, bytes(32)), 300),
        (lambda box: seal_in_place(box, COORDINATOR.public_key), 47),
        (lambda box: sign_in_place(box, PARTICIPANT), 63),
    ],
    ids=["open", "seal", "seal in too little", "sign in too little"],
)
def test_an_error_that_is_kept_leaves_its_buffer_to_the_owner(work, size) -> None:
    """CPython before 3.12.7 also crashes when it collects a cycle with a view that is lent, and errors are kept in cycles."""
    box = memoryview(bytearray(size))
    with pytest.raises(CryptoError) as kept:
        work(box)
    box.release()  # raises BufferError while it is lent
    assert kept.value.__traceback__ is not None


def test_sealing_and_opening_in_place_use_one_buffer() -> None:
    buffer = bytearray(SEAL_BYTES) + b"content"
    seal_in_place(buffer, COORDINATOR.public_key)
    assert open_sealed(buffer, COORDINATOR) == b"content"
    plain = open_sealed_in_place(buffer, COORDINATOR)
    assert plain == b"content"
    assert plain.obj is buffer


@pytest.mark.parametrize("place", [0, 31, 32, 47, 48, -1])
def test_a_damaged_box_does_not_open(place: int) -> None:
    box = bytearray(seal(b"content", COORDINATOR.public_key))
    box[place] ^= 1
    with pytest.raises(CryptoError, match="does not open"):
        open_sealed(box, COORDINATOR)


def test_a_box_for_another_key_does_not_open() -> None:
    with pytest.raises(CryptoError, match="sealed for another key"):
        open_sealed(seal(b"content", EPHEMERAL.public_key), COORDINATOR)


@pytest.mark.parametrize("coordinate", LOW_ORDER_COORDINATES)
@pytest.mark.parametrize("top_bit", [0, 2**255])
def test_low_order_keys_are_known_and_cannot_be_sealed_for(coordinate: int, top_bit: int) -> None:
    key = (coordinate | top_bit).to_bytes(32, "little")
    assert is_low_order(key)
    with pytest.raises(CryptoError, match="is of low order"):
        seal(b"content", key)


def test_a_box_from_a_low_order_key_does_not_open() -> None:
    with pytest.raises(CryptoError, match="does not open"):
        open_sealed(bytes(SEAL_BYTES + 5), COORDINATOR)


@given(encryption_key_pairs)
def test_proper_keys_are_not_of_low_order(keys: EncryptionKeyPair) -> None:
    assert not is_low_order(keys.public_key)


def test_generated_key_pairs_work_and_differ() -> None:
    signing, encryption = SigningKeyPair.generate(), EncryptionKeyPair.generate()
    assert verify(signing.sign(b"content"), b"content", signing.public_key)
    assert open_sealed(seal(b"content", encryption.public_key), encryption) == b"content"
    assert signing != SigningKeyPair.generate()
    assert encryption != EncryptionKeyPair.generate()


def test_key_pairs_compare_by_value_and_hash_by_public_key() -> None:
    assert SigningKeyPair.from_seed(bytes(range(0x20))) == PARTICIPANT
    assert EncryptionKeyPair.from_seed(bytes(range(0x20, 0x40))) == COORDINATOR
    assert PARTICIPANT != COORDINATOR
    assert EncryptionKeyPair(COORDINATOR.public_key, bytes(32)) != COORDINATOR
    assert len({PARTICIPANT, SigningKeyPair.from_seed(bytes(range(0x20)))}) == 1
    assert len({COORDINATOR, EncryptionKeyPair.from_seed(bytes(range(0x20, 0x40)))}) == 1


@pytest.mark.parametrize("keys", [PARTICIPANT, COORDINATOR], ids=["signing", "encryption"])
def test_secret_keys_stay_out_of_repr(keys: SigningKeyPair | EncryptionKeyPair) -> None:
    assert repr(keys) == f"{type(keys).__name__}(public_key={keys.public_key!r})"


def test_keys_and_seeds_of_a_wrong_size_are_refused() -> None:
    with pytest.raises(CryptoError, match="public signing key: expected 32 bytes, got 31"):
        SigningKeyPair(bytes(31), bytes(64))
    with pytest.raises(CryptoError, match="secret signing key: expected 64 bytes, got 32"):
        SigningKeyPair(bytes(32), bytes(32))
    with pytest.raises(CryptoError, match="belongs to another public key"):
        SigningKeyPair(bytes(32), PARTICIPANT.secret_key)
    with pytest.raises(CryptoError, match="secret encryption key: expected 32 bytes, got 33"):
        EncryptionKeyPair(bytes(32), bytes(33))
    with pytest.raises(CryptoError, match="seed of a signing key pair: expected 32 bytes, got 0"):
        SigningKeyPair.from_seed(b"")
    with pytest.raises(CryptoError, match="seed of an encryption key pair: expected 32 bytes, got 0"):
        EncryptionKeyPair.from_seed(b"")
    with pytest.raises(CryptoError, match="signature: expected 64 bytes, got 1"):
        verify(b"\0", b"content", PARTICIPANT.public_key)
    for call in (lambda: seal(b"", b""), lambda: is_low_order(b""), lambda: verify_signed(bytes(64), b"")):
        with pytest.raises(CryptoError, match="key: expected 32 bytes, got 0"):
            call()


def test_other_threads_run_while_a_large_buffer_is_verified() -> None:
    signed = bytearray(40_000_000)
    sign_in_place(signed, PARTICIPANT)
    began, done = threading.Event(), threading.Event()

    def verify_in_thread() -> None:
        began.set()
        verify_signed(signed, PARTICIPANT.public_key)
        done.set()

    thread = threading.Thread(target=verify_in_thread)
    thread.start()
    began.wait()
    wakes = 0
    while not done.is_set():
        time.sleep(0.001)
        wakes += 1
    thread.join()
    # Were the interpreter held, this thread would wake at most once or twice in the tenth of a second that it takes.
    assert wakes > 5
