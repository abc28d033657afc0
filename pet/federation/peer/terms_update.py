"""What the admin tells its peers whenever it changes: members, schedule, contract, schema, the federation's key.

Always all of it, with a version: the highest wins, so a peer that missed some has missed nothing once it has the last.

Source: docs/spec/federation.md 1.4, 1.6, 4 (13: rekey on removal), 5.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Self

from pet.errors import FederationValueError, RemoteProtocolError
from pet.federation.formats.compat import SECRET_KEY_BYTES
from pet.federation.formats.encoding import decode_base64
from pet.federation.formats.identities import are_distinct, require_usable
from pet.federation.formats.json_form import AsList, JsonForm, Whole
from pet.federation.formats.schedule import Schedule
from pet.federation.records import ContractRecord, FederationRecord, PeerIdentity, ProjectKind, ScheduleRecord
from pet.federation.statistics.contract import Contract
from pet.federation.statistics.schema import Schema
from pet.secret import Secret

#: As many as the announcement of a round, with some hundred bytes for each, leaves room for in one message of 1 MiB.
MAX_PEERS: Final = 1000
#: How much of an error that may quote the message is shown.
_MAX_ERROR_LENGTH: Final = 256


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

    version: Whole
    peers: tuple[PeerIdentity, ...]
    schedule: Annotated[ScheduleRecord, AsList()]
    contract: Annotated[ContractRecord, AsList()]
    schema: str | None
    key_epoch: Whole
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
        return _FORM.fields(self)

    @classmethod
    def from_fields(cls, fields: object, kind: ProjectKind) -> TermsUpdate:
        """Read the fields of a message; everything is checked as if a user had given it.

        Raises:
            RemoteProtocolError: not such fields (reason "malformed_terms").
        """
        try:
            update = _FORM.read(fields)
            update.require_usable()
            if update.schema is None or kind is not ProjectKind.STATISTICS:
                return update
            return replace(update, schema=Schema.from_json(update.schema, is_agreed=True).to_json())
        except FederationValueError as error:
            raise RemoteProtocolError("malformed_terms", f"terms: {str(error)[:_MAX_ERROR_LENGTH]}") from None

    def require_usable(self) -> None:
        """Check what the types do not say.

        Raises:
            FederationValueError: something cannot be used.
        """
        if len(self.peers) > MAX_PEERS or not are_distinct(self.peers):
            raise FederationValueError(f"peers: expected at most {MAX_PEERS}, each uuid, key and name once, got others")
        for peer in self.peers:
            require_usable(peer)
        if len(decode_base64(self.secret_key.reveal())) != SECRET_KEY_BYTES:
            raise FederationValueError(f"secret_key: expected {SECRET_KEY_BYTES} bytes, got others")
        Schedule.parse(self.schedule.text)
        Contract.parse(self.contract.lines)


_FORM: Final = JsonForm(TermsUpdate)
