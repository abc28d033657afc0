"""Choosing a back-end, and the seam between the compiled kernels and Python."""

import logging

import numpy as np
import pytest
from kernel_cases import EDGE_ORDERS, SEED, config_orders

from pet import kernels
from pet.errors import AggregationError, BackendError, ModelError, PetError, RemoteProtocolError, UnmaskError
from pet.kernels import _backends, _compiled
from pet.kernels._compiled import ffi, lib


@pytest.fixture
def restored_backend():
    yield
    kernels.select_backend(None)


def test_reference_and_portable_always_run():
    names = kernels.available_backends()
    assert "portable" in names
    assert names[-1] == "reference"
    assert list(names) == [name for name in kernels.BACKEND_NAMES if name in names]


def test_select_and_go_back(restored_backend, monkeypatch):
    monkeypatch.delenv("PET_BACKEND", raising=False)
    assert kernels.select_backend("reference") == "reference"
    assert kernels.active_backend() == "reference"
    assert kernels.select_backend(None) == kernels.available_backends()[0]


def test_the_environment_forces_a_backend(restored_backend, monkeypatch):
    monkeypatch.setenv("PET_BACKEND", "portable")
    assert kernels.select_backend(None) == "portable"
    monkeypatch.setenv("PET_BACKEND", "cuda")
    with pytest.raises(BackendError, match=r"expected one of .*, got 'cuda'"):
        kernels.select_backend(None)
    assert kernels.active_backend() == "portable"
    monkeypatch.delenv("PET_BACKEND")


def test_an_absent_variant_is_an_error():
    absent = [name for name in kernels.BACKEND_NAMES if name not in kernels.available_backends()]
    assert absent, "no machine has both neon and avx512"
    for name in absent:
        with pytest.raises(BackendError, match=name):
            _backends.load_backend(name)


def test_a_backend_without_kernels_for_an_order_says_so_once(restored_backend, caplog, monkeypatch):
    class Narrow:
        name = "narrow"

        def covers(self, order: int) -> bool:
            return order < 2**64

        def __getattr__(self, kernel: str):
            return getattr(_backends.load_backend("portable"), kernel)

    monkeypatch.setattr(_backends, "_active", Narrow())
    with caplog.at_level(logging.INFO, logger="pet.kernels"):
        for order in (257, 2**71, 2**71 + 1, 2**72):
            kernels.expand(SEED, order, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "narrow has no kernels for elements of 9 bytes; portable ones are used"
    ]


@pytest.mark.parametrize("name", [name for name in kernels.available_backends() if name not in ("numba", "reference")])
def test_sizes_are_those_of_the_compiled_code(name):
    backend = _backends.load_backend(name)
    for order in (*EDGE_ORDERS, *config_orders()):
        raw = order.to_bytes(-(-order.bit_length() // 8), "little")
        assert lib.pet_element_bytes(raw, len(raw)) == kernels.element_bytes(order)
        assert lib.pet_planes(raw, len(raw)) == kernels.plane_count(order)
        assert lib.pet_capacity(raw, len(raw)) == kernels.capacity(order)
        assert backend.covers(order) or name != "portable"


def test_best_variant_has_a_name():
    name = ffi.string(lib.pet_variant_name(lib.PET_VARIANT_BEST)).decode()
    assert name == kernels.available_backends()[0]
    assert lib.pet_variant_name(99) == ffi.NULL


def test_every_status_is_one_exception():
    statuses = dict(ffi.typeof("enum pet_status").relements)
    assert statuses.pop("PET_OK") == 0
    assert sorted(_compiled.ERRORS) == sorted(statuses.values())
    for status in statuses.values():
        with pytest.raises(PetError):
            _compiled.check(status, 3)
    kinds = {name: type(_compiled.ERRORS[status](3)) for name, status in statuses.items()}
    assert kinds["PET_INVALID_ELEMENT"] is AggregationError
    assert kinds["PET_NOT_FINITE"] is ModelError
    assert kinds["PET_OUT_OF_RANGE"] is UnmaskError
    assert kinds["PET_MALFORMED"] is RemoteProtocolError
    _compiled.check(lib.PET_OK)


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x05\x00", b"\x01" * 273])
def test_bad_orders(raw):
    position = ffi.new("uint64_t *", 7)
    element = ffi.new("uint8_t[]", b"\xa5" * 300)
    status = lib.pet_expand(lib.PET_VARIANT_BEST, element, 1, SEED, position, raw, len(raw))
    assert status == lib.PET_BAD_ORDER
    assert (position[0], set(bytes(ffi.buffer(element, 300)))) == (7, {0xA5})
    assert lib.pet_element_bytes(raw, len(raw)) == lib.pet_planes(raw, len(raw)) == lib.pet_capacity(raw, len(raw)) == 0
    assert not lib.pet_variant_covers(lib.PET_VARIANT_BEST, raw, len(raw))


def test_an_unknown_variant_is_refused_by_every_kernel():
    null, order = ffi.NULL, b"\x05"
    encoding, decoding = ffi.new("pet_encoding *"), ffi.new("pet_decoding *")
    statuses = (
        lib.pet_expand(99, null, 0, SEED, null, order, 1),
        lib.pet_sum_masks(99, null, 0, 0, SEED, 1, null, order, 1),
        lib.pet_mask_weights(99, null, null, lib.PET_F32, 0, null, encoding, null, null),
        lib.pet_update(99, null, null, lib.PET_F32, 0, SEED, null, encoding, null, null),
        lib.pet_aggregate(99, null, 0, 0, null, 0, order, 1, null),
        lib.pet_subtract(99, null, 0, 0, null, order, 1),
        lib.pet_reduce(99, null, 0, 0, 1, order, 1),
        lib.pet_pack(99, null, null, 0, 0, order, 1),
        lib.pet_unmask_elements(99, null, null, 0, null, 0, order, 1),
        lib.pet_unmask(99, null, lib.PET_F32, null, 0, null, 0, decoding, null),
        lib.pet_encode_fractions(99, null, 0, null, null, null, 0, decoding),
        lib.pet_encode_floats(99, null, 0, null, null, null, lib.PET_F32, 0, null),
        lib.pet_decode_fractions(99, null, lib.PET_F32, 0, null, 0, null, null),
    )
    assert set(statuses) == {lib.PET_BAD_VARIANT}
    assert set(field_statuses(99, 2**32 - 5)) == {lib.PET_BAD_VARIANT}
    assert lib.pet_field_find_above(99, null, 5, 1, 2**32 - 5) == 0


def field_statuses(variant, order, factor=1, length=0):
    """Return what every kernel of pet-1 that returns a status says to these arguments."""
    null = ffi.NULL
    result, count, index = ffi.new("uint64_t *"), ffi.new("uint64_t *"), ffi.new("size_t *")
    return (
        lib.pet_field_expand_add(variant, null, 0, length, SEED, 0, factor, order),
        lib.pet_field_encode(variant, null, null, lib.PET_F32, 0, 1.0, 1.0, 1, order, count, index),
        lib.pet_field_decode(variant, null, lib.PET_F32, null, 0, 1.0, 1, 1.0, order, index),
        lib.pet_field_add(variant, null, null, 0, order, index),
        lib.pet_field_subtract(variant, null, null, 0, order, index),
        lib.pet_field_multiply_add(variant, null, null, 0, factor, order),
        lib.pet_field_dot(variant, result, null, null, 0, order),
    )


def test_orders_and_arguments_that_no_field_has_are_refused():
    null, best, order = ffi.NULL, lib.PET_VARIANT_BEST, 2**32 - 5
    for bad in (0, 2, 2**31, 2**32, 2**63):
        assert set(field_statuses(best, bad)) == {lib.PET_BAD_ORDER}
        assert lib.pet_field_find_above(best, null, 5, 1, bad) == 0
    assert set(field_statuses(best, order)) == {lib.PET_OK}
    clipped, index, result = ffi.new("uint64_t *"), ffi.new("size_t *"), ffi.new("uint64_t *", order)
    statuses = [
        lib.pet_field_expand_add(best, null, 2**32, 1, SEED, 0, 1, order),
        lib.pet_field_expand_add(best, null, 0, 0, SEED, 0, order, order),
        lib.pet_field_expand_add(best, null, 0, 0, SEED, 0, 2, 2**31 + 11),
        lib.pet_field_multiply_add(best, null, null, 0, order, order),
        lib.pet_field_dot(best, result, null, null, 0, order),
        lib.pet_field_decode(best, null, lib.PET_F32, null, 0, 1.0, order, 1.0, order, index),
        lib.pet_field_decode(best, null, lib.PET_F32, null, 0, 1.0, 1, 0.0, order, index),
        lib.pet_field_decode(best, null, lib.PET_I32, null, 0, 1.0, 1, 1.0, order, index),
    ]
    nan = float("nan")
    for kind, scalar, bound, levels in (
        (lib.PET_I32, 1.0, 1.0, 1),
        (lib.PET_F32, 1.5, 1.0, 1),
        (lib.PET_F32, nan, 1.0, 1),
        (lib.PET_F32, 1.0, nan, 1),
        (lib.PET_F32, 1.0, 0.0, 1),
        (lib.PET_F32, 1.0, 1.0, 0),
        (lib.PET_F32, 1.0, 1.0, order),
    ):
        statuses.append(lib.pet_field_encode(best, null, null, kind, 0, scalar, bound, levels, order, clipped, index))
    assert set(statuses) == {lib.PET_BAD_ARGUMENT}


def test_arguments_out_of_range_are_refused():
    """What pet.masking never asks for; a kernel must say so instead of running over its arrays."""
    backend = _backends.load_backend("portable")
    weights = np.zeros(1, dtype=np.float32)
    elements = np.zeros((1, 1), dtype=np.uint8)
    too_long = 256**432
    for encoding in (
        kernels.Encoding(5, 6, 1, 1),
        kernels.Encoding(5, 2, 1, 0),
        kernels.Encoding(5, 2, too_long, 1),
        kernels.Encoding(5, 2, 1, too_long),
    ):
        with pytest.raises(BackendError):
            backend.mask_weights(elements, weights, elements, encoding)
        with pytest.raises(BackendError):
            backend.update(elements, weights, SEED, 0, encoding)
    total = kernels.new_total(1, 5)
    for decoding in (
        kernels.Decoding(5, 2, 0, 1, 0, 4),
        kernels.Decoding(5, 2, 1, 0, 0, 4),
        kernels.Decoding(5, too_long, 1, 1, 0, 4),
        kernels.Decoding(5, 2, too_long, 1, 0, 4),
        kernels.Decoding(5, 2, 1, too_long, 0, 4),
    ):
        with pytest.raises(BackendError):
            backend.unmask(weights, total, elements, decoding)
    with pytest.raises(BackendError):
        backend.reduce(total, 2**32, 5)


def test_read_only_outputs_are_refused():
    elements = np.zeros((4, 1), dtype=np.uint8)
    elements.flags.writeable = False
    with pytest.raises(ModelError, match="read-only"):
        _backends.load_backend("portable").expand(elements, SEED, 0, 200)
