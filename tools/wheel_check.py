"""The smoke test of an installed wheel; needs what the wheel itself installs. It prints what ran.

Every compiled back-end that this machine can run gives the bytes of Python's own integers, and a round its mean.
"""

import sys

import numpy as np

import pet
from pet import kernels

LENGTH = 1000


def main() -> None:
    """Run the checks; an assertion that fails ends it."""
    backends = [name for name in kernels.available_backends() if name not in ("numba", "reference")]
    assert "portable" in backends, f"expected the compiled kernels, got {kernels.available_backends()}"
    for config in map(pet.MaskConfig.parse, ("prime-f32-b0-m3", "integer-f64-b2-m6", "power2-i32-b0-m9")):
        masks = {name: _mask(name, config) for name in ("reference", *backends)}
        assert len(set(masks.values())) == 1, f"{config}: back-ends differ"
    kernels.select_backend(None)
    config = pet.MaskConfig.parse("prime-f32-b0-m6")
    total, seeds = pet.Aggregation(config, length=3), []
    for share, model in ((0.75, [0.1, 0.2, 0.3]), (0.25, [0.3, 0.2, 0.1])):
        seed, masked_model = pet.mask_model(np.array(model, dtype=np.float32), config, scalar=share)
        total.add(masked_model)
        seeds.append(seed)
    mean = total.unmask(pet.sum_masks(seeds, config, length=3)).to_array()
    assert np.allclose(mean, [0.15, 0.2, 0.25]), mean
    print(f"pet {pet.__version__} works on {sys.platform}, Python {sys.version.split()[0]}: {', '.join(backends)}")


def _mask(backend: str, config: pet.MaskConfig) -> bytes:
    """Return a mask, as bytes, on one back-end."""
    kernels.select_backend(backend)
    return pet.MaskSeed(bytes(range(32))).derive_mask(config, LENGTH).to_bytes()


if __name__ == "__main__":
    main()
