"""What the admin tells its peers whenever it changes: members, schedule, contract, schema, the federation's key.

Always all of it, with a version: the highest wins, so a peer that missed some has missed nothing once it has the last. The
bytes that describe a member are here too.

Source: docs/spec/federation.md 1.4, 1.6, 4 (13: rekey on removal), 5.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from pet import crypto
from pet.errors import FederationValueError, RemoteProtocolError
from pet.federation.formats.encoding import decode_base64, decode_base64url, encode_base64url
from pet.federation.formats.member_list import have_distinct_names, is_name
from pet.federation.formats.schedule import Schedule
from pet.federation.records import ContractRecord, FederationRecord, PeerIdentity, ProjectKind, ScheduleRecord
from pet.federation.statistics.contract import Contract
from pet.federation.statistics.schema import Schema
from pet.secret import Secret

#: As many as a manifest of a round, with a few hundred bytes for each, leaves room for in one message of 1 MiB.
MAX_PEERS: Final = 1000
_UUID: Final = re.compile(r"[0-9a-f]{32}")
#: How much of an error that may quote the message is shown.
_MAX_ERROR_LENGTH: Final = 256
_SECRET_KEY_BYTES: Final = 16


def encode_identity(peer: PeerIdentity) -> dict[str, str]:
    """Return a peer's public half as JSON has it."""
    return {
        "uuid": peer.uuid,
        "signing_key": encode_base64url(peer.signing_key),
        "encryption_key": encode_base64url(peer.encryption_key),
        "label": peer.label,
    }


def decode_identity(record: object) -> PeerIdentity:
    """Read a peer's public half.

    Raises:
        RemoteProtocolError: not one.
    """
    try:
        _require(isinstance(record, Mapping))
        keys = [decode_base64url(record[name]) for name in ("signing_key", "encryption_key")]  # type: ignore[index]
        uuid, label = record["uuid"], record.get("label", "")  # type: ignore[index, attr-defined]
        _require(_UUID.fullmatch(uuid) is not None and isinstance(label, str) and (not label or is_name(label)))
        _require(all(len(key) == crypto.PUBLIC_KEY_BYTES for key in keys) and not crypto.is_low_order(keys[1]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RemoteProtocolError("malformed_identity", "peer: expected uuid, two keys and a label") from None
    return PeerIdentity(uuid=uuid, signing_key=keys[0], encryption_key=keys[1], label=label)


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsUpdate:
    """The changeable part of a federation.

    Attributes:
        version: grows with each change.
        peers: all members.
        schedule: of the federation.
        contract: of the federation.
        schema: canonical JSON, or None while there is none.
        key_epoch: of the secret key.
        secret_key: the federation's; travels only sealed to one member.
    """

    version: int
    peers: tuple[PeerIdentity, ...]
    schedule: ScheduleRecord
    contract: ContractRecord
    schema: str | None
    key_epoch: int
    secret_key: Secret

    @classmethod
    def of(cls, record: FederationRecord, version: int) -> Self:
        """Return what a record says."""
        terms = record.terms
        return cls(
            version=version,
            peers=record.peers,
            schedule=terms.schedule,
            contract=terms.contract,
            schema=terms.schema,
            key_epoch=terms.key_epoch,
            secret_key=terms.secret_key,
        )

    def apply(self, record: FederationRecord) -> FederationRecord:
        """Return a record with this in place of what it had."""
        terms = replace(
            record.terms,
            schedule=self.schedule,
            contract=self.contract,
            schema=self.schema,
            key_epoch=self.key_epoch,
            secret_key=self.secret_key,
        )
        return replace(record, terms=terms, peers=self.peers)

    def to_fields(self) -> dict[str, Any]:
        """Return the fields of a message, **with the secret key**: only for a sealed one."""
        return {
            "version": self.version,
            "peers": [encode_identity(peer) for peer in self.peers],
            "schedule": [self.schedule.text, self.schedule.counter],
            "contract": [list(self.contract.lines), self.contract.counter],
            "schema": self.schema,
            "key_epoch": self.key_epoch,
            "secret_key": self.secret_key.reveal(),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], kind: ProjectKind) -> Self:
        """Read the fields of a message; everything is checked as if a user had given it.

        Raises:
            RemoteProtocolError: not such fields (reason "malformed_terms").
        """
        try:
            peers = fields["peers"]
            schedule, schedule_counter = fields["schedule"]
            lines, contract_counter = fields["contract"]
            numbers = [fields["version"], schedule_counter, contract_counter, fields["key_epoch"]]
            _require(isinstance(peers, list) and len(peers) <= MAX_PEERS)
            _require(all(type(number) is int and number >= 0 for number in numbers))
            members = tuple(decode_identity(peer) for peer in peers)
            _require(_are_distinct(members))
            _require(len(decode_base64(fields["secret_key"])) == _SECRET_KEY_BYTES)
            Schedule.parse(schedule)
            Contract.parse(lines)
            schema = fields["schema"]
            update = cls(
                version=fields["version"],
                peers=members,
                schedule=ScheduleRecord(text=schedule, counter=schedule_counter),
                contract=ContractRecord(lines=tuple(lines), counter=contract_counter),
                schema=None if schema is None else str(schema),
                key_epoch=fields["key_epoch"],
                secret_key=Secret(fields["secret_key"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise RemoteProtocolError("malformed_terms", "terms: expected members, schedule, contract and key") from None
        if update.schema is None or kind is not ProjectKind.STATISTICS:
            return update
        return replace(update, schema=_canonical(update.schema))


def _are_distinct(members: Sequence[PeerIdentity]) -> bool:
    """Return whether no two members share a uuid, a key, or a name: one that had two places would count as two."""
    distinct: list[set[str | bytes]] = [
        {member.uuid for member in members},
        {member.signing_key for member in members},
        {member.encryption_key for member in members},
    ]
    return all(len(one) == len(members) for one in distinct) and have_distinct_names(members)


def _canonical(schema: str) -> str:
    """Return a schema that came in a message in canonical form.

    Raises:
        RemoteProtocolError: it is none, or its statistics are laid out as this version does not know.
    """
    try:
        return Schema.from_json(schema, is_agreed=True).to_json()
    except FederationValueError as error:
        raise RemoteProtocolError("malformed_terms", f"terms: {str(error)[:_MAX_ERROR_LENGTH]}") from None


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError
