# %% [markdown]
# # A round in memory
#
# Five participants have trained a model each. They want the mean, weighted by how many samples each of them has, and they do
# not want to show their model to anybody. Everything happens in this page: what would travel over a network is a variable.
#
# It needs nothing but `pet` (`pip install .` in a clone).

# %%
import numpy as np

import pet

generator = np.random.default_rng(0)
sample_counts = [120, 40, 300, 80, 200]
models = [generator.uniform(-1, 1, 1000).astype(np.float32) for _ in sample_counts]

# %% [markdown]
# **A mask config** says how weights become integers: the group, the data type, the bound of the weights, and how many models
# may be added up. Here: integers below a prime, float32, weights from -1 to 1, up to 10^6 models. {doc}`choosing_a_mask_config`
# is about it.

# %%
config = pet.MaskConfig.parse("prime-f32-b0-m6")
print("integers below", config.order)

# %% [markdown]
# **Each participant** draws a seed of 32 bytes, expands it to a mask as long as the model, and adds the mask to its weights. It
# sends the masked model to the coordinator, and the seed, sealed, to the sum participants. Its scalar is its share of all
# samples.

# %%
shares = [count / sum(sample_counts) for count in sample_counts]
masked = [pet.mask_model(model, config, scalar=share) for model, share in zip(models, shares, strict=True)]
seed, masked_model = masked[0]
print(len(masked_model.to_bytes()), "bytes for", len(models[0]), "weights")

# %% [markdown]
# **What the coordinator sees** are numbers drawn uniformly from the whole group: the same model masked twice has nothing in
# common.

# %%
first, second = (pet.mask_model(models[0], config)[1].to_bytes() for _ in range(2))
same = np.mean(np.frombuffer(first, np.uint8) == np.frombuffer(second, np.uint8))
print(f"{same:.1%} of the bytes are the same")

# %% [markdown]
# **The coordinator** adds up masked models, **a sum participant** adds up masks. Neither can do the other's part.

# %%
total = pet.Aggregation(config, length=1000)
for _, masked_model in masked:
    total.add(masked_model)
mask = pet.sum_masks([seed for seed, _ in masked], config, length=1000)

# %% [markdown]
# **Unmasking** takes the sum of the masks off the sum of the masked models. What is left is the weighted mean, and nothing
# else.

# %%
mean = total.unmask(mask).to_array()
expected = np.average(models, axis=0, weights=sample_counts)
print("largest error", np.abs(mean - expected).max())
assert np.abs(mean - expected).max() < 1e-6

# %% [markdown]
# Without the mask of one participant nothing comes out: not the mean of the others either.

# %%
incomplete = pet.sum_masks([seed for seed, _ in masked[1:]], config, length=1000)
try:
    wrong = total.unmask(incomplete).to_array()
except pet.errors.UnmaskError as error:
    print("refused:", error)
else:
    print("largest error", np.abs(wrong - expected).max())
    assert np.abs(wrong - expected).max() > 0.1

# %% [markdown]
# Who takes which part, when a phase ends and what happens to a message that breaks a rule is the protocol's business:
# {doc}`training_participants` runs it.
