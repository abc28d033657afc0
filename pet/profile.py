"""The variants of the protocol by name: `pet.profile.XAYNET` is PET as xaynet speaks it."""

from pet.protocol.profile import Profile
from pet.protocol.xaynet import XAYNET

__all__ = ["XAYNET", "Profile"]
