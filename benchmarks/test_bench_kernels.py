"""Nanoseconds of each kernel on each back-end: the cases of `pet bench` under pytest-benchmark, each result checked once.

pytest benchmarks --benchmark-enable
"""

import functools

import numpy as np
import pytest

from pet import kernels
from pet.commands.bench_kernels import VECTOR_COUNT, Workload
from pet.mask_config import MaskConfig

LENGTH = 10_000
#: The reference needs a hundred microseconds for what the others do in nanoseconds.
REFERENCE_LENGTH = 10
CONFIGS = ("prime-f32-b0-m3", "power2-f32-b0-m6", "prime-f64-b6-m6", "prime-i64-b2-m3", "prime-f32-bmax-m3")


@pytest.fixture(params=kernels.available_backends())
def backend(request):
    kernels.select_backend(request.param)
    yield request.param
    kernels.select_backend(None)


@functools.cache
def make_workload(config, backend):
    return Workload(MaskConfig.parse(config), REFERENCE_LENGTH if backend == "reference" else LENGTH)


@pytest.fixture(params=CONFIGS)
def workload(request, backend):
    return make_workload(request.param, backend)


def test_expand(benchmark, workload):
    elements = benchmark(workload.expand)
    assert kernels.find_invalid(elements, workload.config.order) is None


def test_update(benchmark, workload):
    masked = benchmark(workload.update)
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
