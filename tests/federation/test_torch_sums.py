"""The sums of rows through torch beside those of NumPy. They run where torch is, on its GPU or else on the CPU."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.errors import DeviceError
from pet.federation.statistics.devices import NUMPY, TorchDevice
from pet.federation.statistics.feature import Feature, Kind
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

torch = pytest.importorskip("torch", reason="without torch (.ci/run runs these tests in an environment that has it)")


@pytest.fixture(scope="module", autouse=True)
def device():
    with pytest.MonkeyPatch.context() as patch:
        if not torch.cuda.is_available():
            patch.setenv("PET_FORCE_DEVICE", "cpu")
        device = TorchDevice()
        device.open()
        yield device


def some_schema(count, *, has_missing=False, seed=1):
    """A third of the features binary, one in ten with a histogram."""
    random = np.random.default_rng(seed)
    features = []
    for i in range(count):
        if i % 3 == 2:
            features.append(Feature(name=f"f{i:04}", kind=Kind.BINARY))
            continue
        centre, scale = float(random.normal(0, 1000)), float(2.0 ** random.integers(-8, 9))
        edges = tuple(centre + scale * np.linspace(-3, 3, int(random.integers(2, 20)))) if i % 10 == 0 else ()
        features.append(Feature(name=f"f{i:04}", centre=centre, scale=scale, edges=edges))
    return Schema(tuple(features), has_missing=has_missing)


def some_rows(schema, count, seed=1):
    random = np.random.default_rng(seed)
    rows = schema.centres + schema.scales * np.clip(random.normal(0.3, 1, (count, len(schema))), -9.9, 9.9)
    rows[:, schema.binary] = random.random((count, len(schema.binary))) < 0.3
    if schema.has_missing:
        rows[random.random(rows.shape) < 0.15] = np.nan
    for place, feature in enumerate(schema.features):
        if feature.edges:
            rows[0, place] = feature.edges[0]  # a value on an edge belongs to the bin above
    return rows


def sums_of_magnitudes(rows, schema):
    """Each sum over absolute values: what the rounding errors of the sum are relative to."""
    return Statistics.of(schema.centres + np.abs(rows - schema.centres), schema, device=NUMPY).values


@given(
    count=st.integers(1, 12),
    rows=st.one_of(st.integers(1, 40), st.integers(4090, 4100)),
    has_missing=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_the_sums_are_those_of_numpy(device, count, rows, has_missing, seed):
    schema = some_schema(count, has_missing=has_missing, seed=seed)
    table = some_rows(schema, rows, seed)
    ours, theirs = (Statistics.of(table, schema, device=place) for place in (device, NUMPY))
    assert ours.rows == theirs.rows == rows
    assert (np.abs(ours.values - theirs.values) <= 1e-12 * sums_of_magnitudes(table, schema)).all()
    assert np.array_equal(ours.values[schema.integral], theirs.values[schema.integral])


@pytest.mark.parametrize("count", [20, 200])
def test_many_features_have_the_sums_of_numpy(device, count):
    schema = some_schema(count, has_missing=True)
    table = some_rows(schema, 10_000)
    ours, theirs = (Statistics.of(table, schema, device=place) for place in (device, NUMPY))
    assert (np.abs(ours.values - theirs.values) <= 1e-12 * sums_of_magnitudes(table, schema)).all()


def test_arrays_that_torch_does_not_take_as_they_are_are_learned(device):
    schema = some_schema(7)
    rows = some_rows(schema, 100)
    expected = Statistics.of(rows, schema, device=device)
    frozen = rows.copy()
    frozen.flags.writeable = False
    wide = np.zeros((200, 14))
    wide[::2, ::2] = rows
    for same in (frozen, np.asfortranarray(rows), rows[::-1].copy()[::-1], wide[::2, ::2], rows.astype(">f8")):
        assert Statistics.of(same, schema, device=device) == expected


def test_forgetting_on_the_device_leaves_what_was_there_before(device):
    schema = some_schema(30, has_missing=True)
    kept, gone = some_rows(schema, 500), some_rows(schema, 20_000, seed=3)
    before = Statistics.of(kept, schema, device=device)
    statistics = before.copy()
    statistics.learn(gone)
    statistics.forget(gone)
    assert statistics == before
    statistics.forget(kept)
    assert statistics == Statistics(schema)


class CountingDevice(TorchDevice):
    """Counts the blocks that are computed on it."""

    blocks = 0

    def computing(self):
        self.blocks += 1
        return super().computing()


def test_rows_are_learned_and_forgotten_on_the_device_of_the_statistics():
    schema, device = some_schema(3), CountingDevice()
    statistics = Statistics(schema, device=device)
    restored = Statistics.from_bytes(statistics.to_bytes(), schema, device=device)
    for other in (statistics, statistics.copy(), statistics + Statistics(schema), restored):
        before = device.blocks
        other.learn(some_rows(schema, 10))
        other.forget(some_rows(schema, 10))
        assert device.blocks == before + 2


def test_statistics_of_two_schemas_take_turns_on_one_device(device):
    for schema in (some_schema(4, seed=1), some_schema(5, seed=2), some_schema(4, seed=1)):
        rows = some_rows(schema, 50)
        np.testing.assert_allclose(
            Statistics.of(rows, schema, device=device).values, Statistics.of(rows, schema, device=NUMPY).values, atol=1e-10
        )


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("PET_FORCE_DEVICE", "cuda:999")
    with pytest.raises(DeviceError, match=r"^device cuda:999: expected torch to compute on it, got: .+$") as refusal:
        TorchDevice().open()
    assert "\n" not in str(refusal.value)


OUT_OF_MEMORY = """
import resource
import numpy as np
from pet.errors import DeviceError
from pet.federation.statistics.devices import TorchDevice
from pet.federation.statistics.feature import Feature
from pet.federation.statistics.schema import Schema
from pet.federation.statistics.statistics import Statistics

schema = Schema(tuple(Feature(name=f"f{i}") for i in range(2000)))
rows = np.ones((4096, 2000))
statistics = Statistics(schema, device=TorchDevice())
statistics.learn(rows[:2])
before = statistics.copy()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 250 * 2**20,) * 2)
try:
    statistics.learn(rows)
except DeviceError as error:
    print(error)
print(statistics == before, statistics.rows)
"""


def test_a_device_without_memory_is_an_error_that_changes_nothing():
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PET_FORCE_DEVICE": "cpu"},
    )
    assert re.fullmatch(r"device cpu: expected torch to compute on it, got: .*memory.*\nTrue 2\n", done.stdout), done
