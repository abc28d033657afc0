"""Masking, aggregating and unmasking with pet-1 (docs/spec/profile.md 3 and 4): vectors, slices, parts, and exact means."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_files import load_vectors

import pet
from pet import kernels, parallel
from pet.errors import AggregationError, ConfigError, ModelError, RemoteProtocolError, StateError, UnmaskError
from pet.kernels import _reference_fields as reference
from pet.kernels import fields

Z32 = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=1000")
Z64 = pet.MaskConfig.parse("pet-1/z64,f64,bound=0.25,models=7")
INTEGERS = pet.MaskConfig.parse("pet-1/z64,int,models=15")
SMALL_INTEGERS = pet.MaskConfig.parse("pet-1/z32,int,models=3")
CONFIGS = (Z32, Z64, INTEGERS, SMALL_INTEGERS)
#: In test_kernel_fields.py the reference is one back-end more; whole models in Python integers take seconds.
COMPILED = [name for name in kernels.available_backends() if name != "reference"]
XAYNET = pet.MaskConfig.parse("prime-f32-b0-m3")
SEEDS = [pet.MaskSeed(bytes([number]) * 32) for number in range(1, 6)]
THREADS = (1, 2, 3)


@pytest.fixture
def small_pieces(monkeypatch):
    """Let small vectors be split among threads, into many pieces."""
    monkeypatch.setattr(parallel, "ELEMENTS_WORTH_A_THREAD", 1)
    monkeypatch.setattr("pet.parallel_fields._PIECE_LENGTH", 300)
    monkeypatch.setattr("pet.totals._PIECE_LENGTH", 70)


def weights_for(config, length, seed=0):
    source = np.random.default_rng(seed)
    if config is XAYNET:
        return source.uniform(-1.1, 1.1, length).astype(np.float32)
    if config.dtype.kind == "u":
        return source.integers(0, config.levels, length, dtype=config.dtype, endpoint=True)
    return source.uniform(-1.1 * config.bound, 1.1 * config.bound, length).astype(config.dtype)


def values(mask_object):
    return [*reference.to_list(mask_object.vect), mask_object.unit]


# ---- against the specification --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", COMPILED, indirect=True)
def test_a_mask_is_the_expansion_of_its_seed_the_unit_last(backend):
    for case in load_vectors("pet1/derivation.json")["cases"]:
        config = {fields.Z32: Z32, fields.Z64: Z64}.get(int(case["order"]))
        length = case["first"] + case["count"] - 1
        if config is None or length > 10_000:
            continue
        mask = pet.MaskSeed(bytes.fromhex(case["key"])).derive_mask(config, length)
        assert mask.to_vector()[case["first"] * config.element_bytes :].hex() == case["elements"]
        assert (mask.seed_count, len(mask)) == (1, length)


@pytest.mark.parametrize("backend", COMPILED, indirect=True)
def test_fixed_point_of_the_vectors(backend):
    vectors = load_vectors("pet1/fixed_point.json")
    for case in vectors["encode"]:
        bound = repr(float.fromhex(case["bound"]))
        config = pet.MaskConfig.parse(f"{case['derivation']},f64,bound={bound},models={case['max_updates']}")
        weights = np.array([float.fromhex(weight) for weight in case["weights"]])
        seed, masked = pet.mask_model(weights, config, scalar=float.fromhex(case["scalar"]))
        assert masked.clipped_count == case["clipped"]
        mask = seed.derive_mask(config, len(weights))
        difference = [(a - b) % config.order for a, b in zip(values(masked), values(mask), strict=True)]
        assert [str(value) for value in difference] == case["elements"]
    for case in vectors["decode"]:
        total, bound = [int(value) for value in case["total"]], float.fromhex(case["bound"])
        config = pet.MaskConfig.parse(f"{case['derivation']},f64,bound={bound!r},models={10 if bound == 0.25 else 1000}")
        assert config.levels == case["levels"]
        model = unmasked(config, total, case["updates"])
        assert [value.hex() for value in model.to_array().tolist()] == case["mean"]
    for case in vectors["integers"]:
        config = pet.MaskConfig.parse(f"{case['derivation']},int,models={case['max_updates']}")
        total = pet.Aggregation(config, 6)
        for row, seed in zip(case["vectors"], SEEDS, strict=False):
            weights = np.array([int(value) for value in row[:-1]], dtype=config.dtype)
            total.add(pet.mask_model(weights, config, scalar=int(row[-1]), seed=seed)[1])
        model = total.unmask(pet.sum_masks(SEEDS[:3], config, 6))
        assert [str(value) for value in [*model.to_array().tolist(), int(model.scalar_sum)]] == case["total"]


def unmasked(config, total, updates):
    """Return the global model of an unmasked total, the unit last, of this number of updates."""
    width = config.element_bytes
    vector = b"".join(value.to_bytes(width, "little") for value in total)
    aggregation = pet.Aggregation(config, len(total) - 1)
    zeros = pet.MaskedModel.from_vector(config, bytes(len(vector)))
    aggregation.add(pet.MaskedModel.from_vector(config, vector))
    for _ in range(updates - 1):
        aggregation.add(zeros)
    return aggregation.unmask(pet.Mask.from_vector(config, bytes(len(vector))))


@pytest.mark.parametrize("case", load_vectors("pet1/fixed_point.json")["refused"], ids=lambda case: case["what"])
def test_what_the_vectors_refuse(case):
    calls = {
        "weight is not a number": (ModelError, lambda: pet.mask_model(np.array([np.nan]), Z64)),
        "weight is infinite": (ModelError, lambda: pet.mask_model(np.array([np.inf]), Z64)),
        "scalar above one": (ModelError, lambda: pet.mask_model(np.zeros(1), Z64, scalar=1.0000000000000002)),
        "scalar below zero": (ModelError, lambda: pet.mask_model(np.zeros(1), Z64, scalar=-5e-324)),
        "integers: value above R": (
            ModelError,
            lambda: pet.mask_model(np.array([INTEGERS.levels + 1], dtype=np.uint64), INTEGERS),
        ),
        "integers: negative value": (ModelError, lambda: pet.mask_model(np.array([-1]), INTEGERS)),
        "integers: weight 0": (ModelError, lambda: pet.mask_model(np.zeros(1, np.uint64), INTEGERS, scalar=0)),
        "integers: weight above R": (
            ModelError,
            lambda: pet.mask_model(np.zeros(1, np.uint64), INTEGERS, scalar=INTEGERS.levels + 1),
        ),
    }
    if case["what"] in calls:
        error, call = calls[case["what"]]
        with pytest.raises(error):
            call()
        return
    config = INTEGERS if case["what"].startswith("integers") else Z32
    total = [int(value) for value in case["total"]]
    if config is INTEGERS:  # the vector's R is that of other limits
        total = [config.levels * 3 + 1 if value > 100 else value for value in total]
    with pytest.raises(UnmaskError) as caught:
        unmasked(config, total, case["updates"])
    assert caught.value.reason == case["reason"]


# ---- slices, sums and threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_any_slice_of_a_mask_for_any_number_of_threads(config, small_pieces):
    length, seeds = 800, SEEDS[:2]
    expansions = [reference.expand(seed.to_bytes(), 0, length + 1, config.order) for seed in seeds]
    expected = [sum(each) % config.order for each in zip(*expansions, strict=True)]
    slices = (slice(None), slice(0, 1), slice(255, 258), slice(700, None), slice(-3, None), slice(5, 2), slice(0, 9999))
    for threads in THREADS:
        whole = pet.sum_masks(seeds, config, length, threads)
        assert values(whole) == expected
        one = SEEDS[0].derive_mask(config, length)
        for piece in slices:
            part = pet.sum_masks(seeds, config, length, threads, piece=piece)
            assert part == whole[piece]
            assert part.seed_count == whole[piece].seed_count == 2
            assert SEEDS[0].derive_mask(config, length, piece=piece, threads=threads) == one[piece]
        for piece_length in (800, 300, 799):
            pieces = list(pet.iter_sum_masks(seeds, config, length, piece_length=piece_length, threads=threads))
            assert pieces == [whole[start : start + piece_length] for start in range(0, length, piece_length)]


def test_slices_of_masks_of_xaynet(small_pieces):
    length = 700
    for seeds in (SEEDS, SEEDS[:1], []):
        whole = pet.sum_masks(seeds, XAYNET, length)
        for threads in THREADS:
            assert list(pet.iter_sum_masks(seeds, XAYNET, length, piece_length=333, threads=threads)) == [
                whole[:333], whole[333:666], whole[666:]
            ]  # fmt: skip
            assert pet.sum_masks(seeds, XAYNET, length, threads, piece=slice(600, 650)) == whole[600:650]


def test_pieces_and_slices_that_cannot_be():
    mask = SEEDS[0].derive_mask(Z32, 10)
    for piece in (3, slice(0, 10, 2), slice("a", None), None):
        with pytest.raises(ModelError, match="expected a slice"):
            mask[piece]
    for piece_length in (0, -1, 2.5):
        with pytest.raises(ModelError, match="piece_length: expected"):
            pet.iter_sum_masks(SEEDS, Z32, 10, piece_length=piece_length)
    with pytest.raises(ModelError, match="expected a slice"):
        SEEDS[0].derive_mask(Z32, 10, piece=3)
    with pytest.raises(ModelError, match="expected MaskSeed"):
        pet.iter_sum_masks([bytes(32)], Z32, 10)
    assert list(pet.iter_sum_masks(SEEDS, Z32, 0)) == []


@pytest.mark.parametrize("config", [*CONFIGS, XAYNET], ids=str)
def test_masks_add_up(config):
    masks = [seed.derive_mask(config, 300) for seed in SEEDS[:3]]
    total = masks[0] + masks[1] + masks[2]
    assert total == pet.sum_masks(SEEDS[:3], config, 300)
    assert total.seed_count == 3
    unknown = pet.Mask.from_bytes(masks[1].to_bytes())
    assert unknown == masks[1]
    assert unknown.seed_count is None
    assert (masks[0] + unknown).seed_count is None
    for other, reason in (
        (SEEDS[0].derive_mask(config, 299), "model_mismatch"),
        (SEEDS[0].derive_mask(pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=2"), 300), "model_mismatch"),
        (pet.Mask(config, np.full((300, config.element_bytes), 255, np.uint8), 0), "invalid_object"),
        (pet.Mask(config, masks[0].vect, 256**config.element_bytes - 1), "invalid_object"),
    ):
        with pytest.raises(AggregationError) as caught:
            masks[0] + other
        assert caught.value.reason == reason
    with pytest.raises(TypeError):
        masks[0] + 1


def test_masks_of_pairs_with_another_unit_do_not_add_up():
    pair = pet.MaskConfigPair(vect=XAYNET, unit=pet.MaskConfig.parse("prime-f32-b2-m3"))
    with pytest.raises(AggregationError) as caught:
        SEEDS[0].derive_mask(XAYNET, 3) + SEEDS[0].derive_mask(pair, 3)
    assert caught.value.reason == "scalar_mismatch"


# ---- masking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*CONFIGS, XAYNET], ids=str)
def test_several_seeds_hide_one_model(config, small_pieces):
    weights = weights_for(config, 1000)
    for threads in THREADS:
        seeds, masked = pet.mask_model(weights, config, seed=SEEDS, threads=threads)
        assert seeds == tuple(SEEDS)
        assert masked.seed_count == 5
        total = pet.Aggregation(config, 1000)
        total.add(masked, threads=threads)
        model = total.unmask(pet.sum_masks(SEEDS, config, 1000), threads=threads).to_array(threads=threads)
        assert (model == weights).all() if model.dtype.kind == "u" else np.allclose(model, np.clip(weights, -1, 1), atol=0.3)
        one = pet.mask_model(weights, config, seed=SEEDS[0])[1]
        assert one == pet.mask_model(weights, config, seed=SEEDS[:1])[1]


@pytest.mark.parametrize("backend", COMPILED, indirect=True)
def test_the_same_for_any_number_of_threads_and_layout(backend, small_pieces):
    for config in CONFIGS:
        weights = weights_for(config, 1203)
        results = [pet.mask_model(weights, config, seed=SEEDS[:2], threads=threads)[1] for threads in THREADS]
        assert results[0] == results[1] == results[2]
        assert len({result.clipped_count for result in results}) == 1
        strided = np.repeat(weights, 2)[::2]
        assert pet.mask_model(strided, config, seed=SEEDS[:2])[1] == results[0]


@pytest.mark.parametrize("config", ["pet-1/z32,f32,bound=1,models=10", "pet-1/z64,int,models=10"])
def test_a_vector_is_made_where_there_is_room_for_it(config):
    config = pet.MaskConfig.parse(config)
    weights, seed = np.arange(7).astype(config.dtype), pet.MaskSeed(bytes(32))
    _, expected = pet.mask_model(weights, config, 1, seed)
    room = np.zeros((9, config.element_bytes), np.uint8)
    _, masked = pet.mask_model(weights, config, 1, seed, out=room[1:-1])
    assert masked.vect.base is room
    assert room[1:-1].tobytes() == expected.vect.tobytes()
    assert not room[0].any()
    assert not room[-1].any()
    assert (masked.unit, masked.to_vector()) == (expected.unit, expected.to_vector())
    frozen = np.zeros((7, config.element_bytes), np.uint8)
    frozen.flags.writeable = False
    for wrong in (room, room[1:-1].astype(np.int8), room[1:-1].T, bytearray(100), frozen):
        with pytest.raises(ModelError, match="out: expected writable contiguous uint8 of shape"):
            pet.mask_model(weights, config, 1, seed, out=wrong)
    with pytest.raises(ModelError, match="out: expected none with a config of xaynet"):
        pet.mask_model(np.ones(7, np.float32), pet.MaskConfig.parse("prime-f32-b0-m3"), 1, seed, out=room[1:-1])


def test_seeds_that_cannot_be():
    weights = np.zeros(2, np.float32)
    for seed, words in (
        ((), "expected one or more, got none"),
        ([SEEDS[0], SEEDS[0]], "expected different seeds"),
        ([bytes(32)], "expected MaskSeed objects"),
        ("ab", "expected a MaskSeed, several or None, got str"),
        (7, "expected a MaskSeed, several or None, got int"),
    ):
        for config in (Z32, XAYNET):
            with pytest.raises(ModelError, match=words):
                pet.mask_model(weights, config, seed=seed)


def test_weights_and_scalars_that_cannot_be(small_pieces):
    bad = np.zeros(1500, np.float32)
    bad[1200] = np.nan
    for threads in THREADS:
        with pytest.raises(ModelError, match="index 1200"):
            pet.mask_model(bad, Z32, threads=threads)
    for scalar in (Fraction(2**60 + 1, 2**60), 2, 1.5):
        with pytest.raises(ModelError, match=r"expected at most 1 with pet-1/z32.*pet.ShareWeight"):
            pet.mask_model(np.zeros(2, np.float32), Z32, scalar=scalar)
    with pytest.raises(ModelError, match="whole number from 1"):
        pet.mask_model(np.zeros(2, np.uint64), INTEGERS, scalar=Fraction(3, 2))
    with pytest.raises(ModelError, match="expected uint64 of one dimension, got int32"):
        pet.mask_model(np.zeros(2, np.int32), INTEGERS)
    with pytest.raises(ModelError, match="got a larger one at index 1"):
        pet.mask_model(np.array([0, SMALL_INTEGERS.levels + 1], dtype=np.uint32), SMALL_INTEGERS)
    with pytest.raises(ModelError, match="got 1 of 3 outside"):
        pet.mask_model(np.array([0, 1.5, 1], dtype=np.float32), Z32, on_clip="raise")
    assert pet.mask_model(np.array([0, 1.5, -2], dtype=np.float32), Z32)[1].clipped_count == 2


def test_weights_become_scalars():
    share = pet.ShareWeight(500)
    assert [share(500), share(0), share(125), share(0.5)] == [1, 0, Fraction(1, 4), Fraction(1, 1000)]
    assert share.total(Fraction(3, 2)) == 750
    total = pet.Aggregation(Z32, 2)
    for seed, samples, weight in ((SEEDS[0], 500, 0.5), (SEEDS[1], 100, -0.25)):
        total.add(pet.mask_model(np.full(2, weight, np.float32), Z32, scalar=share(samples), seed=seed)[1])
    model = total.unmask(pet.sum_masks(SEEDS[:2], Z32, 2))
    assert np.allclose(model.to_array(), (500 * 0.5 - 100 * 0.25) / 600, atol=1e-6)
    assert share.total(model.scalar_sum) == pytest.approx(600, abs=0.01)
    for bad in (501, -1, float("nan"), "1"):
        with pytest.raises(ModelError, match=r"^weight: expected"):
            share(bad)
    for bad in (0, -1, float("inf"), None):
        with pytest.raises(ModelError, match=r"^max_weight: expected"):
            pet.ShareWeight(bad)


# ---- DLPack ---------------------------------------------------------------------------------------------------------


class Tensor:
    """An array of a library that is not NumPy: it can only be shared."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("config", [Z32, XAYNET], ids=str)
def test_what_offers_dlpack_is_masked_without_a_copy(config, monkeypatch):
    weights = weights_for(config, 50)
    expected = pet.mask_model(weights, config, seed=SEEDS[0])[1]
    assert pet.mask_model(Tensor(weights), config, seed=SEEDS[0])[1] == expected
    assert np.shares_memory(pet.masking.as_array(Tensor(weights), config.dtype), weights)
    with pytest.raises(ModelError, match=r"on the CPU, got one on device type 2 of DLPack: call \.cpu\(\)"):
        pet.mask_model(Tensor(weights, (2, 0)), config)
    with pytest.raises(ModelError, match="expected float32 of one dimension, got float64"):
        pet.mask_model(Tensor(weights.astype(np.float64)), config)
    for device in (None, "cpu", (1,)):
        with pytest.raises(ModelError, match="expected an array on the CPU, got Tensor"):
            pet.mask_model(Tensor(weights, device), config)
    with pytest.raises(ModelError, match="expected an array that NumPy can share, got Tensor"):
        pet.mask_model(Tensor(np.zeros(2, dtype=">f4")), config)


# ---- bytes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_bytes_of_pet_1(config):
    _, masked = pet.mask_model(weights_for(config, 20), config, seed=SEEDS[0])
    data = masked.to_bytes()
    assert data == f"{config}\n".encode() + masked.to_vector()
    assert len(data) == masked.size_bytes
    again = pet.MaskedModel.from_bytes(data)
    assert again == masked
    assert (again.clipped_count, again.seed_count) == (None, None)
    assert pet.MaskedModel.from_vector(config, masked.to_vector()) == masked
    for cut in range(len(data)):
        if (len(data) - cut) % config.element_bytes or cut <= len(str(config)) + 1:
            with pytest.raises(RemoteProtocolError):
                pet.MaskedModel.from_bytes(data[:cut])
    with pytest.raises(RemoteProtocolError):
        pet.MaskedModel.decode_prefix(data)  # no message of xaynet's protocol may hold it
    altered = [data.replace(b"pet-1/z", b"pet-1/y"), data.replace(b"models=", b"models=0"), data.replace(b",", b",\xff", 1)]
    for other in (*altered, b"pet-1/" + b"z" * 100, f"{config}".encode()):
        with pytest.raises(RemoteProtocolError):
            pet.MaskedModel.from_bytes(other)


def test_xaynet_has_no_vector_with_its_unit():
    mask = SEEDS[0].derive_mask(XAYNET, 3)
    with pytest.raises(ConfigError, match="expected a config of pet-1"):
        mask.to_vector()
    with pytest.raises(ConfigError, match="expected a config of pet-1"):
        pet.Mask.from_vector(XAYNET, bytes(8))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_an_aggregation_of_pet_1_is_saved_and_merged(config):
    masked = [pet.mask_model(weights_for(config, 30, k), config, seed=seed)[1] for k, seed in enumerate(SEEDS[:3])]
    total = pet.Aggregation(config, 30)
    total.add_many(masked)
    again = pet.Aggregation.from_bytes(total.to_bytes())
    assert (again.count, again.seed_count, again.to_masked_model()) == (3, 3, total.to_masked_model())
    again.subtract(pet.MaskedModel.from_bytes(masked[0].to_bytes()))
    assert pet.Aggregation.from_bytes(again.to_bytes()).seed_count is None
    data = total.to_bytes()
    for bad in (data.replace(b"aggregation 2", b"aggregation 1"), data[:-1], data[:20], data[:-8] + b"\xff" * 8):
        with pytest.raises(StateError):
            pet.Aggregation.from_bytes(bad)
    xaynet = pet.Aggregation(XAYNET, 3).to_bytes().replace(b"aggregation 1\n" + bytes(8), b"aggregation 2\n" + bytes(16))
    with pytest.raises(StateError):
        pet.Aggregation.from_bytes(xaynet)


# ---- aggregating ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*CONFIGS, XAYNET], ids=str)
def test_merging_in_place_for_any_number_of_threads(config, small_pieces):
    models = [weights_for(config, 600, k) for k in range(3)]
    masked = [pet.mask_model(weights, config, seed=seed)[1] for weights, seed in zip(models, SEEDS, strict=False)]
    expected = pet.Aggregation(config, 600)
    expected.add_many(masked)
    for threads in THREADS:
        left, right = pet.Aggregation(config, 600), pet.Aggregation(config, 600)
        left.add(masked[0])
        right.add_many(masked[1:])
        before = right.to_bytes()
        kept = left.unmask(SEEDS[0].derive_mask(config, 600))
        array = kept.to_array()
        left.merge(right, threads=threads)
        assert right.to_bytes() == before
        assert (left.to_masked_model(), left.count, left.seed_count) == (expected.to_masked_model(), 3, 3)
        assert (kept.to_array() == array).all()
        left.merge(pet.Aggregation(config, 600))
        assert left.count == 3
    for other in (pet.Aggregation(config, 599), pet.Aggregation(pet.MaskConfig.parse("pet-1/z64,f32,bound=3,models=3"), 600)):
        with pytest.raises(AggregationError):
            left.merge(other)
    assert left.to_masked_model() == expected.to_masked_model()


@pytest.mark.parametrize("config", [*CONFIGS, XAYNET], ids=str)
def test_an_aggregation_is_unmasked_piece_by_piece(config):
    total = pet.Aggregation(config, 70)
    for k, seed in enumerate(SEEDS[:2]):
        total.add(pet.mask_model(weights_for(config, 70, k), config, seed=seed)[1])
    whole = total.unmask(pet.sum_masks(SEEDS[:2], config, 70)).to_array()
    pieces = []
    for number, mask in enumerate(pet.iter_sum_masks(SEEDS[:2], config, 70, piece_length=30)):
        part = total[30 * number : 30 * (number + 1)]
        assert (part.count, part.seed_count, len(part)) == (2, 2, len(mask))
        pieces.append(part.unmask(mask).to_array())
        part.add(pet.MaskedModel(config, np.zeros((len(part), config.element_bytes), np.uint8), 0))  # changes its own memory
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    assert total[10:60][5:9].to_masked_model() == total.to_masked_model()[15:19]
    assert total.unmask(pet.sum_masks(SEEDS[:2], config, 70)).to_array().tobytes() == whole.tobytes()
    with pytest.raises(ModelError, match="expected a slice"):
        total[3]


@pytest.mark.parametrize("config", [Z32, XAYNET], ids=str)
def test_what_can_be_added_and_merged(config):
    masked = [pet.mask_model(weights_for(config, 4, k), config, seed=seed)[1] for k, seed in enumerate(SEEDS[:2])]
    total = pet.Aggregation(config, 4)
    total.add_many(iter(masked))
    assert total.count == 2
    for bad in (None, masked[0]):
        with pytest.raises(ModelError, match=f"masked models: expected several, got {type(bad).__name__}"):
            total.add_many(bad)
    with pytest.raises(ModelError, match="expected a MaskedModel, got NoneType"):
        total.add_many([masked[0], None])
    for bad in (None, masked[0]):
        with pytest.raises(ModelError, match="aggregation: expected an Aggregation, got"):
            total.merge(bad)
    for other in (pet.Aggregation(config, 3), pet.Aggregation(INTEGERS, 4)):  # empty, and still not of the same kind
        with pytest.raises(AggregationError, match="expected"):
            total.merge(other)
    assert total.count == 2


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_an_invalid_element_changes_no_total(config, small_pieces):
    good = [pet.mask_model(weights_for(config, 900, k), config, seed=seed)[1] for k, seed in enumerate(SEEDS[:2])]
    bad = pet.MaskedModel(config, good[0].vect.copy(), 0)
    bad.vect[700] = 255
    bad_unit = pet.MaskedModel(config, good[1].vect, 256**config.element_bytes - 1)
    total = pet.Aggregation(config, 900)
    total.add(good[0])
    before = total.to_bytes()
    for threads in THREADS:
        for change in (
            lambda threads: total.add_many([good[1], bad], threads=threads),
            lambda threads: total.add(bad, threads=threads),
            lambda threads: total.subtract(bad, threads=threads),
            lambda threads: total.add(bad_unit, threads=threads),
        ):
            with pytest.raises(AggregationError) as caught:
                change(threads)
            assert caught.value.reason == "invalid_object"
            assert total.to_bytes() == before
        with pytest.raises(AggregationError, match="element 700"):
            bad.validate(threads=threads)
        for mask in (pet.Mask(config, bad.vect, 0), pet.Mask(config, good[0].vect, bad_unit.unit)):
            with pytest.raises(UnmaskError) as refused:
                total.unmask(mask, threads=threads)
            assert refused.value.reason == "invalid_mask"


def test_more_models_than_the_config_allows():
    config = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=2")
    total = pet.Aggregation(config, 1)
    masked = pet.mask_model(np.zeros(1, np.float32), config, seed=SEEDS)[1]
    total.add_many([masked, masked])
    with pytest.raises(AggregationError) as caught:
        total.add(masked)
    assert caught.value.reason == "too_many_models"
    assert len(pet.sum_masks(SEEDS, config, 1)) == 1  # seeds are parts: more of them than models are no error


@pytest.mark.parametrize("config", [Z32, XAYNET], ids=str)
def test_seeds_are_counted(config):
    weights = np.zeros(4, np.float32)
    first = pet.mask_model(weights, config, seed=SEEDS[:2])[1]
    second = pet.mask_model(weights, config, seed=SEEDS[2:])[1]
    total = pet.Aggregation(config, 4)
    assert total.seed_count == 0
    total.add_many([first, second])
    assert total.seed_count == total.to_masked_model().seed_count == 5
    for seeds in (SEEDS[:4], SEEDS[:2]):
        with pytest.raises(UnmaskError, match=f"expected one of 5 seeds, got {len(seeds)}") as caught:
            total.unmask(pet.sum_masks(seeds, config, 4))
        assert caught.value.reason == "seed_count_mismatch"
    assert np.allclose(total.unmask(pet.sum_masks(SEEDS, config, 4)).to_array(), 0, atol=1e-6)
    assert np.allclose(total.unmask(pet.Mask.from_bytes(pet.sum_masks(SEEDS, config, 4).to_bytes())).to_array(), 0, atol=1e-6)
    total.subtract(second)
    assert total.seed_count == 2
    total.add(pet.MaskedModel.from_bytes(second.to_bytes()))
    assert total.seed_count is None
    assert np.allclose(total.unmask(pet.sum_masks(SEEDS, config, 4)).to_array(), 0, atol=1e-6)
    total.subtract(first)
    total.subtract(second)
    assert (total.count, total.seed_count) == (0, 0)


# ---- the mean -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["z32", "z64"]),
    st.sampled_from(["f32", "f64"]),
    st.floats(2.0**-20, 2.0**20),
    st.integers(1, 2000),
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_the_mean_is_exact_within_the_bound_of_the_specification(field, kind, bound, most, seed, length, parts):
    config = pet.MaskConfig.parse(f"pet-1/{field},{kind},bound={bound!r},models={most}")
    source = np.random.default_rng(seed)
    count = int(source.integers(1, min(most, 4), endpoint=True))
    total, mask, numerator, weight_sum = pet.Aggregation(config, length), None, [Fraction(0)] * length, Fraction(0)
    for _ in range(count):
        weights = source.uniform(-bound, bound, length).astype(config.dtype)
        weights = np.clip(weights, config.dtype.type(-bound / 2), config.dtype.type(bound / 2))
        scalar = Fraction(float(source.choice([1.0, 0.5, source.uniform(0.1, 1)])))
        seeds, masked = pet.mask_model(weights, config, scalar, seed=[pet.MaskSeed.generate() for _ in range(parts)])
        assert masked.clipped_count == 0
        total.add(masked)
        own = pet.sum_masks(seeds, config, length)
        mask = own if mask is None else mask + own
        numerator = [a + scalar * Fraction(float(w)) for a, w in zip(numerator, weights, strict=True)]
        weight_sum += scalar
    if config.encoding_steps * count >= config.levels * weight_sum:
        return  # the scalars may all be lost
    model = total.unmask(mask)
    for got, fraction, exact in zip(model.to_array(), model.to_fractions(), numerator, strict=True):
        assert abs(fraction - exact / weight_sum) <= model.masking_error
        rounding = Fraction(2**-22 if kind == "f32" else 2**-50) * (abs(fraction) + Fraction(1, 2**149))
        assert abs(Fraction(float(got)) - fraction) <= rounding
    assert abs(model.scalar_sum - weight_sum) <= config.encoding_steps * count / config.levels
    assert np.concatenate(list(model.iter_arrays())).tobytes() == model.to_array().tobytes()


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["z32", "z64"]), st.integers(1, 300), st.data())
def test_totals_of_integers_are_exact(field, most, data):
    config = pet.MaskConfig.parse(f"pet-1/{field},int,models={most}")
    edges = st.sampled_from([0, 1, config.levels, config.levels - 1])
    value = st.one_of(edges, st.integers(0, config.levels))
    rows = data.draw(st.lists(st.lists(value, min_size=4, max_size=4), min_size=1, max_size=min(most, 5)))
    total = pet.Aggregation(config, 3)
    seeds = [pet.MaskSeed.generate() for _ in rows]
    for row, seed in zip(rows, seeds, strict=True):
        total.add(pet.mask_model(np.array(row[:3], dtype=config.dtype), config, scalar=max(1, row[3]), seed=seed)[1])
    model = total.unmask(pet.sum_masks(seeds, config, 3))
    sums = [sum(column) for column in zip(*rows, strict=True)]
    assert model.to_array().tolist() == sums[:3] == [int(value) for value in model.to_fractions()]
    assert model.scalar_sum == sum(max(1, row[3]) for row in rows)
    assert b"".join(model.iter_bincode()) == integer_fractions(sums[:3])


def integer_fractions(numbers):
    """Return whole numbers as bincode of fractions over 1, with their count."""
    from pet.kernels._reference import encode_integer

    return len(numbers).to_bytes(8, "little") + b"".join(encode_integer(each) + encode_integer(1) for each in numbers)


def test_what_a_global_model_gives():
    weights = np.array([0.25, -0.5, 1], np.float32)
    seed, masked = pet.mask_model(weights, Z32)
    total = pet.Aggregation(Z32, 3)
    total.add(masked)
    model = total.unmask(seed.derive_mask(Z32, 3))
    assert isinstance(model, pet.GlobalModel)
    assert (model.to_array().dtype, model.to_array(np.float64).dtype) == (np.float32, np.float64)
    assert np.allclose(model.to_array(np.float64), weights, atol=1e-6)
    model.validate()
    assert b"".join(piece.tobytes() for piece in model.iter_elements()) == unmasked_bytes(total, seed)
    published = np.frombuffer(b"".join(model.iter_bincode())[8:], np.uint8)
    decoded, _ = pet.kernels.decode_fractions(published, 3, np.dtype(np.float32))
    assert (decoded == model.to_array()).all()
    assert model.has_float_fractions
    for dtype in (np.int32, np.uint32, np.float16, ">f4"):
        with pytest.raises(ModelError, match="expected float32 or float64"):
            model.to_array(dtype)
    with pytest.raises(ModelError, match="expected those of floats"):
        list(model.iter_bincode(float_fractions=False))
    assert math.isclose(float(model.masking_error), 3 * 0.5 / Z32.levels, rel_tol=1e-4)


def unmasked_bytes(total, seed):
    model = total.to_masked_model()
    mask = seed.derive_mask(model.config, len(model))
    return b"".join(
        ((a - b) % model.config.vect.order).to_bytes(4, "little")
        for a, b in zip(values(model)[:-1], values(mask)[:-1], strict=True)
    )


def test_dtypes_of_integers():
    seed, masked = pet.mask_model(np.array([7, 2**40], np.uint64), INTEGERS)
    total = pet.Aggregation(INTEGERS, 2)
    total.add(masked)
    model = total.unmask(seed.derive_mask(INTEGERS, 2))
    assert not model.has_float_fractions
    assert model.to_array().tolist() == [7, 2**40]
    assert model.masking_error == 0
    for dtype in (np.uint32, np.int64, np.float64):
        with pytest.raises(ModelError):
            model.to_array(dtype)
    small_seed, small = pet.mask_model(np.array([7, 9], np.uint32), SMALL_INTEGERS)
    total = pet.Aggregation(SMALL_INTEGERS, 2)
    total.add(small)
    model = total.unmask(small_seed.derive_mask(SMALL_INTEGERS, 2))
    assert model.to_array(np.uint64).tolist() == [7, 9]
    floats = b"".join(model.iter_bincode(float_fractions=True))
    assert floats == b"".join(model.iter_bincode())
