"""Nanoseconds of each kernel on each back-end: the cases of `pet bench` under pytest-benchmark, each result checked once.

    pytest benchmarks/test_bench_kernels.py --benchmark-enable --benchmark-group-by=func,param:config

Measured from 10^3 to 25 x 10^6 weights, or at the sizes in PET_BENCH_SIZES (as 1e3,1e6); as a mere test, only at 10^3.
"""

import functools
import os

import numpy as np
import pytest

from pet import kernels
from pet.commands.bench_workload import VECTOR_COUNT, Workload
from pet.mask_config import MaskConfig

TEST_LENGTH = 1_000
TEST_BYTES = 100_000
LENGTHS = "1e3,1e4,1e5,1e6,1e7,25e6"
#: The reference needs a hundred microseconds for what the others do in nanoseconds.
REFERENCE_LENGTH = 10
#: A config whose mask takes kilobytes of keystream for each weight is measured up to here.
SLOW_LENGTH = 100_000
SLOW_KEYSTREAM_BYTES = 1_000
CONFIGS = ("prime-f32-b0-m3", "power2-f32-b0-m6", "prime-f64-b6-m6", "prime-i64-b2-m3", "prime-f32-bmax-m3")


def pytest_generate_tests(metafunc):
    measured = metafunc.config.getoption("benchmark_enable")
    sizes = os.environ.get("PET_BENCH_SIZES", LENGTHS) if measured else str(TEST_LENGTH)
    cases = [
        (backend, config, length)
        for backend in kernels.available_backends()
        for config in CONFIGS
        for length in (int(float(size)) for size in sizes.split(","))
        if length <= SLOW_LENGTH or MaskConfig.parse(config).mean_keystream_bytes < SLOW_KEYSTREAM_BYTES
    ]
    metafunc.parametrize(("backend", "config", "length"), cases)


@functools.lru_cache(maxsize=1)
def make_workload(backend, config, length, wanted_bytes):
    return Workload(MaskConfig.parse(config), REFERENCE_LENGTH if backend == "reference" else length, 1, wanted_bytes)


@pytest.fixture
def workload(backend, config, length, request):
    """Give other data to every call: more than the caches hold where times count, and little in a mere test."""
    kernels.select_backend(backend)
    yield make_workload(backend, config, length, None if request.config.getoption("benchmark_enable") else TEST_BYTES)
    kernels.select_backend(None)


def test_expand(benchmark, workload):
    elements = benchmark(workload.expand)
    assert kernels.find_invalid(elements, workload.config.order) is None


def test_update(benchmark, workload):
    masked = benchmark(workload.update)
    assert kernels.find_invalid(masked, workload.config.order) is None


def test_mask_only(benchmark, workload):
    masked = benchmark(workload.mask_only)
    assert kernels.find_invalid(masked, workload.config.order) is None


def test_sum_masks(benchmark, workload):
    mask = benchmark(workload.sum_masks)
    assert kernels.find_invalid(mask.vect, workload.config.order) is None


@pytest.mark.parametrize("count", [1, VECTOR_COUNT])
def test_aggregate(benchmark, workload, count):
    total = benchmark(workload.aggregate, count)
    assert total.shape[1] == workload.length


def test_unmask(benchmark, workload):
    model = benchmark(workload.unmask)
    step = 2 / workload.config.exp_shift
    if model.dtype.kind == "f":
        assert np.allclose(model, workload.weights, rtol=1e-6, atol=step)
    else:
        assert np.array_equal(model, workload.weights)


def test_encode_fractions(benchmark, workload):
    encoded = benchmark(workload.encode_fractions)
    model, used = kernels.decode_fractions(encoded, workload.length, workload.weights.dtype)
    assert used == len(encoded)
    assert np.allclose(model, workload.weights, rtol=1e-6, atol=2 / workload.config.exp_shift)
