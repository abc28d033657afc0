"""What rounds of pet/1 publish: bytes as they are hashed, and the result (K4).

Source: docs/spec/profile.md 12, 15.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pet.buffers import Buffer
from pet.field_config import FieldConfig
from pet.field_model import FieldModel
from pet.mask_choices import FieldValues
from pet.pet1.certificate import Certificate
from pet.pet1.committee import Committee
from pet.pet1.manifest import UpdateManifest
from pet.protocol.pet1_round import Pet1Round


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundAnnounced:
    """A round began: its record, and the enrolment that it goes by with the signature behind it; bytes as they are hashed."""

    round_id: int
    record: bytes
    enrolment: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitteePublished:
    """The Sum phase ended."""

    round_id: int
    committee: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPublished:
    """An update is complete: members fetch its header while the phase goes on.

    Attributes:
        round_id: which round.
        number: of the header, from 0, in the order of acceptance.
        header: its bytes.
    """

    round_id: int
    number: int
    header: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPublished:
    """The Update phase ended."""

    round_id: int
    manifest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePublished:
    """The Check phase ended: all Check messages that came (K3).

    Attributes:
        round_id: which round.
        certificate: its bytes.
        excluded: participants whose update a complaint proves bad; their headers are evidence (K6).
        worthless_complaints: complaints that proved nothing, by reason.
    """

    round_id: int
    certificate: bytes = field(repr=False)
    excluded: tuple[bytes, ...]
    worthless_complaints: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalPublished:
    """The round has a result.

    Attributes:
        round_id: which round.
        model: the weighted mean, or with integers the totals.
        update_count: updates in it.
        wrong_slots: members whose answers do not fit the others': they were left out.
        unchecked_groups: groups with no more answers than the threshold: nothing could be compared.
    """

    round_id: int
    model: FieldModel
    update_count: int
    wrong_slots: tuple[int, ...]
    unchecked_groups: tuple[int, ...]


Pet1Publication: TypeAlias = (
    RoundAnnounced | CommitteePublished | HeaderPublished | ManifestPublished | CertificatePublished | TotalPublished
)


def pack_model(model: FieldModel, config: FieldConfig) -> Buffer:
    """Return a model as it is served, and as the next record's digest covers it (docs/spec/profile.md 6.2, 15.1).

    Returns:
        The weights, packed little-endian in the record's data type; of integers the totals, that of the weights last.
    """
    if config.values is FieldValues.INT:
        unit = int(model.scalar_sum).to_bytes(config.element_bytes, "little")
        return b"".join([*(piece.tobytes() for piece in model.iter_elements()), unit])
    return model.to_array().astype(config.dtype.newbyteorder("<"), copy=False).data.cast("B")


def publish_header(round_id: int, current: Pet1Round, number: int) -> HeaderPublished:
    """Return the event that makes the header of a complete update known."""
    header = current.uploads[current.updates[number]].header
    return HeaderPublished(round_id=round_id, number=number, header=header.data)


def announce_round(round_id: int, current: Pet1Round) -> RoundAnnounced:
    """Return the event that a round begins with."""
    return RoundAnnounced(round_id=round_id, record=current.record.to_bytes(), enrolment=current.served_enrolment)


def publish_committee(round_id: int, committee: Committee) -> CommitteePublished:
    """Return the event that ends the Sum phase."""
    return CommitteePublished(round_id=round_id, committee=committee.to_bytes())


def publish_manifest(round_id: int, manifest: UpdateManifest) -> ManifestPublished:
    """Return the event that ends the Update phase."""
    return ManifestPublished(round_id=round_id, manifest=manifest.to_bytes())


def publish_certificate(round_id: int, certificate: Certificate, manifest: UpdateManifest) -> CertificatePublished:
    """Return the event that ends the Check phase."""
    return CertificatePublished(
        round_id=round_id,
        certificate=certificate.to_bytes(),
        excluded=tuple(key for key in manifest.headers if key not in certificate.agreed),
        worthless_complaints=dict(certificate.worthless),
    )
