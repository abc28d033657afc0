"""Several vectors of one model, masked, added and unmasked together."""

import numpy as np
import pytest

import pet
from pet.errors import AggregationError, ConfigError, ModelError, RemoteProtocolError, UnmaskError

WEIGHTS = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=100")
COUNTS = pet.MaskConfig.parse("pet-1/z64,int,models=100")
XAYNET = pet.MaskConfig.parse("prime-f64-b0-m3")
CONFIGS = [WEIGHTS, COUNTS, XAYNET]
LENGTHS = [5, 2, 3]


def vectors(index):
    generator = np.random.default_rng(index)
    return [
        generator.uniform(-1, 1, 5).astype(np.float32),
        generator.integers(0, 2**40, 2),
        generator.uniform(-1, 1, 3),
    ]


def masks_of(all_seeds):
    return [
        pet.sum_masks(seeds, config, length)
        for seeds, config, length in zip(zip(*all_seeds, strict=True), CONFIGS, LENGTHS, strict=True)
    ]


def test_vectors_of_different_configs_become_their_means_and_totals():
    total = pet.VectorAggregation(CONFIGS, LENGTHS)
    all_seeds = []
    shares = [0.5, 0.25, 0.25]
    for index, share in enumerate(shares):
        seeds, masked = pet.mask_vectors(vectors(index), CONFIGS, [share, 1, share])
        total.add(pet.MaskedVectors.from_bytes(masked.to_bytes()))
        all_seeds.append(seeds)
    assert total.count == 3
    weights, counts, doubles = total.unmask(masks_of(all_seeds))
    expected = [sum(share * vectors(index)[part] for index, share in enumerate(shares)) for part in (0, 2)]
    assert np.abs(weights.to_array() - expected[0]).max() < 1e-6
    assert np.abs(doubles.to_array() - expected[1]).max() < 1e-9
    assert counts.to_array().tolist() == sum(vectors(index)[1] for index in range(3)).tolist()


def test_masks_of_the_vectors_are_of_different_seeds():
    seeds, masked = pet.mask_vectors([np.zeros(4, np.float32)] * 3, [WEIGHTS] * 3)
    assert len(set(seeds)) == len(masked) == 3


def test_models_are_added_whole_or_not_at_all():
    total = pet.VectorAggregation(CONFIGS, LENGTHS)
    seeds, masked = pet.mask_vectors(vectors(0), CONFIGS, [0.5, 1, 0.5])
    total.add(masked)
    before = [part.to_bytes() for part in total.parts]
    _, other = pet.mask_vectors(vectors(1), CONFIGS, [0.5, 1, 0.5])
    # An element outside of the group shows only when the vector is added: the others are in by then.
    broken = pet.MaskedModel(other.models[2].config, np.full_like(other.models[2].vect, 255), other.models[2].unit)
    for models in ((*other.models[:2], broken), (other.models[0], other.models[2], other.models[1])):
        with pytest.raises(AggregationError):
            total.add(pet.MaskedVectors(models))
        assert [part.to_bytes() for part in total.parts] == before
    assert total.count == 1
    assert total.unmask(masks_of([seeds]))[1].to_array().tolist() == vectors(0)[1].tolist()


@pytest.mark.parametrize("masked", [None, [], "x", pet.mask_vectors([np.ones(5, np.float32)], [WEIGHTS])[1]], ids=range(4))
def test_other_things_are_not_added(masked):
    total = pet.VectorAggregation(CONFIGS, LENGTHS)
    with pytest.raises(ModelError, match="masked vectors: expected MaskedVectors of 3, got "):
        total.add(masked)
    assert total.count == 0


def test_arguments_that_do_not_belong_together_are_refused():
    own = vectors(0)
    with pytest.raises(ModelError, match="configs: expected 3, one for each vector, got 2"):
        pet.mask_vectors(own, CONFIGS[:2])
    with pytest.raises(ModelError, match="scalars: expected 3, one for each vector, got 1"):
        pet.mask_vectors(own, CONFIGS, [1])
    with pytest.raises(ModelError, match="vectors: expected 1 to 64, got 0"):
        pet.mask_vectors([], [])
    with pytest.raises(ModelError, match="vectors: expected a list, one for each vector, got ndarray"):
        pet.mask_vectors(own[0], [WEIGHTS])
    with pytest.raises(ModelError, match="vector 1: scalar: expected a whole number"):
        pet.mask_vectors(own, CONFIGS, 0.5)
    with pytest.raises(ModelError, match="vector 2: weights: expected float64"):
        pet.mask_vectors([own[0], own[1], own[0]], CONFIGS)
    with pytest.raises(ModelError, match="lengths: expected 3, one for each vector, got 1"):
        pet.VectorAggregation(CONFIGS, [1])
    with pytest.raises(ConfigError):
        pet.VectorAggregation([None], [1])
    total = pet.VectorAggregation(CONFIGS, LENGTHS)
    with pytest.raises(ModelError, match="masks: expected 3, one for each vector, got 0"):
        total.unmask([])
    with pytest.raises(ModelError, match="masks: expected a list, one for each vector, got NoneType"):
        total.unmask(None)
    with pytest.raises(UnmaskError, match="vector 0: expected at least one masked model, got none") as caught:
        total.unmask(masks_of([pet.mask_vectors(own, CONFIGS)[0]]))
    assert caught.value.reason == "no_model"


def test_clipped_weights_are_counted_over_all_vectors():
    _, masked = pet.mask_vectors([np.full(3, 2, np.float32), np.full(2, 2.0)], [WEIGHTS, XAYNET])
    assert masked.clipped_count == 5
    with pytest.raises(ModelError, match="vector 0: weights: expected scalar"):
        pet.mask_vectors([np.full(3, 2, np.float32)], [WEIGHTS], on_clip="raise")


def test_bytes_that_are_cut_or_changed_are_refused():
    _, masked = pet.mask_vectors(vectors(0), CONFIGS, [0.5, 1, 0.5])
    data = masked.to_bytes()
    for length in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            pet.MaskedVectors.from_bytes(data[:length])
    with pytest.raises(RemoteProtocolError, match="expected nothing after vector 2, got 1 bytes"):
        pet.MaskedVectors.from_bytes(data + b"\0")
    for other in (None, 5, "text", []):
        with pytest.raises(ModelError, match="bytes: expected a contiguous buffer, got "):
            pet.MaskedVectors.from_bytes(other)
    for position in range(14, 26):
        changed = bytearray(data)
        changed[position] ^= 0xFF
        with pytest.raises(RemoteProtocolError):
            pet.MaskedVectors.from_bytes(changed)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_counts_are_signed_in_most_frameworks(dtype):
    counts = np.array([0, 5, 2**50], dtype)
    seed, masked = pet.mask_model(counts, COUNTS)
    total = pet.Aggregation(COUNTS, 3)
    total.add(masked)
    assert total.unmask(seed.derive_mask(COUNTS, 3)).to_array().tolist() == counts.tolist()


def test_negative_counts_are_refused():
    for models in (100, 1):
        with pytest.raises(ModelError, match=r"weights: expected integers of 0 to \d+, got -1"):
            pet.mask_model(np.array([3, -1]), pet.MaskConfig.parse(f"pet-1/z64,int,models={models}"))
    with pytest.raises(ModelError, match="expected uint64 of one dimension, got int32"):
        pet.mask_model(np.ones(2, np.int32), COUNTS)
