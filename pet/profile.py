"""The variants of the protocol by name: `pet.profile.XAYNET` is PET as xaynet speaks it, `PET_1` docs/spec/profile.md."""

from pet.protocol.pet1_rules import PET_1
from pet.protocol.profile import Profile
from pet.protocol.xaynet import XAYNET

__all__ = ["PET_1", "XAYNET", "Profile"]
