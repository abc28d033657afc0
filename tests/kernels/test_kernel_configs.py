"""All 240 configs on every back-end, numba and emulated NEON included: the same bytes for any length and number of threads.

The portable kernels say what is right; other tests hold them against Python integers and against the vectors of the originals.
A vector is 10^5 + 3 weights long, or what 200 kB of keystream give in the long tests and 2 MB in the very long ones, and for
the emulator a tenth of it; `--full-length` leaves that limit out (CONTRIBUTING.md).
"""

from fractions import Fraction

import numpy as np
import pytest
from kernel_cases import (
    SEED,
    assert_rest_untouched,
    assert_untouched,
    config_orders,
    keystream_bytes,
    unaligned,
)

from pet import kernels, parallel, parallel_draws
from pet.kernels import Decoding, _backends
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, ModelType
from pet.masking import encoding_of

#: Around 8, 16, 32 and 64, the lanes of vectors and the blocks of a batch, and 0 and 1.
LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
FULL_LENGTH = 100_003
#: In bytes. The portable kernels draw some 300 MB/s, the emulated ones 30.
KEYSTREAM_LIMITS = [
    pytest.param(200_000, id="200kB", marks=pytest.mark.long),
    pytest.param(2_000_000, id="2MB", marks=pytest.mark.very_long),
]
#: Of a vector, for the emulated kernels: still several of the batches that their loops run over.
EMULATED_SHARE = 10
THREADS = (1, 2, 3, 7)
#: Tests for each kind of vectors: every one does a share of the configs, so that several processes have something to do.
SHARES = 6
CONFIGS = [
    MaskConfig(group, data, bound, model)
    for group in GroupType
    for data in DataType
    for bound in BoundType
    for model in ModelType
]


def in_shares(values):
    """Give each test every sixth of the values: cheap and dear ones stand apart."""
    return pytest.mark.parametrize("share", [values[share::SHARES] for share in range(SHARES)], ids=range(SHARES))


@pytest.fixture(scope="module")
def backends(neon):
    """Every fast back-end but the portable one, by name."""
    names = [name for name in kernels.available_backends() if name not in ("portable", "reference")]
    return {**{name: _backends.load_backend(name) for name in names}, "neon": neon}


@pytest.fixture(scope="module")
def portable():
    return _backends.load_backend("portable")


@pytest.fixture(params=KEYSTREAM_LIMITS)
def length_for(request):
    """How long vectors are, by the keystream that an element takes."""
    is_full = request.config.getoption("--full-length")

    def length_for(element_keystream: float, backend: str = "") -> int:
        if is_full:
            return FULL_LENGTH
        limit = request.param / (EMULATED_SHARE if backend == "neon" else 1)
        return max(LENGTHS[-1], min(FULL_LENGTH, int(limit / element_keystream)))

    return length_for


@pytest.fixture(autouse=True)
def split_what_is_short(monkeypatch):
    monkeypatch.setattr(parallel_draws, "_KEYSTREAM_BYTES_WORTH_A_THREAD", 1 << 17)
    monkeypatch.setattr(parallel, "ELEMENTS_WORTH_A_THREAD", 1000)


def unit_position(order: int) -> int:
    """Return where a vector begins whose unit is drawn from another order: after a draw of three words."""
    return kernels.expand(SEED, 2**80 + order % 97, 1)[1]


@in_shares(config_orders())
def test_masks(share, portable, backends, length_for):
    for order in share:
        check_masks(order, portable, backends, length_for)


def check_masks(order, portable, backends, length_for):
    length = length_for(keystream_bytes(order))
    expected = np.empty((length, kernels.element_bytes(order)), dtype=np.uint8)
    position = unit_position(order)
    own_lengths = {name: length_for(keystream_bytes(order), name) for name in backends}
    ends = {
        short: portable.expand(expected[:short], SEED, position, order) for short in {*LENGTHS, *own_lengths.values(), length}
    }
    portable.expand(expected, SEED, position, order)
    for name, backend in backends.items():
        # tests/kernels/test_kernel_neon.py has every length; each call of an emulated kernel goes through two pipes.
        for own_length in (*(LENGTHS[::3] if name == "neon" else LENGTHS), own_lengths[name]):
            elements, memory = unaligned((own_length, kernels.element_bytes(order)))
            after = backend.expand(elements, SEED, position, order)
            assert np.array_equal(elements, expected[:own_length]), name
            assert after == ends[own_length], name
            assert_untouched(memory, elements)
    for threads in THREADS:
        assert np.array_equal(parallel.expand(SEED, order, length, position, threads), expected)


@in_shares(config_orders())
def test_sums_of_masks(share, portable, backends, length_for):
    for order in share:
        check_sums_of_masks(order, portable, backends, length_for)


def check_sums_of_masks(order, portable, backends, length_for):
    seeds, positions = SEED + bytes(32) + b"\1" * 32, np.array([0, 3, 16], dtype=np.uint64)
    for length in (*LENGTHS[:9:2], max(LENGTHS[-1], length_for(keystream_bytes(order)) // 12)):
        expected, ends = larger_total(length, order), positions.copy()
        portable.sum_masks(expected[:, 3 : 3 + length], seeds, ends, order)
        for name, backend in backends.items():
            got, own_ends = larger_total(length, order), positions.copy()
            backend.sum_masks(got[:, 3 : 3 + length], seeds, own_ends, order)
            assert np.array_equal(got, expected), name
            assert np.array_equal(ends, own_ends) or length == 0, name
            assert_rest_untouched(got, length)
    for threads in THREADS:
        got = kernels.new_total(length, order)
        parallel.sum_masks(got, seeds, positions, order, threads)
        assert np.array_equal(got, expected[:, 3 : 3 + length])


def larger_total(length: int, order: int) -> np.ndarray:
    """Return zeros in the middle of ones: the total is the range from 3 to 3 + length."""
    larger = np.full((kernels.plane_count(order), length + 7), 2**64 - 1, dtype=np.uint64)
    larger[:, 3 : 3 + length] = 0
    return larger


@in_shares(CONFIGS)
def test_models(share, portable, backends, length_for):
    """Masking, adding, taking away and unmasking, with weights a little beyond the bound."""
    for config in share:
        check_models(config, portable, backends, length_for)


def check_models(config, portable, backends, length_for):
    encoding = encoding_of(config, Fraction(1, 3))
    length = length_for(config.mean_keystream_bytes)
    position = unit_position(config.order)
    weights = random_weights(config, length)
    mask, _ = kernels.expand(SEED, config.order, length, position)
    masked, end, clipped_count = run_update(portable, weights, position, encoding)
    for name, backend in backends.items():
        longest = length_for(config.mean_keystream_bytes, name)
        for own_length in (0, 1, 9, 33, longest):
            own_masked, own_end, own_clipped = run_update(backend, weights[:own_length], position, encoding)
            assert np.array_equal(own_masked, masked[:own_length]), name
            if own_length == length:
                assert (own_end, own_clipped) == (end, clipped_count), name
        assert_same_sums(config, backend, portable, masked[:longest], mask[:longest])
    for threads in THREADS:
        got, got_clipped = parallel.update(weights, SEED, position, encoding, threads)
        assert np.array_equal(got, masked)
        assert got_clipped == clipped_count


def random_weights(config: MaskConfig, length: int) -> np.ndarray:
    source, dtype = np.random.default_rng(length), config.data_type.dtype
    if dtype.kind == "f":
        return (source.uniform(-1, 1, length) * min(2.0 * config.add_shift, 1e38)).astype(dtype)
    limit = min(2 * config.add_shift, np.iinfo(dtype).max)
    return source.integers(-limit, limit, length, dtype=dtype)


def run_update(backend, weights: np.ndarray, position: int, encoding: kernels.Encoding) -> tuple[np.ndarray, int, int]:
    masked, memory = unaligned((len(weights), kernels.element_bytes(encoding.order)))
    end, clipped_count = backend.update(masked, weights, SEED, position, encoding)
    assert_untouched(memory, masked)
    return masked, end, clipped_count


def assert_same_sums(config: MaskConfig, backend, portable, masked: np.ndarray, mask: np.ndarray) -> None:
    """Every kernel that draws nothing, in the order of a round; models as close as the contract says."""
    order, length = config.order, len(masked)
    offset = config.add_shift * config.exp_shift
    decoding = Decoding(order, offset, 3, config.exp_shift, 0, order - 1)
    results = []
    for one in (backend, portable):
        larger, elements = larger_total(length, order), np.empty_like(masked)
        total, model = larger[:, 3 : 3 + length], np.empty(length, dtype=config.data_type.dtype)
        one.aggregate(total, [masked], order)
        one.aggregate(total, [mask], order)
        unreduced = larger.copy()
        one.reduce(total, 3 if kernels.capacity(order) > 2 else 2, order)
        one.subtract(total, mask, order)
        one.unmask_elements(elements, total, mask, order)
        one.unmask(model, total, mask, decoding)
        results.append((unreduced, larger, elements, model, one.find_invalid(masked, order)))
    for got, expected in zip(results[0][:3], results[1][:3], strict=True):
        assert np.array_equal(got, expected), backend.name
    assert results[0][4] == results[1][4] == length
    assert_models_close(results[0][3], results[1][3])


def assert_models_close(got: np.ndarray, expected: np.ndarray) -> None:
    """Both are within one unit in the last place of the exact value, or two for float64; integers are equal."""
    if got.dtype.kind == "i":
        assert np.array_equal(got, expected)
    else:
        units = 4 if got.dtype == np.float64 else 2
        assert (np.abs(got - expected) <= units * np.spacing(np.maximum(np.abs(got), np.abs(expected)))).all()
