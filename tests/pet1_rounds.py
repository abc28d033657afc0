"""The rounds of tests/vectors/pet1 as objects of pet/pet1: what its tests share."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from vector_files import load_vectors

from pet.crypto import SigningKeyPair
from pet.errors import RemoteProtocolError
from pet.pet1.committee import Committee
from pet.pet1.enrolment import Enrolment
from pet.pet1.leaves import read_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader

ROUNDS = ("3of5", "4of5_absent", "2x2of3_z64", "1of1", "federation_z64_integers")


@dataclass(frozen=True)
class VectorRound:
    """A round of the vectors, its objects read."""

    entry: dict[str, Any]
    enrolment: Enrolment
    record: RoundRecord
    committee: Committee
    headers: dict[bytes, ShareHeader]
    manifest: UpdateManifest

    def bytes_of(self, name: str) -> bytes:
        return bytes.fromhex(self.entry[name])

    def members(self) -> list[SigningKeyPair]:
        return [SigningKeyPair.from_seed(bytes.fromhex(seed)) for seed in self.entry["member_signing_seeds"]]

    def checks(self) -> dict[int, bytes]:
        return {int(slot): bytes.fromhex(message) for slot, message in self.entry["checks"].items()}


@functools.cache
def vector_round(name: str) -> VectorRound:
    entry = load_vectors(f"pet1/round_{name}.json")
    enrolment = Enrolment.from_bytes(bytes.fromhex(entry["enrolment"]))
    record = RoundRecord.from_bytes(bytes.fromhex(entry["round"]))
    committee = Committee.from_bytes(bytes.fromhex(entry["committee"]), record, enrolment)
    read = [read_update(bytes.fromhex(update["message"]), committee)[0] for update in entry["updates"]]
    headers = {header.participant: header for header in read}
    manifest = UpdateManifest.from_bytes(bytes.fromhex(entry["manifest"]), committee, headers)
    return VectorRound(entry, enrolment, record, committee, headers, manifest)


def reason_of(call: Any, *arguments: Any, **options: Any) -> str | None:
    """Return why a call refuses what it is given; None if it does not. Any other exception is an error of the test."""
    try:
        call(*arguments, **options)
    except RemoteProtocolError as error:
        return error.reason
    return None
