"""The kernels that wait for memory, where the vector back-ends do more than a loop.

That is: outputs that are written past the caches, and the ways of making products exact. Each is held against the portable
code, which the other tests hold against the reference.
"""

from fractions import Fraction

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import SEED, assert_untouched, unaligned

from pet import kernels
from pet.errors import AggregationError
from pet.kernels import Decoding, Encoding, _backends
from pet.mask_config import MaskConfig
from pet.masking import encoding_of

VECTOR_BACKENDS = tuple(name for name in kernels.available_backends() if name in ("avx2", "avx512"))
#: Outputs from 4 MiB on are streamed (native/streaming.h); the odd length ends within a line and within a vector.
STREAMED_BYTES = 4 << 20
#: 6 bytes, 10 bytes in two planes, and 8 bytes in two planes.
ORDERS = (20_000_000_000_021, 2**78 - 93, 2**64 - 59)


@pytest.fixture(params=VECTOR_BACKENDS)
def vector_backend(request):
    return _backends.load_backend(request.param)


@pytest.fixture
def portable():
    return _backends.load_backend("portable")


def large_length(element_bytes: int) -> int:
    return STREAMED_BYTES // element_bytes + 515


def random_total(order: int, length: int) -> kernels.Total:
    """Draw a reduced total that is a range of a larger one, one word off its alignment."""
    elements, _ = kernels.expand(SEED, order, length)
    total = kernels.new_total(length + 9, order)[:, 1 : length + 1]
    kernels.aggregate(total, [elements], order)
    return total


@pytest.mark.parametrize("offset", [0, 1, 31])
@pytest.mark.parametrize("order", ORDERS)
def test_large_elements(vector_backend, portable, order, offset):
    """Packing and unmasking, at addresses that share lines with their neighbours."""
    length = large_length(kernels.element_bytes(order))
    total = random_total(order, length)
    mask, _ = kernels.expand(SEED[::-1], order, length)
    expected = np.empty((length, kernels.element_bytes(order)), dtype=np.uint8)
    out, memory = unaligned(expected.shape, offset)
    portable.pack(expected, total, order)
    vector_backend.pack(out, total, order)
    assert (out == expected).all()
    portable.unmask_elements(expected, total, mask, order)
    vector_backend.unmask_elements(out, total, mask, order)
    assert (out == expected).all()
    assert_untouched(memory, out)


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ORDERS)
def test_large_models(vector_backend, portable, order, dtype, offset):
    length = large_length(np.dtype(dtype).itemsize)
    total = random_total(order, length)
    mask, _ = kernels.expand(SEED[::-1], order, length)
    decoding = Decoding(order, order // 2, 3, order // 2**20, 0, order - 1)
    expected = np.empty(length, dtype=dtype)
    around = np.full(length + 40, 7, dtype=dtype)
    model = around[16 + offset : 16 + offset + length]
    portable.unmask(expected, total, mask, decoding)
    vector_backend.unmask(model, total, mask, decoding)
    assert np.allclose(model, expected, rtol=4e-16 if dtype == np.float64 else 1e-7, atol=0)
    assert (around[: 16 + offset] == 7).all()
    assert (around[16 + offset + length :] == 7).all()


@pytest.mark.parametrize("is_in_place", [False, True])
@pytest.mark.parametrize("config", ["prime-f32-b0-m3", "prime-f64-b0-m3"])
def test_large_masking(vector_backend, portable, config, is_in_place):
    config = MaskConfig.parse(config)
    length = large_length(config.element_bytes)
    elements, _ = kernels.expand(SEED, config.order, length)
    weights = np.random.default_rng(3).uniform(-1.01, 1.01, length).astype(config.data_type.dtype)
    encoding = encoding_of(config, Fraction(1, 3))
    expected = np.empty_like(elements)
    clipped = portable.mask_weights(expected, weights, elements, encoding)
    out, memory = unaligned(elements.shape, 5)
    if is_in_place:
        out[:] = elements
    assert vector_backend.mask_weights(out, weights, out if is_in_place else elements, encoding) == clipped
    assert (out == expected).all()
    assert_untouched(memory, out)


def awkward_weights(dtype: np.dtype, bound: float) -> np.ndarray:
    """Weights around whole steps, clamps and the limits of the type, among random ones."""
    generator = np.random.default_rng(11)
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        bound = min(int(bound), limits.max)
        edges = [0, 1, -1, 3, -3, bound, -bound, limits.max, limits.min, limits.min + 1]
        return np.array([*edges, *generator.integers(-bound, bound, 991, endpoint=True)], dtype=dtype)
    edges = np.array([0, -0.0, 1 / 3, -1 / 3, 0.1, -0.1, 0.5, -0.5, bound, -bound, 1e-300, -1e-40], dtype=dtype)
    edges = np.concatenate([edges, np.nextafter(edges, dtype.type(np.inf)), np.nextafter(edges, dtype.type(-np.inf))])
    random = generator.uniform(-bound, bound, 1001).astype(dtype)
    huge = np.array([np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).smallest_subnormal], dtype=dtype)
    return np.concatenate([edges, random, np.round(random * 4) / 4, huge])


@in_turn("scalar", [Fraction(1), Fraction(1, 3), Fraction(1, 1024), Fraction(7, 10**6), Fraction(1, 10**9)], ids=str)
@in_turn(
    "config",
    [
        *("prime-f32-b0-m3", "prime-f32-b2-m3", "prime-f32-b4-m6", "prime-f32-b6-m3", "power2-f32-b0-m12"),
        *("prime-i32-b0-m3", "prime-i32-b2-m6", "integer-i32-b6-m9", "prime-i32-bmax-m3"),
        *("prime-i64-b0-m3", "prime-i64-b2-m3", "prime-i64-b4-m6", "integer-i64-b6-m3", "prime-i64-bmax-m3"),
        *("prime-f64-b0-m3", "prime-f64-b6-m6"),
    ],
)
def test_products_are_exact(vector_backend, portable, config, scalar):
    """One multiplication, or the sum of two doubles, in one plane or two: the bytes are those of integer arithmetic."""
    config = MaskConfig.parse(config)
    encoding = encoding_of(config, scalar)
    bound = float(min(config.add_shift / scalar, 10**300))
    weights = awkward_weights(config.data_type.dtype, bound if config.data_type.dtype.kind == "i" else min(1.02 * bound, 1e30))
    elements, _ = kernels.expand(SEED, config.order, len(weights))
    expected, masked = np.empty_like(elements), np.empty_like(elements)
    clipped = portable.mask_weights(expected, weights, elements, encoding)
    assert vector_backend.mask_weights(masked, weights, elements, encoding) == clipped
    assert (masked == expected).all()


def test_every_product_a_whole_number(vector_backend, portable):
    """Every lane is in doubt when the scale is no double and all products are integers."""
    order = 20_000_000_000_021
    encoding = Encoding(order, 10**10, 10**10, 3)
    weights = (3 * np.arange(-300, 300)).astype(np.float32) / np.float32(1024)
    elements, _ = kernels.expand(SEED, order, len(weights))
    expected, masked = np.empty_like(elements), np.empty_like(elements)
    clipped = portable.mask_weights(expected, weights, elements, encoding)
    assert vector_backend.mask_weights(masked, weights, elements, encoding) == clipped
    assert (masked == expected).all()


@in_turn("bound", [1, 2, 1000, 2**32 - 1])
@in_turn("order", [2, 3, 257, 2**31 + 11, *ORDERS, 2**62 - 57, 2**63, 2**63 + 29, 2**95 - 17, 2**127 - 1])
def test_reduction(vector_backend, portable, order, bound):
    """Values at the edges of every multiple of the order that fits, and anywhere between them."""
    bound = min(bound, kernels.capacity(order))
    room = min(bound * order, 2 ** (64 * kernels.plane_count(order)))
    generator = np.random.default_rng(7)
    multiples = [int(generator.integers(0, bound)) * order for _ in range(100)] + [0, (bound - 1) * order]
    values = [min(room - 1, max(0, multiple + step)) for multiple in multiples for step in (-1, 0, 1, order // 2, order - 1)]
    total = kernels.new_total(len(values), order)
    for plane in range(total.shape[0]):
        total[plane] = [value >> 64 * plane & (2**64 - 1) for value in values]
    expected = total.copy()
    portable.reduce(expected, bound, order)
    vector_backend.reduce(total, bound, order)
    assert (total == expected).all()


@in_turn("dtype", [np.int32, np.int64])
@in_turn(
    "numerator, denominator",
    [(1, 10**10), (1, 1), (7, 3), (10**10, 3 * 10**10 + 1), (2**63 - 25, 2**62 - 57), (1, 2**62), (2**40, 3), (3, 2**70)],
)
@in_turn("order", [257, 20_000_000_000_021, 2**63])
def test_integers_are_truncated_exactly(vector_backend, portable, order, numerator, denominator, dtype):
    """Differences around every multiple of a step, where an estimate of the quotient is wrong by one."""
    offset = order // 3
    generator = np.random.default_rng(9)
    steps = [int(step) * denominator // numerator for step in generator.integers(-1000, 1000, 300)]
    steps += [int(step) for step in generator.integers(-offset, order - offset, 301)]
    differences = [(offset + step + around) % order for step in steps for around in (-1, 0, 1)]
    total = np.array([differences], dtype=np.uint64)
    mask = np.zeros((len(differences), kernels.element_bytes(order)), dtype=np.uint8)
    decoding = Decoding(order, offset, numerator, denominator, 0, order - 1)
    expected, model = np.empty(len(differences), dtype=dtype), np.empty(len(differences), dtype=dtype)
    portable.unmask(expected, total, mask, decoding)
    vector_backend.unmask(model, total, mask, decoding)
    assert (model == expected).all()


@in_turn("length", [0, 1, 3, 4, 5, 7, 8, 9, 31, 32, 33, 1003])
@in_turn("order", [2**128 + 51, 2**191 + 1, 2**289 - 31, 2**512, 2**512 + 75, 256**268 - 5, 256**272 - 1])
def test_wide_elements(vector_backend, portable, order, length):
    """Elements of many limbs: added, checked, and taken away again where one is invalid."""
    elements, _ = kernels.expand(SEED, order, 3 * length)
    vectors = []
    for k in range(3):
        vector, _ = unaligned((length, kernels.element_bytes(order)), k)
        vector[:] = elements[k * length : (k + 1) * length]
        vectors.append(vector)
    larger = np.full((kernels.plane_count(order), length + 9), 2**64 - 1, dtype=np.uint64)
    total, expected = larger[:, 1 : length + 1], kernels.new_total(length, order)
    total[:] = 0
    for backend, sums in ((portable, expected), (vector_backend, total)):
        backend.aggregate(sums, vectors, order)
    assert (total == expected).all()
    assert vector_backend.find_invalid(vectors[0], order) == length
    for index in {0, length // 2, length - 1} if length and order < 256 ** kernels.element_bytes(order) - 1 else ():
        spoiled = vectors[1].copy()
        spoiled[index] = 255
        assert vector_backend.find_invalid(spoiled, order) == index
        with pytest.raises(AggregationError) as caught:
            vector_backend.aggregate(total, [vectors[0], spoiled, spoiled], order)
        assert caught.value.vector_index == 1
        assert (total == expected).all()
    assert (larger[:, :1] == 2**64 - 1).all()
    assert (larger[:, length + 1 :] == 2**64 - 1).all()
