"""Vectors of pet/1 in leaves: digests, and arrival in any order."""

from __future__ import annotations

import numpy as np
import pytest
from pet1_rounds import reason_of
from vector_files import load_vectors

from pet.field_config import FieldConfig
from pet.kernels import fields
from pet.pet1.hashes import digest
from pet.pet1.leaves import LEAF_BYTES, Upload, derive_leaf_digest, derive_leaf_digests, derive_vector_digest, leaf_count
from pet.pet1.round_record import RoundRecord

LEAVES = load_vectors("pet1/leaves.json")
CONTEXT = bytes.fromhex(LEAVES["context"])
ORDERS = {"pet-1/z32": fields.Z32, "pet-1/z64": fields.Z64}


def vector_of(derivation: str, key: str, length: int) -> bytes:
    order = ORDERS[derivation]
    vector = np.zeros((length, fields.element_bytes(order)), dtype=np.uint8)
    fields.expand_add(vector, 0, bytes.fromhex(key), order)
    return vector.tobytes()


def upload_of(vector: bytes) -> Upload:
    config = FieldConfig.parse("pet-1/z32,f32,bound=1,models=10")
    record = RoundRecord(
        config=config,
        model_length=len(vector) // 4 - 1,
        min_updates=3,
        number=1,
        update_seconds=1,
        check_seconds=1,
        sum2_seconds=1,
        coordinator_key=bytes(32),
        seed=bytes(32),
        enrolment_digest=bytes(32),
    )
    return Upload(record=record, context=CONTEXT, leaf_digests=derive_leaf_digests(vector, CONTEXT))


def test_digests_of_the_vectors() -> None:
    assert LEAVES["leaf_bytes"] == LEAF_BYTES
    salt = digest("pet-1 salt", key=bytes.fromhex(LEAVES["master"]))
    assert salt.hex() == LEAVES["salt"]
    for case in LEAVES["cases"]:
        vector = vector_of(case["derivation"], case["key"], case["length"])
        leaves = derive_leaf_digests(vector, CONTEXT)
        assert (len(vector), len(leaves)) == (case["vector_bytes"], leaf_count(len(vector)))
        assert [leaf.hex() for leaf in leaves] == case["leaf_digests"]
        assert derive_vector_digest(leaves, len(vector), salt).hex() == case["vector_digest"]


def test_threads_compute_the_same_digests() -> None:
    vector = memoryview(np.arange((16 * 2 + 1) * LEAF_BYTES // 8 + 3, dtype="<u8")).cast("B")
    expected = [
        derive_leaf_digest(vector[start : start + LEAF_BYTES], start // LEAF_BYTES, len(vector), CONTEXT)
        for start in range(0, len(vector), LEAF_BYTES)
    ]
    for threads in (1, 2, 5, None):
        assert derive_leaf_digests(vector, CONTEXT, threads) == expected


def test_pieces_come_in_any_order_and_only_what_is_wrong_is_dropped() -> None:
    case = next(case for case in LEAVES["cases"] if case["length"] == 262149)
    vector = vector_of(case["derivation"], case["key"], case["length"])
    upload = upload_of(vector)

    def put(first: int, data: bytes) -> None:
        for index, leaf in enumerate(upload.check_piece(first, data), first):
            upload.check_leaf(index, leaf)
            upload.mark(index)

    for step in LEAVES["upload"]["steps"]:
        begin, end = step["vector_range"]
        data = bytearray(vector[begin:end])
        if step["flipped_byte"] is not None:
            data[step["flipped_byte"]] ^= 1
        assert reason_of(put, step["first"], bytes(data)) == step["refused"], step["what"]
        assert (upload.bitmap.hex(), upload.is_complete) == (step["bitmap"], step["complete"]), step["what"]
    assert upload.is_complete


@pytest.mark.parametrize("leaves", [1, 16, 17])
def test_a_piece_has_at_most_sixteen_leaves(leaves: int) -> None:
    upload = upload_of(bytes(LEAF_BYTES * 18))
    expected = None if leaves <= 16 else "length_mismatch"
    assert reason_of(upload.check_piece, 0, bytes(LEAF_BYTES * leaves)) == expected
