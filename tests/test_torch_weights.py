"""Weights of torch, which are shared by way of DLPack. They run where torch is."""

import numpy as np
import pytest

import pet

torch = pytest.importorskip("torch", reason="without torch (.ci/run runs these tests in an environment that has it)")

SEED = pet.MaskSeed(bytes(range(32)))


@pytest.mark.parametrize("name", ["prime-f32-b0-m3", "pet-1/z32,f32,bound=1,models=100"])
def test_a_tensor_is_masked_without_a_copy(name):
    config = pet.MaskConfig.parse(name)
    tensor = torch.linspace(-1, 1, 50)
    expected = pet.mask_model(np.linspace(-1, 1, 50, dtype=np.float32), config, seed=SEED)[1]
    assert len(pet.mask_model(tensor, config, seed=SEED)[1]) == len(expected)
    assert pet.mask_model(tensor, config, seed=SEED)[1] == pet.mask_model(tensor.numpy(), config, seed=SEED)[1]
    assert np.shares_memory(pet.masking.as_array(tensor, config.dtype), tensor.numpy())
    with pytest.raises(pet.ModelError, match="expected an array that NumPy can share, got Tensor"):
        pet.mask_model(torch.zeros(3, requires_grad=True), config)
    with pytest.raises(pet.ModelError, match="expected float32 of one dimension, got float64"):
        pet.mask_model(tensor.double(), config)
