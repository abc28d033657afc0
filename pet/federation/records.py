"""What a federation is, as values: members, schedule, contract, access to the broker, and one peer's view of all of it.

Frozen; a change is a new record. Secrets are `Secret` or hidden fields, so any record can be printed. The types say what a
field is as JSON, too (formats/json_form.py). No I/O here, and no format: what is stored is in formats/record_codec.py,
invitations are in formats/invitation.py.

Source: docs/spec/federation.md 1.1, 1.6, 2.4 - 2.7, 5.2.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

from pet.crypto import EncryptionKeyPair, SigningKeyPair, hash_sha256
from pet.federation.formats.json_form import AsGiven, Flag, PublicKey, Whole
from pet.secret import Secret
from pet.transports.nats_settings import NatsSettings

_FINGERPRINT: Final = b"pet/v1/fed-member\0"


class Mode(StrEnum):
    """Which formats a federation speaks (spec 4)."""

    NATIVE = "native"
    COMPAT = "compat"


class LocalType(StrEnum):
    """Where a peer computes: `fed_local_type`."""

    CPU = "cpu"
    GPU = "gpu"


class ProjectKind(StrEnum):
    """What a federated project holds."""

    #: Sufficient statistics of rows (spec 1.9).
    STATISTICS = "statistics"
    #: A model vector, averaged over the peers.
    MODEL = "model"


class FailureAction(StrEnum):
    """What a broken contract does to a message (spec 1.6)."""

    BLOCK = "block"
    ALLOW = "allow"


class Confirm(StrEnum):
    """Whose word a peer takes for who is a member (spec 10)."""

    #: Its user's, who compared each member's key with its owner.
    PERSON = "person"
    #: The admin's.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """Who a peer is, to the others: the public half.

    Attributes:
        uuid: 32 lower-case hexadecimal digits.
        signing_key: Ed25519 public key, 32 bytes; signs messages and round keys.
        encryption_key: X25519 public key, 32 bytes; join requests, their answers and new federation keys are sealed to it.
        label: the name that the peer gave itself, for people, shown in `peersInfo`; empty in federations of earlier versions.
    """

    uuid: str
    signing_key: PublicKey
    encryption_key: PublicKey
    label: str = ""

    @property
    def fingerprint(self) -> str:
        """What identifies it: 32 hexadecimal digits over uuid and keys. With another key it is another member."""
        return hash_sha256(_FINGERPRINT + self.uuid.encode() + self.signing_key + self.encryption_key).hex()[:32]

    @property
    def name(self) -> str:
        """What logs call it: its label with the beginning of its fingerprint."""
        return f"{self.label or 'unnamed'} ({self.fingerprint[:8]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerKeys:
    """The secret half of an identity.

    Attributes:
        uuid: as in the identity.
        signing: hides its secret half in repr.
        encryption: hides its secret half in repr.
    """

    uuid: str
    signing: SigningKeyPair
    encryption: EncryptionKeyPair

    @classmethod
    def generate(cls) -> PeerKeys:
        """Draw a uuid and both key pairs."""
        return cls(uuid=secrets.token_hex(16), signing=SigningKeyPair.generate(), encryption=EncryptionKeyPair.generate())

    def identity(self, label: str = "") -> PeerIdentity:
        """Return the public half."""
        return PeerIdentity(
            uuid=self.uuid, signing_key=self.signing.public_key, encryption_key=self.encryption.public_key, label=label
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """A sync schedule.

    Attributes:
        text: as in spec 1.4, for example "m30".
        counter: grows with each change; the highest wins.
    """

    text: str
    counter: Whole = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractRecord:
    """The contract of a federation.

    Attributes:
        lines: all must be true; none is no contract.
        counter: grows with each change; the highest wins.
    """

    lines: tuple[str, ...] = ()
    counter: Whole = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationTerms:
    """What the admin decides for all peers; it travels in the invitation and in the answer to a join.

    Attributes:
        federation_id: 16 characters of [a-z0-9], part of every subject (spec 5.2).
        name: `fed_name`, for people.
        secret_key: `fed_secret_key`, 16 bytes as base64 text.
        key_epoch: counts the secret keys: 0, and one more each time a peer was removed.
        admin: the identity of the peer that validates join tokens. None only in compatibility mode, when a client left our
            keys out of the join: the answer to the join is authenticated by the secret key alone then, and names it.
        encrypts: `fed_encrypt`.
        uses_smpc: `fed_use_smpc`: each tick is a round under masks.
        schema: JSON text: of a `Schema` for statistics, `{"length": n}` for a model; None until it is known.
    """

    federation_id: str
    name: str
    secret_key: Secret
    key_epoch: Whole = 0
    admin: PeerIdentity | None
    schedule: ScheduleRecord
    contract: ContractRecord = ContractRecord()
    mode: Mode = Mode.NATIVE
    encrypts: Flag = True
    uses_smpc: Flag = True
    kind: ProjectKind = ProjectKind.STATISTICS
    schema: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnChoices:
    """What a peer's user decides for that peer alone, and no invitation and no admin.

    Attributes:
        least_rows: its limit of the rule of minimum rows; 0 for attributes + 5.
        accepts_contracts: whether a changed contract counts without asking the user.
    """

    least_rows: int = 0
    accepts_contracts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationRecord:
    """One peer's membership, with all that survives a restart except statistics, counters and logs.

    Attributes:
        customer_id: `cid`, the user that the project belongs to.
        project_id: `pid`.
        keys: this peer's own.
        is_admin: whether this peer created the federation.
        peers: all members as this peer knows them, itself included, in the order in which they joined. Messages of anybody
            else are refused.
        confirmed: fingerprints of the members that its user has confirmed.
        members_digest: what the invitation said about the members (`member_list.list_digest`); None where it said nothing.
        least_rows: this peer's own limit of the rule of minimum rows; 0 for attributes + 5. Only its user sets it.
        accepts_contracts: whether a changed contract counts here without this peer's user.
    """

    customer_id: str
    project_id: str
    terms: FederationTerms
    keys: PeerKeys
    nats: Annotated[NatsSettings, AsGiven()]
    is_admin: Flag
    peers: tuple[PeerIdentity, ...]
    confirmed: tuple[str, ...] = ()
    members_digest: str | None = None
    is_pulsing: Flag = False
    allows_explore: Flag = False
    local_type: LocalType = LocalType.CPU
    send_failure_action: FailureAction = FailureAction.BLOCK
    receive_failure_action: FailureAction = FailureAction.BLOCK
    least_rows: Whole = 0
    accepts_contracts: Flag = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationContents:
    """What an invitation says to one future peer (spec 2.6).

    Attributes:
        terms: as the admin has them when the invitation is made.
        nats: the way to the broker, with credentials.
        token: `fed_req_token`; works once.
        members_digest: of the members when it was made.
        rest_url: `fed_rest_url`.
    """

    terms: FederationTerms
    nats: NatsSettings
    token: Secret
    members_digest: str
    rest_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """A member as one peer sees it.

    Attributes:
        name: its own label; may be empty.
        fingerprint: what identifies it.
        is_confirmed: whether this peer's user has confirmed it, or the admin's word is taken.
        is_this: whether it is the peer that was asked.
    """

    name: str
    uuid: str
    fingerprint: str
    is_confirmed: bool
    is_this: bool
    is_admin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberList:
    """All members as one peer sees them.

    Attributes:
        code: of the whole list; two who see the same code see the same list.
        confirm: whose word is taken for who is a member.
        members: in the order in which they joined.
    """

    code: str
    confirm: Confirm
    members: tuple[MemberState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatistics:
    """Counts of `syncStats` (spec 2.16); attempts include failed ones.

    Attributes:
        receive_contract_errors: by peer uuid.
    """

    send_count: Whole = 0
    send_contract_errors: Whole = 0
    receive_count: Whole = 0
    receive_errors: Whole = 0
    receive_contract_errors: dict[str, Whole] = field(default_factory=dict)


class LogKind(StrEnum):
    """The two logs of a federation; a line in the error log sets `fed_has_error`."""

    SYNC = "sync"
    ERROR = "error"
