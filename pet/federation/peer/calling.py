"""What is said before a round: each peer's answer to the call, and the leader's announcement of all that answered.

A peer that is called says which version of its statistics it would contribute, which earlier rounds it has answered, and what
the rules of sharing ask for besides, all signed by its identity key. The leader shows everybody all answers, with an enrolment
of exactly these peers that the admin signed; each peer checks them before it sends anything. So all know one set, and of one
schema: with another one, the others' numbers could be next to nothing, and the sum one peer's.

Source: docs/spec/federation.md 1.7; docs/spec/profile.md 6.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pet import crypto
from pet.crypto import SigningKeyPair
from pet.errors import RemoteProtocolError, SharingError
from pet.federation.formats.encoding import canonical_json
from pet.federation.formats.json_form import AsList, Base64UrlText, JsonForm, Whole
from pet.federation.peer.peer_steps import AnnouncedRound
from pet.federation.records import PeerIdentity
from pet.pet1.enrolment import split_signed
from pet.pet1.federation import Called

MIN_CONTRIBUTORS: Final = 3
_DIGEST_BYTES: Final = 32
_Bytes = Annotated[bytes, Base64UrlText()]
_Digest = Annotated[bytes, Base64UrlText(_DIGEST_BYTES)]
#: A peer that names some hundred rounds that it has answered; one that names more would leave no room for the others.
_MAX_CALLED_BYTES: Final = 4096
_SIGNED_AS: Final = b"pet/v1/fed-round-answer\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What the others learn of one peer's statistics before they are masked.

    Row counts are cut off at attributes + 5, which is all that the combined rule needs: their sum reaches the limit exactly
    when the sum of the true counts does. Where each peer keeps the rule for itself, they say nothing but that it does.

    Attributes:
        version: number of the state of the peer's statistics; equal versions are equal statistics.
        rows: rows in them, cut off.
        changed_rows: the difference to the rows of the version in the last aggregate, cut off; all rows if there was none.
    """

    version: Whole
    rows: Whole
    changed_rows: Whole


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAnswer:
    """A peer's answer to the call of a round.

    Attributes:
        peer: uuid.
        called: docs/spec/profile.md 6.5, "Called", with its signature.
        contribution: what the sharing rules need to know besides.
        schema: digest of the schema that the statistics are of, 32 bytes.
        signature: by the peer's identity key, of all the others and the federation.
    """

    peer: str
    called: _Bytes
    contribution: Annotated[Contribution, AsList()]
    schema: _Digest
    signature: Annotated[bytes, Base64UrlText(crypto.SIGNATURE_BYTES)] = bytes(crypto.SIGNATURE_BYTES)

    def sign(self, federation_id: str, key: SigningKeyPair) -> PeerAnswer:
        """Return the answer with its signature."""
        return replace(self, signature=key.sign(self._signed_bytes(federation_id)))

    def require_valid(self, federation_id: str, members: Mapping[str, PeerIdentity], number: int) -> Called:
        """Check that a member gave this answer to the call of a round, and return what it says there.

        Raises:
            RemoteProtocolError: it did not ("foreign_answer", "bad_answer"); as `Called.decode_prefix`.
        """
        member = members.get(self.peer)
        if member is None or not crypto.verify(self.signature, self._signed_bytes(federation_id), member.signing_key):
            raise RemoteProtocolError("foreign_answer", "answer to a call: expected one signed by a member, got another")
        called, end = Called.decode_prefix(self.called)
        if len(self.called) > _MAX_CALLED_BYTES:
            raise RemoteProtocolError("bad_answer", f"answer to a call: expected at most {_MAX_CALLED_BYTES} bytes, got more")
        is_own = called.peer == member.signing_key and called.version == self.contribution.version
        if not is_own or called.number != number or end != len(self.called):
            raise RemoteProtocolError(
                "bad_answer", f"answer to a call: expected one of its sender to round {number}, got another"
            )
        return called

    def _signed_bytes(self, federation_id: str) -> bytes:
        fields = ANSWER.fields(self) | {"fid": federation_id}
        del fields["signature"]
        return _SIGNED_AS + canonical_json(fields).encode()


#: An answer in messages; its signature is not looked at.
ANSWER: Final = JsonForm(PeerAnswer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A round as it is announced to those who answered its call.

    Attributes:
        record: of the round.
        enrolment: of all that take part, with the admin's signature behind it.
        answers: theirs.
    """

    record: _Bytes
    enrolment: _Bytes
    answers: tuple[Annotated[PeerAnswer, ANSWER], ...]

    @property
    def contributions(self) -> dict[str, Contribution]:
        """What each peer contributes, by uuid."""
        return {answer.peer: answer.contribution for answer in self.answers}

    def to_fields(self) -> dict[str, Any]:
        """Return the announcement as JSON has it."""
        return _FORM.fields(self)

    @classmethod
    def from_fields(cls, fields: object) -> Announcement:
        """Read an announcement; nothing in it is verified.

        Raises:
            RemoteProtocolError: not one (reason "malformed_announcement").
        """
        return _FORM.receive(fields, "malformed_announcement", "announcement")

    def verify(self, federation_id: str, members: Mapping[str, PeerIdentity]) -> AnnouncedRound:
        """Check that members gave these answers to this round's call; the enrolment is judged by who joins the round.

        Raises:
            RemoteProtocolError: an answer that no member gave, or to another call, or a second one of a peer; several schemas.
        """
        number = split_signed(self.enrolment)[0].version
        keys = {}
        for answer in self.answers:
            called = answer.require_valid(federation_id, members, number)
            keys[called.peer] = answer.called
        if len(keys) != len(self.answers):
            raise RemoteProtocolError("bad_announcement", "announcement: expected one answer of each peer, got several")
        if len({answer.schema for answer in self.answers}) > 1:
            raise RemoteProtocolError("other_schema", "announcement: expected statistics of one schema, got several")
        calls = b"".join(called for _, called in sorted(keys.items()))
        return AnnouncedRound(record=self.record, enrolment=self.enrolment, calls=calls)


_FORM: Final = JsonForm(Announcement)


def require_rows(contributions: Mapping[str, Contribution], least_rows: int) -> None:
    """Check that enough peers with enough rows come together.

    Args:
        contributions: by peer.
        least_rows: the limit of the combined rule; 0 where every peer keeps the rule of minimum rows for itself.

    Raises:
        SharingError: they do not.
    """
    if len(contributions) < MIN_CONTRIBUTORS:
        raise SharingError(f"contributing peers: expected at least {MIN_CONTRIBUTORS}, got {len(contributions)}")
    if sum(contribution.rows for contribution in contributions.values()) < least_rows:
        raise SharingError(f"rows of all peers: expected at least {least_rows} (attributes + 5), got fewer")


def require_changed_rows(
    contributions: Mapping[str, Contribution],
    published: Mapping[str, int],
    published_rows: Mapping[str, int],
    least_rows: int,
) -> None:
    """Check that the last aggregate and the next one differ by enough rows.

    Args:
        contributions: to the next one, by peer.
        published: versions in the last one, by peer; empty for none.
        published_rows: rows of each peer in it, cut off.
        least_rows: as `require_rows`.

    Raises:
        SharingError: they do not.
    """

    def changed_rows(peer: str) -> int:
        """Return how many rows a changed peer's part of the difference is made of: all of them if it came or went."""
        if peer not in contributions:
            return published_rows.get(peer, 0)
        contribution = contributions[peer]
        return contribution.changed_rows if peer in published else contribution.rows

    versions = {peer: contribution.version for peer, contribution in contributions.items()}
    changed = {peer for peer in published.keys() | versions.keys() if published.get(peer) != versions.get(peer)}
    if published and sum(map(changed_rows, changed)) < least_rows:
        raise SharingError(f"changed rows: expected at least {least_rows} (attributes + 5), got fewer")
