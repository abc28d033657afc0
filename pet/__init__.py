"""pet: secure aggregation. A coordinator learns the weighted mean of many models and nothing else about any single one.

    config = pet.MaskConfig.parse("prime-f32-b0-m6")
    seed, masked_model = pet.mask_model(weights, config, scalar=0.25)     # each participant
    total = pet.Aggregation(config, len(weights))                         # the coordinator
    total.add(masked_model)
    mask = pet.sum_masks([seed], config, len(weights))                    # a sum participant
    model = total.unmask(mask).to_array()                                 # the coordinator again

Importing loads numpy, cffi and PyNaCl and nothing else; no thread starts, nothing is compiled. The protocol with its messages
is in pet.protocol and pet.messages, the coordinator service in pet.coordinator, participants in pet.participant.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING

from pet import _installation

_installation.check_module()  # before numpy loads: a clone without the dependencies should hear what it is, too

from pet import errors, kernels, shares
from pet.aggregation import Aggregation
from pet.errors import (
    AggregationError,
    BackendError,
    ConfigError,
    CryptoError,
    LocalProtocolError,
    MissingExtraError,
    ModelError,
    PetError,
    PlanError,
    ProtocolError,
    RemoteProtocolError,
    SettingsError,
    StateError,
    TransportError,
    UnmaskError,
)
from pet.global_model import GlobalModel
from pet.layout import Layout, flatten
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, MaskConfigPair, ModelType
from pet.mask_object import Mask, MaskedModel, MaskSeed, iter_sum_masks, sum_masks
from pet.masking import ShareWeight, mask_model
from pet.packing import Packing, pack
from pet.pet1.enrolment import Enrolment
from pet.plan import Plan
from pet.updates import clip_norm, delta
from pet.vectors import MaskedVectors, VectorAggregation, mask_vectors

__version__ = "0.2.0"

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what stands above the rest of this package when it is first asked for: importing pet must cost nothing."""
        if name == "CommitteeMember":  # typed code imports it from pet.participant
            return _importlib.import_module("pet.participant").CommitteeMember
        raise AttributeError(f"module 'pet' has no attribute {name!r}")


__all__ = [
    "Aggregation",
    "AggregationError",
    "BackendError",
    "BoundType",
    "ConfigError",
    "CryptoError",
    "DataType",
    "Enrolment",
    "GlobalModel",
    "GroupType",
    "Layout",
    "LocalProtocolError",
    "Mask",
    "MaskConfig",
    "MaskConfigPair",
    "MaskSeed",
    "MaskedModel",
    "MaskedVectors",
    "MissingExtraError",
    "ModelError",
    "ModelType",
    "Packing",
    "PetError",
    "Plan",
    "PlanError",
    "ProtocolError",
    "RemoteProtocolError",
    "SettingsError",
    "ShareWeight",
    "StateError",
    "TransportError",
    "UnmaskError",
    "VectorAggregation",
    "__version__",
    "clip_norm",
    "delta",
    "errors",
    "flatten",
    "iter_sum_masks",
    "kernels",
    "mask_model",
    "mask_vectors",
    "pack",
    "shares",
    "sum_masks",
]
