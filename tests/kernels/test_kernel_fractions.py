"""Fractions of a global model: written in lowest terms, read strictly, on every back-end."""

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import EDGE_ORDERS, assert_close, pack_integers, random_integers, width

from pet import kernels
from pet.errors import ModelError, RemoteProtocolError
from pet.kernels import Decoding, _backends
from pet.kernels import _reference as reference

DTYPES = tuple(np.dtype(kind) for kind in (np.float32, np.float64, np.int32, np.int64))
FLOATS = DTYPES[:2]
#: The example of spec 5.6: -3/2, 0 and 2^40.
SPECIFIED = bytes.fromhex(
    "ff 0100000000000000 03000000   01 0100000000000000 02000000"
    "00 0000000000000000            01 0100000000000000 01000000"
    "01 0200000000000000 00000000 00010000   01 0100000000000000 01000000"
)


def record(value: Fraction) -> bytes:
    return raw_record(value.numerator, value.denominator)


def raw_record(numerator: int, denominator: int) -> bytes:
    return reference.encode_integer(numerator) + reference.encode_integer(denominator)


def as_array(data: bytes) -> np.ndarray:
    """Bytes at an odd address, in memory that ends with them."""
    return np.frombuffer(b"\x00" + data, dtype=np.uint8)[1:]


def decode(data: bytes, length: int, dtype: np.dtype) -> tuple[list, int]:
    model, used = kernels.decode_fractions(as_array(data), length, dtype)
    return model.tolist(), used


def floats(dtype: np.dtype) -> np.ndarray:
    limits = np.finfo(dtype)
    values = [
        0.0,
        -0.0,
        1.0,
        0.1,
        1.5,
        3.0,
        2.0**40,
        1e30,
        limits.max,
        limits.tiny,
        limits.smallest_subnormal,
        limits.eps,
        1e-30,
    ]
    return np.array(values + [-value for value in values], dtype=dtype)


# ---- writing --------------------------------------------------------------------------------------------------------


@in_turn("order", EDGE_ORDERS, ids=width)
def test_differences_in_lowest_terms(backend, order):
    differences = [*random_integers(7, order), order // 2, order // 6 * 2]
    ratios = [(1, 1), (1, 10**10), (6, 4), (10**45, 3 * 10**44), (2**70, 3**80), (3**90 * 2**64, 3**80 * 2**70)]
    for numerator, denominator in ratios:
        for offset in (0, order // 2, 5 * order):
            decoding = Decoding(order, offset, numerator, denominator, 0, order - 1)
            expected = b"".join(record(reference.decode(value, decoding)) for value in differences)
            output = np.zeros(len(expected), dtype=np.uint8)
            used, done = kernels.encode_fractions(output, pack_integers(differences, order), decoding)
            assert (used, done) == (len(expected), len(differences))
            assert output.tobytes() == expected


@in_turn("order", [20_000_000_000_021, 2**64 - 59, 2**78 - 93, 2**127 - 1], ids=width)
@in_turn(
    "denominator",
    [
        *(1, 2**63, 3**40, 10**10, 10**19, 10**20, 7 * 251**3, 2**126),
        *(2**61 - 1, 257 * 263, 257**2 * 2**40 * 3, 4_294_967_291 * 4_294_967_279, 3 * (2**89 - 1)),
    ],
)
def test_what_magnitudes_share_with_a_denominator(backend, order, denominator):
    """Small primes, large primes, powers and products of them: the divisors of denominators, times anything."""
    source = random.Random(f"{order} {denominator}")
    shared = (1, 2, 3, 5, 7, 9, 100, 251, 257, 263, 257**2, 2**61 - 1, 4_294_967_291, 2**40, denominator)
    offset = order // 2
    differences = [(offset + sign * source.randrange(10**6) * divisor) % order for divisor in shared for sign in (1, -1)]
    differences += [offset, 0, order - 1, offset + 1]
    for numerator in (1, 7, 2**64 - 59):
        decoding = Decoding(order, offset, numerator, denominator, 0, order - 1)
        expected = b"".join(record(reference.decode(value, decoding)) for value in differences)
        output = np.full(len(expected) + 400, 0xA5, dtype=np.uint8)
        used, done = kernels.encode_fractions(output[: len(expected) + 300], pack_integers(differences, order), decoding)
        assert (used, done) == (len(expected), len(differences))
        assert output[:used].tobytes() == expected
        assert (output[len(expected) + 300 :] == 0xA5).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_as_dyadic_fractions(backend, dtype):
    values = floats(dtype)
    expected = b"".join(record(Fraction(value)) for value in values.tolist())
    output = np.zeros(len(expected) + 3, dtype=np.uint8)
    assert kernels.encode_floats(output, values) == (len(expected), len(values))
    assert output.tobytes() == expected + bytes(3)
    model, used = kernels.decode_fractions(output, len(values), dtype)
    assert used == len(expected)
    assert (model == values).all()


def test_only_whole_fractions_are_written(backend):
    order, differences = 2**80 - 1, [5, 2**70, 0, 2**79]
    decoding = Decoding(order, 0, 1, 15, 0, order - 1)
    values = np.array([0.5, 2.0**60, 0.0], dtype=np.float64)
    difference_records = [record(reference.decode(value, decoding)) for value in differences]
    value_records = [record(Fraction(value)) for value in values.tolist()]
    elements = pack_integers(differences, order)
    for size in range(len(b"".join(difference_records)) + 1):
        output = np.full(size, 0xA5, dtype=np.uint8)
        used, done = kernels.encode_fractions(output, elements, decoding)
        expected = b"".join(difference_records[:done])
        assert output.tobytes() == expected + b"\xa5" * (size - used)
        assert used == len(expected)
        assert done == len(differences) or used + len(difference_records[done]) > size
        output = np.full(size, 0xA5, dtype=np.uint8)
        used, done = kernels.encode_floats(output, values)
        assert output.tobytes() == b"".join(value_records[:done]) + b"\xa5" * (size - used)
        assert done == len(values) or used + len(value_records[done]) > size
    nothing = np.empty(0, dtype=np.uint8)
    assert kernels.encode_fractions(nothing, elements[:0], decoding) == (0, 0)
    assert kernels.encode_floats(nothing, values[:0]) == (0, 0)


@in_turn("dtype", FLOATS, ids=str)
@in_turn("bad", [np.nan, np.inf, -np.inf])
def test_floats_must_be_finite(backend, dtype, bad):
    output = np.full(200, 0xA5, dtype=np.uint8)
    with pytest.raises(ModelError, match="index 2"):
        kernels.encode_floats(output, np.array([1, 2, bad, np.nan], dtype=dtype))
    assert (output == 0xA5).all()
    with pytest.raises(ModelError, match="float32 or float64, got int32"):
        kernels.encode_floats(output, np.array([1], dtype=np.int32))


# ---- reading --------------------------------------------------------------------------------------------------------


def test_the_example_of_the_specification(backend):
    for dtype in FLOATS:
        assert decode(SPECIFIED, 3, dtype) == ([-1.5, 0.0, 2.0**40], len(SPECIFIED))
    assert decode(SPECIFIED, 3, np.dtype(np.int64)) == ([-1, 0, 2**40], len(SPECIFIED))
    assert decode(SPECIFIED, 2, np.dtype(np.int32)) == ([-1, 0], 48)
    assert decode(b"", 0, np.dtype(np.float32)) == ([], 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values(backend, dtype):
    source = random.Random(3)
    values = []
    for bits in (1, 20, 31, 32, 33, 64, 65, 128, 500, 2000, 32768):
        for shift in (-60, -3, 0, 5, 25):
            numerator = source.getrandbits(max(1, min(32768, bits + shift))) | 1
            values.append((source.choice((1, -1)) * numerator, source.getrandbits(bits) | 1))
    values += [(3 * 10**400, 6 * 10**400), (-7 * 10**40, 10**40), (1, 10**320), (5, 2**140)]
    fractions = [Fraction(*value) for value in values]
    model, used = kernels.decode_fractions(as_array(b"".join(raw_record(*value) for value in values)), len(values), dtype)
    assert used == sum(len(raw_record(*value)) for value in values)
    assert_close(model, [reference.to_primitive(value, dtype) for value in fractions])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_ends_of_the_type(backend, dtype):
    """A value beyond the type by at most 2^-20 of its range is the nearest of the type; farther out it is refused."""
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    for limit in (int(limits.min), int(limits.max)):
        away = 1 if limit > 0 else -1
        tolerated = Fraction(limit * (2**20 + 1), 2**20)
        if dtype.kind == "i":
            tolerated = Fraction(int(tolerated))
        beyond = tolerated + away if dtype.kind == "i" else tolerated + away * Fraction(1, 10**9)
        for common in (1, 3**50):
            for value in (Fraction(limit), limit + away * Fraction(1, 3), tolerated):
                data = raw_record(value.numerator * common, value.denominator * common)
                assert decode(data, 1, dtype) == ([limit], len(data))
            for value in (beyond, Fraction(2 * limit), Fraction(limit) ** 3 * 2):
                data = record(Fraction(1)) + raw_record(value.numerator * common, value.denominator * common)
                with pytest.raises(RemoteProtocolError, match="weight 1") as caught:
                    decode(data, 2, dtype)
                assert caught.value.reason == "out_of_range"


GOOD = reference.encode_integer(1)
MALFORMED = {
    "a sign of 2": b"\x02" + GOOD[1:] + GOOD,
    "a sign of -2": b"\xfe" + GOOD[1:] + GOOD,
    "no sign but a magnitude": b"\x00" + GOOD[1:] + GOOD,
    "a sign but no magnitude": b"\x01" + bytes(8) + GOOD,
    "a minus but no magnitude": b"\xff" + bytes(8) + GOOD,
    "a leading zero limb": b"\x01" + (2).to_bytes(8, "little") + bytes([1, 0, 0, 0, 0, 0, 0, 0]) + GOOD,
    "a zero limb alone": b"\x01" + (1).to_bytes(8, "little") + bytes(4) + GOOD,
    "a zero denominator": GOOD + reference.encode_integer(0),
    "a negative denominator": GOOD + reference.encode_integer(-1),
    "too many limbs": b"\x01" + (1025).to_bytes(8, "little") + b"\x01" * 4100 + GOOD,
    "a count that overflows": b"\x01" + b"\xff" * 8 + b"\x01" * 64,
    "a count that overflows times 4": b"\x01" + (2**62 + 1).to_bytes(8, "little") + b"\x01" * 64,
    "too many limbs below": GOOD + b"\x01" + (1025).to_bytes(8, "little") + b"\x01" * 4100,
}


@in_turn("name", MALFORMED)
@in_turn("dtype", DTYPES, ids=str)
def test_malformed_fractions_are_refused(backend, dtype, name):
    data = as_array(record(Fraction(1, 2)) + MALFORMED[name] + bytes(100))
    model = np.full(2, 7, dtype=dtype)
    with pytest.raises(RemoteProtocolError, match="weight 1") as caught:
        _backends.load_backend(backend).decode_fractions(model, data)
    assert caught.value.reason == "malformed_model"
    assert (model == 7).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_truncation_is_refused(backend, dtype):
    data = SPECIFIED[:48] + record(Fraction(-(2**29), 2**90 + 1))
    assert decode(data, 3, dtype)[1] == len(data)
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError) as caught:
            decode(data[:size], 3, dtype)
        assert caught.value.reason == "malformed_model"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_mutations_give_a_model_or_one_error(backend, dtype):
    assert_mutations(backend, dtype, 1_000)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_more_mutations_give_a_model_or_one_error(backend, dtype):
    """20,000 over the data types on each compiled back-end; fuzzers do more."""
    if backend not in ("numba", "reference"):
        assert_mutations(backend, dtype, 5_000)


def assert_mutations(backend: str, dtype: np.dtype, count: int) -> None:
    """The reference agrees on some of the mutations, which are the same each time."""
    source = random.Random(11)
    original = bytearray(SPECIFIED + record(Fraction(10**30, 7**40)) + record(Fraction(1, 3)))
    for i in range(count):
        data = bytearray(original)
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] = source.choice((0, 1, 2, 255, source.randrange(256)))
        result = model_or_reason(_backends.load_backend(backend), bytes(data), dtype)
        if i < 500:
            assert_same(result, model_or_reason(reference, bytes(data), dtype))


def model_or_reason(low_level: Any, data: bytes, dtype: np.dtype) -> tuple[np.ndarray, int] | str:
    """Read five fractions: the model and the bytes it took, or the reason why not; anything else is a failure."""
    model = np.full(5, 7, dtype=dtype)
    try:
        return model, low_level.decode_fractions(model, as_array(data))
    except RemoteProtocolError as error:
        return error.reason


def assert_same(result: tuple[np.ndarray, int] | str, expected: tuple[np.ndarray, int] | str) -> None:
    if isinstance(result, str) or isinstance(expected, str):
        assert result == expected
    else:
        assert result[1] == expected[1]
        assert_close(result[0], expected[0].tolist())
