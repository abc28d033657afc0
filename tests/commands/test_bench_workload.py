"""The data that `pet bench` measures: different in every pass, more than a cache holds, never more than announced."""

import itertools
import tracemalloc

import numpy as np
import pytest

from pet import kernels, parallel
from pet.commands import bench_memory
from pet.commands.bench_fields import FieldRotation, FieldWorkload, most_weights
from pet.commands.bench_kernels import Case, measure
from pet.commands.bench_workload import VECTOR_COUNT, RotationSizes, Workload, workload_bytes
from pet.kernels import fields
from pet.mask_config import MaskConfig

CONFIG = MaskConfig.parse("prime-f32-b0-m3")
CONFIGS = ["prime-f32-b0-m3", "power2-f64-bmax-m12", "integer-i32-bmax-m3", "prime-i64-bmax-m12"]
#: Enough for a handful of models of 50 weights.
FEW_BYTES = 5_000


FIELD_CONFIGS = [
    MaskConfig.parse(text)
    for text in ("pet-1/z32,f32,bound=1,models=9", "pet-1/z64,f64,bound=3,models=1", "pet-1/z64,int,models=7")
]


def addresses(arrays):
    return [array.__array_interface__["data"][0] for array in arrays]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_workload_unmasks_to_its_own_models(config):
    workload = Workload(MaskConfig.parse(config), 50, wanted_bytes=FEW_BYTES)
    for _ in range(2 * workload.sizes.models):
        assert np.allclose(workload.unmask(), workload.weights, rtol=1e-6, atol=1e-9)


def test_eight_different_vectors_are_added_and_others_in_the_next_pass(monkeypatch):
    workload = Workload(CONFIG, 50, wanted_bytes=FEW_BYTES)
    added = []
    monkeypatch.setattr(parallel, "aggregate", lambda total, vectors, order, threads: added.append((total, vectors)))
    for _ in range(2):
        workload.aggregate(VECTOR_COUNT)
    vectors = [vector for _, pass_vectors in added for vector in pass_vectors]
    assert len(set(addresses(vectors))) == 2 * VECTOR_COUNT
    assert len({vector.tobytes() for vector in vectors}) == 2 * VECTOR_COUNT
    assert len(set(addresses(total for total, _ in added))) == 2


@pytest.mark.parametrize("name", ["expand", "update", "mask_only", "sum_masks", "unmask", "encode_fractions"])
def test_no_two_passes_in_a_row_give_the_same(name):
    workload = Workload(CONFIG, 50, wanted_bytes=FEW_BYTES)

    def result():
        found = getattr(workload, name)()
        return (found.vect if name == "sum_masks" else found).tobytes()

    results = [result() for _ in range(4)]
    assert all(first != second for first, second in itertools.pairwise(results))


@pytest.mark.parametrize("config", CONFIGS)
def test_masked_models_are_valid_and_totals_do_not_overflow(config):
    parsed = MaskConfig.parse(config)
    workload = Workload(parsed, 10, wanted_bytes=FEW_BYTES)
    expected = np.zeros(10, dtype=object)
    workload._totals = itertools.cycle([next(workload._totals)])  # all additions into one
    for _ in range(5):
        vectors = list(itertools.islice(workload._masked, VECTOR_COUNT))
        assert all(kernels.find_invalid(vector, parsed.order) is None for vector in vectors)
        expected += sum(np.array([int.from_bytes(row.tobytes(), "little") for row in vector]) for vector in vectors)
        workload._masked = itertools.chain(vectors, workload._masked)
        total = workload.aggregate(VECTOR_COUNT)
    found = [sum(int(plane[i]) << 64 * k for k, plane in enumerate(total)) for i in range(10)]
    assert [value % parsed.order for value in found] == [int(value) % parsed.order for value in expected]


@pytest.mark.parametrize("config", FIELD_CONFIGS, ids=str)
def test_a_workload_of_a_field_gives_what_its_cases_say(config):
    workload, order, step = FieldWorkload(config, 300, wanted_bytes=FEW_BYTES), config.order, 2 * config.bound / config.levels
    models = list(itertools.islice(workload._weights, workload.sizes.models))
    for weights in models * 2:
        for call in (workload.expand, workload.update, workload.add, workload.multiply_add):
            assert fields.find_above(call(), order - 1, order) is None
        assert 0 <= workload.inner_product() < order
        if config.dtype.kind == "f":
            assert np.abs(workload.decode() - weights).max() <= step + 1e-6
            assert np.abs(workload.unmask() - weights).max() <= step + 1e-6
            assert fields.find_above(workload.encode(), config.levels, order) is None
        else:
            assert np.array_equal(workload.unmask(), weights)
    mask = workload.sum_masks()
    assert mask.seed_count == VECTOR_COUNT
    mask.validate()


@pytest.mark.parametrize("config", FIELD_CONFIGS, ids=str)
def test_a_workload_of_a_field_rotates_and_takes_no_more_memory_than_announced(config):
    length, wanted = 20_000, 1 << 20
    sizes = FieldRotation.of(config, length, wanted)
    assert min(sizes.vectors * config.element_bytes, sizes.models * config.dtype.itemsize) * length >= wanted
    tracemalloc.start()
    try:
        workload = FieldWorkload(config, length, wanted_bytes=wanted)
        results = [workload.update().tobytes() for _ in range(3)]
        for case in workload.cases():
            case.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(results)) == 3
    assert peak <= sizes.total_bytes(config, length) + (1 << 20)
    most = most_weights(config, 1 << 34)
    least = FieldRotation.of(config, most, 0)
    assert least.total_bytes(config, most) <= 1 << 34 < least.total_bytes(config, most + 1)


@pytest.mark.parametrize("length", [1_000, 100_000, 30_000_000])
def test_the_rotation_is_larger_than_the_caches(length):
    wanted = 64 << 20
    sizes = RotationSizes.of(CONFIG, length, wanted)
    assert sizes.masked_models * length * CONFIG.element_bytes >= wanted
    assert sizes.models * length * (CONFIG.element_bytes + 4) >= wanted
    assert sizes.masked_models >= 2 * VECTOR_COUNT


@pytest.mark.parametrize("config", CONFIGS)
def test_a_workload_takes_no_more_memory_than_announced(config):
    """NumPy reports its arrays to tracemalloc; beside them there are only small objects, the views of the rotation."""
    parsed, length = MaskConfig.parse(config), 20_000
    wanted = 1 << 20
    tracemalloc.start()
    try:
        for case in Workload(parsed, length, wanted_bytes=wanted).cases():
            case.run()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # It also reports what a large array leaves untouched before and behind it, so that it lies in huge pages: 4 MiB at most.
    spare = (4 << 20) if length * parsed.element_bytes >= 1 << 20 else 1 << 20
    assert peak <= RotationSizes.of(parsed, length, wanted).total_bytes(parsed, length) + spare


def test_the_most_weights_are_the_most_that_fit():
    usable = 1 << 34
    most = most_weights(CONFIG, usable)
    smallest = RotationSizes.of(CONFIG, most, 0)
    assert smallest.total_bytes(CONFIG, most) <= usable < smallest.total_bytes(CONFIG, most + 1)


def test_a_rotation_fits_the_memory_beside_everything_else(monkeypatch):
    monkeypatch.setattr(bench_memory, "_free_bytes", lambda: iter([1 << 28]))
    assert bench_memory.rotation_bytes() <= (1 << 28) // 16
    assert workload_bytes(CONFIG, 10_000) <= bench_memory.usable_bytes()


def test_a_cache_larger_than_usual_makes_the_rotation_larger(monkeypatch, tmp_path):
    for index, size in enumerate(["32K", "1024K", "96M"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(size + "\n")
    monkeypatch.setattr(bench_memory, "_CACHES", tmp_path)
    monkeypatch.setattr(bench_memory, "_free_bytes", lambda: iter([1 << 40]))
    assert bench_memory.largest_cache_bytes() == 96 << 20
    assert bench_memory.rotation_bytes() == 2 * (96 << 20)


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    limit, used = tmp_path / "limit", tmp_path / "used"
    limit.write_text("1000000\n")
    used.write_text("400000\n")
    monkeypatch.setattr(bench_memory, "_CONTAINER_LIMITS", ((limit, used),))
    assert bench_memory.usable_bytes() == 480_000
    limit.write_text("max\n")
    assert bench_memory.usable_bytes() > 480_000


def test_a_slow_case_is_timed_in_few_passes():
    calls = []
    timing = measure(Case(name="", limit="memory", limit_bytes=1, units=1, threads=1, run=lambda: calls.append(0)))
    assert 5 <= timing.passes <= 200
    assert len(calls) == timing.passes + 1
    assert timing.best <= timing.median
