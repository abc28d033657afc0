# %% [markdown]
# # Choosing a mask config
#
# The mask config decides what masking costs, how exact the mean is, and which weights fit: from 16 to 68 608 bytes of keystream
# for each weight. No code can make up for a poor choice. It needs nothing but `pet`.

# %%
from fractions import Fraction

import numpy as np

import pet

# %% [markdown]
# **Three questions** lead to one: how large can a weight be, how many models are added up in a round, and how exact must the
# mean be? `for_data` returns the cheapest config that is good enough; with `xaynet=True` one that all participants of PET know.

# %%
for bound, models, precision in [(1, 100, 1e-6), (1, 100_000, 1e-6), (10, 100, 1e-6), (1, 100, 1e-12)]:
    config = pet.MaskConfig.for_data(bound=bound, models=models, precision=precision, xaynet=True)
    print(
        f"bound {bound}, {models} models, precision {precision}: {config}, "
        f"{config.mean_keystream_bytes:.1f} bytes of keystream, {config.element_bytes} bytes sent"
    )

# %% [markdown]
# **Wider is not always dearer.** Integers are drawn until one is below the order of the group. An order just below a power of
# 256 wastes hardly a draw; one just above wastes nearly all.

# %%
for text in ("prime-f32-b0-m3", "prime-f32-b0-m6", "power2-f32-b0-m6", "prime-f64-b0-m6"):
    config = pet.MaskConfig.parse(text)
    accepted = config.draw_bytes and float(Fraction(config.order, 256**config.draw_bytes))
    print(f"{text}: order of {config.order.bit_length()} bits, {accepted:.1%} of the draws accepted")

# %% [markdown]
# **A protocol of your own** may use configs that were made for machines of today: one word of keystream for each weight, none
# thrown away.

# %%
own = pet.MaskConfig.for_data(bound=1, models=500, precision=1e-6)
print(own, "takes", own.mean_keystream_bytes, "bytes")

# %% [markdown]
# **What is too large is clamped.** The bound holds for scalar times weight. A masked model says how many weights were cut off,
# or refuses.

# %%
config = pet.MaskConfig.parse("prime-f32-b0-m6")
weights = np.array([0.5, 1.5, -3.0], dtype=np.float32)
for scalar in (1, Fraction(1, 2), Fraction(1, 4)):
    _, masked = pet.mask_model(weights, config, scalar=scalar)
    print(f"scalar {scalar}: {masked.clipped_count} of 3 weights clipped")
assert masked.clipped_count == 0
try:
    pet.mask_model(weights, config, on_clip="raise")
except pet.errors.ModelError as error:
    print("refused:", error)

# %% [markdown]
# **The mean stays the same** when all scalars are divided by one number; so divide by the number of participants, and weights
# may be as much larger than the bound.

# %%
total, seeds = pet.Aggregation(config, length=3), []
for _ in range(4):
    seed, masked = pet.mask_model(weights, config, scalar=Fraction(1, 4), on_clip="raise")
    total.add(masked)
    seeds.append(seed)
mean = total.unmask(pet.sum_masks(seeds, config, length=3)).to_array()
print(mean)
assert np.allclose(mean, weights, atol=1e-6)

# %% [markdown]
# On the command line, `pet config advise --bound 1 --models 100 --precision 1e-6` lists all configs that are good enough, with
# what they cost on this machine, and `pet config check FILE` says what a coordinator's settings mean before anything starts.
