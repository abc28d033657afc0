"""Who takes part in a round, with which keys, and how everybody can check that.

A peer that is called to a round answers with an enrolment: a fresh key per role, an ephemeral key for the sum role, and what
the sharing rules ask for, all signed by its identity key. The leader of the round puts the enrolments into a manifest and shows
it to all; each peer checks it before it sends anything. So nobody but a member can be an update participant, the keys that
mask seeds are encrypted for are those of members, and none of them is the leader's.

Which of the peers play the sum role is a public lottery over the round's number: two of them, so that one may go missing before
it sends its mask, and no more, so that few learn the mask seeds. The leader never does.

Source: docs/spec/federation.md 1.7, 1.9.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Self

from pet import crypto
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import RemoteProtocolError
from pet.federation.formats.encoding import canonical_json
from pet.federation.formats.json_form import AsList, Base64UrlText, JsonForm, PublicKey, Whole
from pet.federation.peer.sharing_rules import MIN_CONTRIBUTORS, Contribution
from pet.federation.records import PeerIdentity, PeerKeys
from pet.protocol.strategies import TaskAllowList
from pet.secret import hidden

SUM_PEERS: Final = 2
_DIGEST_BYTES: Final = 32
_Digest = Annotated[bytes, Base64UrlText(_DIGEST_BYTES)]
_KeyOrNone = Annotated[bytes, Base64UrlText(crypto.PUBLIC_KEY_BYTES, 0)]
_SIGNED_AS: Final = b"pet/v1/fed-round-keys\0"
_LOTTERY: Final = b"pet/v1/fed-sum-role\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEnrolment:
    """A peer's part in one round: the public half.

    Attributes:
        peer: uuid.
        round_id: of the round.
        last_round: number of the last round that the peer agreed to take part in.
        contribution: what the sharing rules need to know.
        schema: digest of the schema that the statistics are of, 32 bytes.
        update_key: Ed25519, signs the update.
        sum_key: Ed25519, signs Sum and Sum2 messages; empty for the leader.
        ephemeral_key: X25519, mask seeds are encrypted for it; empty for the leader.
        signature: by the peer's identity key, of all the others and the federation.
    """

    peer: str
    round_id: Whole
    last_round: Whole
    contribution: Annotated[Contribution, AsList()]
    schema: _Digest
    update_key: PublicKey
    sum_key: _KeyOrNone
    ephemeral_key: _KeyOrNone
    signature: Annotated[bytes, Base64UrlText(crypto.SIGNATURE_BYTES)] = b""

    @property
    def sum_keys(self) -> tuple[bytes, bytes]:
        """The keys of the sum role: both, or of the leader none."""
        return self.sum_key, self.ephemeral_key

    def signed_bytes(self, federation_id: str) -> bytes:
        """Return what the signature covers."""
        fields = ENROLMENT.fields(self) | {"fid": federation_id}
        del fields["signature"]
        return _SIGNED_AS + canonical_json(fields).encode()

    def require_signed(self, federation_id: str, members: Mapping[str, PeerIdentity]) -> None:
        """Check that a member made this.

        Raises:
            RemoteProtocolError: none did (reason "foreign_enrolment").
        """
        member = members.get(self.peer)
        if member is None or not crypto.verify(self.signature, self.signed_bytes(federation_id), member.signing_key):
            raise RemoteProtocolError("foreign_enrolment", "enrolment: expected one signed by a member, got another")


#: An enrolment in messages; its signature is not looked at.
ENROLMENT: Final = JsonForm(PeerEnrolment, {"round_id": "round", "last_round": "last"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundKeys:
    """A peer's part in one round: the secret half, which lives in memory until the round is over.

    Attributes:
        update: signs the update.
        sum: signs Sum and Sum2; None for the leader.
        ephemeral_seed: the ephemeral key grows from it.
    """

    update: SigningKeyPair
    sum: SigningKeyPair | None
    ephemeral_seed: bytes = hidden()

    @classmethod
    def generate(cls, *, is_leader: bool) -> Self:
        """Draw the keys; the leader gets none for the sum role."""
        return cls(
            update=SigningKeyPair.generate(),
            sum=None if is_leader else SigningKeyPair.generate(),
            ephemeral_seed=os.urandom(crypto.KEY_SEED_BYTES),
        )

    def enrol(
        self,
        keys: PeerKeys,
        federation_id: str,
        round_id: int,
        contribution: Contribution,
        last_round: int,
        *,
        schema: bytes,
    ) -> PeerEnrolment:
        """Sign the public half."""
        unsigned = PeerEnrolment(
            peer=keys.uuid,
            round_id=round_id,
            last_round=last_round,
            contribution=contribution,
            schema=schema,
            update_key=self.update.public_key,
            sum_key=b"" if self.sum is None else self.sum.public_key,
            ephemeral_key=b"" if self.sum is None else EncryptionKeyPair.from_seed(self.ephemeral_seed).public_key,
        )
        return replace(unsigned, signature=keys.signing.sign(unsigned.signed_bytes(federation_id)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A round as it is announced to those who enrolled.

    Attributes:
        round_id: of the round.
        leader: uuid of the peer that runs the coordinator.
        enrolments: of all who take part, the leader's among them if it contributes.
    """

    round_id: Whole
    leader: str
    enrolments: tuple[Annotated[PeerEnrolment, ENROLMENT], ...]

    @property
    def contributions(self) -> dict[str, Contribution]:
        """What each peer contributes, by uuid."""
        return {enrolment.peer: enrolment.contribution for enrolment in self.enrolments}

    @property
    def following_round(self) -> int:
        """The number after the last round that a peer other than the leader knows of: the only one that this can be.

        The lottery for the sum role is a function of the number, so a leader that may skip some chooses who wins.
        """
        return 1 + max((one.last_round for one in self.enrolments if one.peer != self.leader), default=self.round_id - 1)

    @property
    def sum_peers(self) -> tuple[str, ...]:
        """Who plays the sum role."""
        return choose_sum_peers(self.round_id, (one.peer for one in self.enrolments if one.peer != self.leader))

    @property
    def sum_dictionary(self) -> dict[bytes, bytes]:
        """The ephemeral key of each sum participant, by its signing key: what the coordinator must publish."""
        chosen = self.sum_peers
        return {one.sum_key: one.ephemeral_key for one in self.enrolments if one.peer in chosen}

    @property
    def tasks(self) -> TaskAllowList:
        """Which key has which task."""
        return TaskAllowList(frozenset(self.sum_dictionary), frozenset(one.update_key for one in self.enrolments))

    def to_fields(self) -> dict[str, Any]:
        """Return the manifest as JSON has it."""
        return _MANIFEST.fields(self)

    @classmethod
    def from_fields(cls, fields: object) -> Manifest:
        """Read a manifest; nothing in it is verified.

        Raises:
            RemoteProtocolError: not one (reason "malformed_manifest").
        """
        return _MANIFEST.receive(fields, "malformed_manifest", "manifest")

    def verify(self, federation_id: str, members: Mapping[str, PeerIdentity]) -> None:
        """Check all that a peer can check before it contributes.

        Raises:
            RemoteProtocolError: an enrolment that no member made, or for another round; a peer or a key twice; fewer than
                three peers; a sum key of the leader, or none at all; more than one schema; a number that does not follow the
                last.
        """
        for enrolment in self.enrolments:
            enrolment.require_signed(federation_id, members)
            is_leader = enrolment.peer == self.leader
            if enrolment.round_id != self.round_id or {bool(key) for key in enrolment.sum_keys} != {not is_leader}:
                raise RemoteProtocolError(
                    "bad_manifest", "manifest: expected enrolments of this round, sum keys of all but the leader"
                )
        # With another schema the others' numbers could be next to nothing, and the sum one peer's.
        if len({enrolment.schema for enrolment in self.enrolments}) > 1:
            raise RemoteProtocolError("other_schema", "manifest: expected statistics of one schema, got several")
        if self.round_id != self.following_round:
            raise RemoteProtocolError(
                "bad_round_number",
                f"round: expected number {self.following_round}, which follows the last, got {self.round_id}",
            )
        keys = [key for one in self.enrolments for key in (one.update_key, *one.sum_keys) if key]
        if len(set(keys)) != len(keys) or len(self.contributions) != len(self.enrolments):
            raise RemoteProtocolError("bad_manifest", "manifest: expected every peer and every key once")
        if len(self.enrolments) < MIN_CONTRIBUTORS or not self.sum_peers:
            raise RemoteProtocolError(
                "too_few_peers", f"manifest: expected {MIN_CONTRIBUTORS} contributing peers, got {len(self.enrolments)}"
            )


_MANIFEST: Final = JsonForm(Manifest, {"round_id": "round"})


def choose_sum_peers(round_id: int, peers: Iterable[str]) -> tuple[str, ...]:
    """Draw who plays the sum role: those whose hash with the round's number comes first."""
    seed = _LOTTERY + round_id.to_bytes(8, "big")
    return tuple(sorted(peers, key=lambda peer: crypto.hash_sha256(seed + peer.encode()))[:SUM_PEERS])
