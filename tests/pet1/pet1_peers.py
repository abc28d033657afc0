"""Peers of a round of the vectors as machines, with the vectors' randomness: what the tests of machines share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pet1_rounds import VectorRound

import pet
from pet import edwards
from pet.crypto import SigningKeyPair
from pet.mask_choices import FieldValues
from pet.mask_config import MaskConfig
from pet.pet1.enrolment import EnrolmentPolicy
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import RoundTerms, UpdateParticipant

NOW = 1_700_000_000


def policy_of(round_: VectorRound) -> EnrolmentPolicy:
    return EnrolmentPolicy(authority=round_.bytes_of("authority_key"), least_passive=0, least_active=0)


def served_enrolment(round_: VectorRound) -> bytes:
    return round_.bytes_of("enrolment") + round_.bytes_of("enrolment_signature")


class Disk:
    """Where a state is durable; it can fail, and then keeps what it had."""

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.is_full = False

    def __call__(self, state: bytes) -> None:
        if self.is_full:
            raise OSError("no space left")
        self.states.append(state)

    @property
    def latest(self) -> bytes:
        return self.states[-1]


def entropy_of(*draws: bytes) -> Callable[[int], bytes]:
    """Return the draws one after the other; each must be of the size that is asked for."""
    left: Iterator[bytes] = iter(draws)

    def draw(size: int) -> bytes:
        drawn = next(left)
        assert len(drawn) == size
        return drawn

    return draw


def wide(scalar: str) -> bytes:
    """Return 64 bytes that reduce to a scalar of the vectors."""
    return bytes.fromhex(scalar) + bytes(32)


def make_member(round_: VectorRound, slot: int, disk: Disk, **options: Any) -> MemberMachine:
    secret = wide(round_.entry["member_secrets"][slot])
    return MemberMachine(
        signing_key=round_.members()[slot],
        policy=policy_of(round_),
        entropy=entropy_of(secret, *[bytes([slot + 1]) * edwards.WIDE_BYTES] * 3),
        store=disk,
        threads=1,
        **options,
    )


def make_participant(round_: VectorRound, update: dict[str, Any], disk: Disk, **options: Any) -> UpdateParticipant:
    secrets = bytes.fromhex(update["master"]) + wide(update["e"])
    chosen: dict[str, Any] = {
        "policy": policy_of(round_),
        "entropy": entropy_of(bytes(32), secrets, *[bytes(range(96))] * 3),
        "terms": RoundTerms(values=round_.record.config.values),
    }
    return UpdateParticipant(
        signing_key=SigningKeyPair.from_seed(bytes.fromhex(update["signing_seed"])), store=disk, threads=1, **chosen | options
    )


def weights_of(round_: VectorRound, update: dict[str, Any]) -> tuple[np.ndarray, Any]:
    """Return weights and scalar of an update of the vectors."""
    config = round_.record.config
    if config.values is FieldValues.INT:
        return np.array([int(q) for q in update["integers"]], dtype=config.dtype), int(update["weight"])
    return np.array([float.fromhex(w) for w in update["weights"]]), float.fromhex(update["scalar"])


def take_double_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a participant mask weights of 64 bits in a round of 32: those of the vectors are no numbers of 32 bits.

    The encoding is the same: weights of 32 bits are converted to 64 first (docs/spec/profile.md 4.1).
    """

    def mask(weights: np.ndarray, config: MaskConfig, *arguments: Any, **options: Any) -> Any:
        if weights.dtype == np.float64:
            config = MaskConfig.parse(str(config).replace(",f32,", ",f64,"))
        seeds, masked = pet.mask_model(weights, config, *arguments, **options)
        return seeds, masked

    monkeypatch.setattr("pet.protocol.pet1_participant.mask_model", mask)
