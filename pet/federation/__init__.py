"""Federations: peers that merge the statistics of their rows, created and joined over REST, carried by NATS."""

from pet.federation.client import Client
from pet.federation.runtime import Regression
from pet.secret import Secret

__all__ = ["Client", "Regression", "Secret"]
