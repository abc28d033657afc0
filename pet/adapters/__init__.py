"""Models of frameworks as vectors, and back: one module each, loaded on demand.

    from pet.adapters import torch, sklearn, jax, keras

Each has `pack(model)` as `pet.pack` has it for arrays; what unpacks is in its docstring. A module imports its framework, which
no extra of pet installs: who has a model has the framework.
"""
