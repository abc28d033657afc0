"""Several threads give what one gives, to the bit, errors included; here vectors are short, so every limit is set low."""

import itertools
import threading
from fractions import Fraction

import numpy as np
import pytest

import pet
from pet import kernels, parallel, parallel_draws
from pet.errors import AggregationError, ConfigError, ModelError, UnmaskError
from pet.mask_config import MaskConfig
from pet.masking import encoding_of

CONFIGS = ("prime-f32-b0-m3", "power2-f64-b2-m6", "integer-i64-b2-m9", "power2-f32-b0-m6", "prime-f32-bmax-m3")
THREADS = (1, 2, 3, 7)
SEED = bytes(range(32))


@pytest.fixture(autouse=True)
def split_short_vectors(monkeypatch):
    monkeypatch.setattr(parallel_draws, "_KEYSTREAM_BYTES_WORTH_A_THREAD", 64)
    monkeypatch.setattr(parallel_draws, "_PIECE_BYTES", 400)
    monkeypatch.setattr(parallel, "ELEMENTS_WORTH_A_THREAD", 1)
    monkeypatch.setattr(parallel, "_PIECE_LENGTH", 97)


def lengths_for(config: MaskConfig) -> tuple[int, ...]:
    return (0, 1, 2, 9, 65, 1003) if config.mean_keystream_bytes < 500 else (0, 1, 2, 65)


def random_model(config: MaskConfig, length: int) -> np.ndarray:
    return np.random.default_rng(length).uniform(-2, 2, length).astype(config.data_type.dtype)


@pytest.mark.parametrize("name", CONFIGS)
def test_expand_and_update(name):
    config = MaskConfig.parse(name)
    encoding = encoding_of(config, Fraction(1, 3))
    for length, position in itertools.product(lengths_for(config), (0, 3, 17)):
        mask, _ = kernels.expand(SEED, config.order, length, position)
        model = random_model(config, length)
        masked, _, clipped_count = kernels.update(model, SEED, position, encoding)
        for threads in THREADS:
            assert np.array_equal(parallel.expand(SEED, config.order, length, position, threads), mask)
            got, got_clipped = parallel.update(model, SEED, position, encoding, threads)
            assert (np.array_equal(got, masked), got_clipped) == (True, clipped_count)


@pytest.mark.parametrize("caution", [-3.0, 0.0, 30.0])
def test_pieces_that_hold_more_or_fewer_elements_than_thought(monkeypatch, caution):
    """Buffers too small, draws beyond the last element, and nearly everything left for the end."""
    monkeypatch.setattr(parallel_draws, "_CAUTION", caution)
    monkeypatch.setattr(parallel_draws, "_FEW", 1)
    order = MaskConfig.parse("prime-f32-b0-m3").order
    for length in (1, 5, 65, 1003):
        mask, _ = kernels.expand(SEED, order, length, 5)
        for threads in THREADS:
            assert np.array_equal(parallel.expand(SEED, order, length, 5, threads), mask)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("seed_count", [1, 2, 5])
def test_sum_masks(name, seed_count):
    """More seeds than threads, fewer, and some left over."""
    config = MaskConfig.parse(name)
    seeds = b"".join(bytes([k]) * 32 for k in range(seed_count))
    positions = np.arange(seed_count, dtype=np.uint64)
    for length in lengths_for(config):
        total = kernels.new_total(length, config.order)
        kernels.sum_masks(total, seeds, positions.copy(), config.order)
        for threads in THREADS:
            got = kernels.new_total(length, config.order)
            parallel.sum_masks(got, seeds, positions, config.order, threads)
            assert np.array_equal(got, total)
    assert positions.tolist() == list(range(seed_count))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_round(name):
    config = MaskConfig.parse(name)
    for length in (0, 1, 65, 1003) if config.mean_keystream_bytes < 500 else (0, 1, 65):
        seeds, masked_models = [], []
        for k in range(3):
            seed = pet.MaskSeed(bytes([k]) * 32)
            masked_models.append(pet.mask_model(random_model(config, length), config, Fraction(1, 3), seed, threads=1)[1])
            seeds.append(seed)
        results = []
        for threads in THREADS:
            aggregation = pet.Aggregation(config, length)
            aggregation.add(masked_models[0], threads=threads)
            aggregation.add_many(masked_models[1:], threads=threads)
            model = aggregation.unmask(pet.sum_masks(seeds, config, length, threads), threads=threads)
            model.validate(threads=threads)
            results.append((aggregation.to_bytes(), model.to_array(threads=threads).tobytes()))
            assert seeds[0].derive_mask(config, length, threads=threads) == seeds[0].derive_mask(config, length, threads=1)
            masked = pet.mask_model(random_model(config, length), config, Fraction(1, 3), seeds[0], threads=threads)
            assert masked == (seeds[0], masked_models[0])
        assert len(set(results)) == 1


@pytest.mark.parametrize("name", ["prime-f32-b0-m3", "prime-f32-bmax-m3"])
@pytest.mark.parametrize("spoiled", [0, 500, 1002])
def test_an_invalid_element_changes_nothing(name, spoiled):
    config = MaskConfig.parse(name)
    aggregation = pet.Aggregation(config, 1003)
    rng = np.random.default_rng(1)
    vectors = [rng.integers(0, 255, (1003, config.element_bytes), dtype=np.uint8) for _ in range(3)]
    for vector in vectors:
        vector[:, -1] = 0
    aggregation.add(pet.MaskedModel(config, vectors[0], 1), threads=1)
    planes = aggregation._total.share(threads=1)
    # A carry through all planes, to be borrowed back.
    planes[:] = np.uint64(2**64 - 1)
    before = planes.copy()
    vectors[2][spoiled] = 255
    for threads in THREADS:
        with pytest.raises(AggregationError) as caught:
            parallel.aggregate(planes, vectors, config.order, threads)
        assert (caught.value.reason, caught.value.vector_index) == ("invalid_object", 2)
        assert (planes == before).all()
        assert parallel.find_invalid(vectors[2], config.order, threads) == spoiled
        assert parallel.find_invalid(vectors[1], config.order, threads) is None


def test_errors_are_those_of_one_thread():
    config = MaskConfig.parse("prime-f32-b0-m3")
    model = random_model(config, 1003)
    model[[700, 900]] = np.nan
    decoding = kernels.Decoding(config.order, 0, 1, 1, 0, 5)
    total = kernels.new_total(1003, config.order)
    total[0, [600, 800]] = 6
    mask = np.zeros((1003, config.element_bytes), dtype=np.uint8)
    for threads in THREADS:
        with pytest.raises(ModelError, match=r"at index 700$"):
            parallel.update(model, SEED, 0, encoding_of(config, Fraction(1)), threads)
        with pytest.raises(UnmaskError, match="weight 600 "):
            parallel.unmask(total, mask, decoding, np.dtype(np.float32), threads)


def test_a_failing_consumer_ends_the_drawing():
    order = MaskConfig.parse("prime-f32-b0-m3").order

    def fail(start: int, elements: kernels.Packed) -> None:
        raise KeyError(start)

    with pytest.raises(KeyError):
        parallel_draws.draw_together(SEED, order, 2000, 0, 3, fail)


def test_small_work_stays_with_the_caller(monkeypatch):
    monkeypatch.setattr(parallel, "ELEMENTS_WORTH_A_THREAD", 100)
    seen = []
    parallel.split(lambda part: seen.append((part.start, part.stop, threading.get_ident())), 199, 7)
    assert seen == [(0, 199, threading.get_ident())]
    order = MaskConfig.parse("prime-f32-b0-m3").order
    monkeypatch.undo()
    assert parallel_draws.threads_worth_drawing(order, 1000) == 0
    assert parallel_draws.threads_worth_drawing(order, 10**6) == 53


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5])
def test_a_bad_number_of_threads_is_refused_everywhere(threads):
    config = MaskConfig.parse("prime-f32-b0-m3")
    aggregation = pet.Aggregation(config, 3)
    seed, masked_model = pet.mask_model(np.zeros(3, dtype=np.float32), config)
    aggregation.add(masked_model)
    mask = seed.derive_mask(config, 3)
    for call in (
        lambda: pet.mask_model(np.zeros(3, dtype=np.float32), config, threads=threads),
        lambda: seed.derive_mask(config, 3, threads=threads),
        lambda: pet.sum_masks([seed], config, 3, threads=threads),
        lambda: aggregation.add(masked_model, threads=threads),
        lambda: aggregation.add_many([masked_model], threads=threads),
        lambda: aggregation.unmask(mask, threads=threads),
        lambda: aggregation.unmask(mask).to_array(threads=threads),
        lambda: mask.validate(threads=threads),
    ):
        with pytest.raises(ConfigError, match="threads: expected "):
            call()
    assert aggregation.count == 1
