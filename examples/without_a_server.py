"""A whole round without any server: six participants, one of whom adds up the masks, and a coordinator that sees no model.

    python examples/without_a_server.py

Everything that would travel over a network is a value in this file: masked models, sealed mask seeds, one sum of masks. It is
the arithmetic of a round and its secrecy; who takes part, when a phase ends and what a bad message does is the business of
pet/protocol (`pet demo` shows it all together).
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

import pet
from pet import crypto

CONFIG = pet.MaskConfig.parse("prime-f32-b0-m3")
SAMPLE_COUNTS = (120, 40, 300, 80, 200)

Update = tuple[pet.MaskedModel, bytes]


def local_model(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return what a participant has trained: arrays by name, as any framework gives them."""
    return {
        "dense/kernel": generator.uniform(-1, 1, (16, 4)).astype(np.float32),
        "dense/bias": generator.uniform(-1, 1, 4).astype(np.float32),
    }


def update_participant(weights: np.ndarray, share: Fraction, sum_public_key: bytes) -> Update:
    """Mask a model; the seed of the mask goes to the sum participant, in a box that nobody else opens."""
    seed, masked_model = pet.mask_model(weights, CONFIG, scalar=share, on_clip="raise")
    return masked_model, crypto.seal(seed.to_bytes(), sum_public_key)


def sum_participant(sealed_seeds: list[bytes], keys: crypto.EncryptionKeyPair, length: int) -> pet.Mask:
    """Open the seeds and add up their masks: seeds in, one sum out, and no model seen."""
    seeds = [pet.MaskSeed(crypto.open_sealed(sealed_seed, keys)) for sealed_seed in sealed_seeds]
    return pet.sum_masks(seeds, CONFIG, length)


def coordinator(masked_models: list[pet.MaskedModel], mask: pet.Mask) -> pet.GlobalModel:
    """Add up masked models and take the sum of the masks off the sum of the models."""
    total = pet.Aggregation(CONFIG, len(mask))
    for masked_model in masked_models:
        total.add(masked_model)
    return total.unmask(mask)


def main() -> None:
    """Run the round and hold its result against the mean of the models, which only this file can compute."""
    generator = np.random.default_rng(0)
    flat_models, layout = [], None
    for _ in SAMPLE_COUNTS:
        weights, layout = pet.flatten(local_model(generator))
        flat_models.append(weights)
    shares = [Fraction(count, sum(SAMPLE_COUNTS)) for count in SAMPLE_COUNTS]

    sum_keys = crypto.EncryptionKeyPair.generate()
    updates = [
        update_participant(weights, share, sum_keys.public_key) for weights, share in zip(flat_models, shares, strict=True)
    ]
    mask = sum_participant([sealed_seed for _, sealed_seed in updates], sum_keys, len(flat_models[0]))
    model = coordinator([masked_model for masked_model, _ in updates], mask)

    expected = sum(float(share) * weights.astype(np.float64) for share, weights in zip(shares, flat_models, strict=True))
    # Each model and each scalar loses less than one step to a floor (1/E, and the sum of the scalars is 1).
    tolerance = 2 * len(SAMPLE_COUNTS) / CONFIG.exp_shift / float(model.scalar_sum)
    error = float(np.abs(model.to_array(np.float64) - expected).max())
    if error > tolerance:
        raise SystemExit(f"error of the mean: expected at most {tolerance:.1e}, got {error:.1e}")

    assert layout is not None
    arrays = layout.unflatten(model.to_array())
    print(f"{model.model_count} models of {len(model)} weights, kernels: {pet.kernels.active_backend()}")
    print(f"global model: {', '.join(f'{name} {array.shape}' for name, array in arrays.items())}")
    print(f"largest error of the mean {error:.1e}, at most {tolerance:.1e} is allowed")


if __name__ == "__main__":
    main()
