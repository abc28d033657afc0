"""Pytrees of JAX and models of Flax as vectors, and back. They run where JAX is."""

import pickle

import numpy as np
import pytest

import pet
from pet.errors import ModelError

jax = pytest.importorskip("jax", reason="without jax (.ci/run runs these tests in an environment that has it)")

from pet.adapters import jax as adapter  # noqa: E402 - it needs JAX

jnp = jax.numpy


def tree(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    return {
        "dense": {"kernel": jax.random.normal(keys[0], (3, 4)), "bias": jnp.zeros(4)},
        "layers": [
            jax.random.normal(keys[1], (4, 2)).astype(jnp.bfloat16),
            (jax.random.normal(keys[2], (2,)).astype(jnp.float16),),
        ],
        "steps": jnp.array(3 + seed),
        "mask": jnp.array([True, False]),
        "numpy": np.ones((1, 0), np.float32),
    }


def is_same(left, right) -> bool:
    left, right = (np.asarray(each) for each in (left, right))
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_a_pytree_comes_back_with_every_dtype():
    own = tree()
    weights, counts, packing = adapter.pack(own)
    assert (
        (weights.dtype, packing.weight_count, packing.count_count)
        == (np.float32, len(weights), len(counts))
        == (np.float32, 26, 3)
    )
    back = pickle.loads(pickle.dumps(packing)).unpack(weights, counts)
    assert jax.tree_util.tree_structure(back) == jax.tree_util.tree_structure(own)
    assert all(map(is_same, jax.tree_util.tree_leaves(back), jax.tree_util.tree_leaves(own)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree_util.tree_leaves(back))


def test_a_mean_of_masked_pytrees():
    configs = [pet.MaskConfig.parse("pet-1/z32,f32,bound=8,models=10"), pet.MaskConfig.parse("pet-1/z64,int,models=10")]
    packed = [adapter.pack(tree(seed)) for seed in range(3)]
    packing = packed[0][2]
    assert {each[2].digest for each in packed} == {packing.digest}
    total = pet.VectorAggregation(configs, [packing.weight_count, packing.count_count])
    all_seeds = []
    for weights, counts, _ in packed:
        seeds, masked = pet.mask_vectors([weights, counts], configs)
        total.add(masked)
        all_seeds.append(seeds)
    by_vector = zip(total.parts, zip(*all_seeds, strict=True), strict=True)
    mean, totals = total.unmask([pet.sum_masks(seeds, part.config, len(part)) for part, seeds in by_vector])
    back = packing.unpack(mean.to_array(), totals.to_array() / 3)
    exact = sum(np.asarray(tree(seed)["dense"]["kernel"], np.float64) for seed in range(3)) / 3
    assert np.abs(np.asarray(back["dense"]["kernel"], np.float64) - exact).max() < 1e-6
    assert int(back["steps"]) == 4


def test_the_digest_covers_the_layout():
    own = tree()
    digest = adapter.pack(own)[2].digest
    assert adapter.pack(tree(5))[2].digest == digest
    for changed in (
        {**own, "mask": own["mask"].astype(int)},
        {**own, "mask": own["mask"].reshape(1, 2)},
        {name: leaf for name, leaf in own.items() if name != "mask"},
        {**{name: leaf for name, leaf in own.items() if name != "mask"}, "other": own["mask"]},
    ):
        assert adapter.pack(changed)[2].digest != digest


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (lambda: 1.5, r"leaf \"\['a'\]\": expected an array, got float"),
        (lambda: "text", r"leaf \"\['a'\]\": expected an array, got str"),
        (lambda: jax.random.key(0), r"leaf \"\['a'\]\": expected numbers, got random keys"),
        (lambda: jnp.ones(2, jnp.complex64), "expected float16, .* got complex64"),
    ],
    ids=["float", "text", "keys", "complex"],
)
def test_other_leaves_are_refused_by_name(leaf, message):
    with pytest.raises(ModelError, match=message):
        adapter.pack({"a": leaf()})


def test_an_array_that_was_given_away_is_refused():
    array = jnp.ones(3)
    array.delete()
    with pytest.raises(ModelError, match=r"leaf \"\['a'\]\": expected an array whose values are at hand"):
        adapter.pack({"a": array})
    with pytest.raises(ModelError, match="arrays: expected at least one array, got none"):
        adapter.pack({})


@pytest.mark.very_long  # Flax takes long to import
def test_a_model_of_flax():
    nnx = pytest.importorskip("flax.nnx", reason="without flax (.ci/long runs these tests in an environment that has it)")

    class Model(nnx.Module):
        def __init__(self, seed):
            rngs = nnx.Rngs(seed)
            self.first = nnx.Linear(3, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.first(x))

    model, other = Model(0), Model(1)
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    weights, counts, packing = adapter.pack(state)
    nnx.update(other, packing.unpack(weights, counts))
    x = jnp.ones((2, 3))
    assert not np.array_equal(Model(1)(x), model(x)) or not model(x).any()
    assert is_same(other.first.kernel[...], model.first.kernel[...])
    assert adapter.pack(nnx.state(other, (nnx.Param, nnx.BatchStat)))[2].digest == packing.digest
