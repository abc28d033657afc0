"""Enrolments of a federation: one for each round, of which nothing is free, and peers' signed answers to its call.

Source: docs/spec/profile.md 6.5.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKeyPair
from pet.errors import ConfigError
from pet.pet1.enrolment import NAME, Enrolment, SeenEnrolment, StrengthPolicy, split_signed
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES, digest, is_signed_text, magic, sign_text, u64
from pet.pet1.refusing import is_ascending, require
from pet.pet1.round_record import EVERYBODY, RoundRecord
from pet.plan import MAX_GROUP, Plan

MIN_PEERS: Final = 3
#: The longest time ahead that an enrolment of a round may expire, in seconds.
MAX_LIFETIME_SECONDS: Final = 86_400
#: Members of a round with more peers than one group can hold.
_LARGE_PLAN: Final = Plan(groups=4, members=8, threshold=7, quorum=32)
_CALLED: Final = "pet-1 called 2"
_EARLIER_CALLED: Final = "pet-1 called"
_CALL_LAYOUT: Final = struct.Struct(f"<{MAGIC_BYTES}s{PUBLIC_KEY_BYTES}sQQHH")
_MALFORMED: Final = "malformed_call"


def federation_plan(peer_count: int) -> Plan:
    """Return the only plan for a number of listed peers.

    Raises:
        ConfigError: fewer than three.
    """
    if peer_count < MIN_PEERS:
        raise ConfigError(f"peers: expected {MIN_PEERS} or more, got {peer_count}")
    if peer_count > MAX_GROUP:
        return _LARGE_PLAN
    return Plan(groups=1, members=peer_count, threshold=peer_count - 1, quorum=peer_count)


def federation_members(version: int, peers: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the members in slot order: all peers, or of more than 32 those that nobody can choose.

    Args:
        version: of the enrolment, the number of the round.
        peers: their keys, ascending.
    """
    if len(peers) <= MAX_GROUP:
        return tuple(peers)
    drawn = sorted(peers, key=lambda key: (digest("pet-1 member", u64(version), key), key))
    return tuple(sorted(drawn[: _LARGE_PLAN.member_count]))


def enrol_federation(version: int, expires: int, peers: Collection[bytes]) -> Enrolment:
    """Return the enrolment of a round of these peers: all or nothing.

    Raises:
        ConfigError: fewer than three peers, or a number outside its range.
    """
    keys = sorted(peers)
    return Enrolment(
        version=version,
        expires=expires,
        plan=federation_plan(len(keys)),
        min_updates=len(keys),
        members=federation_members(version, keys),
        participants=tuple(keys),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationPolicy(StrengthPolicy):
    """What a peer asks of the enrolment of a round.

    Attributes:
        admin: key of the federation's admin, from the peer's invitation.
        confirmed: keys of the members that the peer has confirmed in its own list; may change with the list.
    """

    admin: bytes
    confirmed: AbstractSet[bytes]

    @property
    def authority(self) -> bytes:
        """Who signs enrolments."""
        return self.admin

    def accept(self, data: Buffer, *, now: int, seen: SeenEnrolment | None = None) -> Enrolment:
        """Read an enrolment with the signature behind it: 6.5 in place of E1 and E2, then E3.

        Args:
            data: as the leader shows it.
            now: the peer's own time, Unix seconds.
            seen: the newest enrolment accepted before.

        Raises:
            RemoteProtocolError: as `Enrolment.from_bytes`; "unknown_enrolment", "enrolment_expired",
                "enrolment_rolled_back", "unconfirmed_peer", "wrong_plan", "not_all_or_nothing", "weak_plan",
                "too_few_updates".
        """
        enrolment, signature = split_signed(data)
        is_signed = is_signed_text(self.admin, NAME, enrolment.to_bytes(), signature)
        require(is_signed, "unknown_enrolment", "enrolment: expected the signature of the federation's admin, got another")
        is_valid = now <= enrolment.expires <= now + MAX_LIFETIME_SECONDS
        require(is_valid, "enrolment_expired", f"enrolment: expected one valid from {now} for a day at most, got another time")
        if seen is not None:
            seen.require_not_older(enrolment)
        strangers = len(set(enrolment.participants) - self.confirmed)
        require(not strangers, "unconfirmed_peer", f"enrolment: expected confirmed peers, got {strangers} others")
        # Three participants are the fewest that an enrolment can list, so there is a plan for as many ("too_few_peers").
        count = len(enrolment.participants)
        is_planned = enrolment.plan == federation_plan(count) and enrolment.members == federation_members(
            enrolment.version, enrolment.participants
        )
        require(is_planned, "wrong_plan", f"enrolment: expected the plan and members of {count} peers, got others")
        is_complete = enrolment.min_updates == count
        require(
            is_complete, "not_all_or_nothing", f"enrolment: expected sums of all {count} peers, got {enrolment.min_updates}"
        )
        self.require_strong(enrolment)
        return enrolment


def require_federation_round(record: RoundRecord, enrolment: Enrolment) -> None:
    """Refuse a round record that is not of the round that an enrolment was made for.

    Raises:
        RemoteProtocolError: "wrong_round".
    """
    is_this = record.number == enrolment.version and record.update_share == EVERYBODY
    require(is_this, "wrong_round", f"round record: expected round {enrolment.version}, of everybody, got {record.number}")


def derive_set_digest(versions: Mapping[bytes, int]) -> bytes:
    """Return the digest of a set, 32 bytes: the versions of the statistics of a round's peers, by key."""
    return digest("pet-1 set", *(key + u64(versions[key]) for key in sorted(versions)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """A peer's answer to the call of a round.

    Attributes:
        peer: its identity key.
        number: of the round.
        version: of its statistics; equal numbers are equal statistics.
        answered: numbers of earlier rounds in its ledger that it has answered, ascending (F2).
        sets: digests of the sets that it knows, of rounds that it took part in or has seen the result of, ascending (F2).
    """

    peer: bytes
    number: int
    version: int
    answered: tuple[int, ...] = ()
    sets: tuple[bytes, ...] = ()

    def sign(self, key: SigningKeyPair) -> bytes:
        """Return the answer with its signature."""
        counts = len(self.answered), len(self.sets)
        head = _CALL_LAYOUT.pack(magic(_CALLED), self.peer, self.number, self.version, *counts)
        body = b"".join([head, *map(u64, self.answered), *self.sets])
        return body + sign_text(key, _CALLED, body)

    @classmethod
    def decode_prefix(cls, data: bytes, start: int = 0) -> tuple[Called, int]:
        """Read the answer at a place, its signature included.

        Returns:
            The answer, and the place behind it.

        Raises:
            RemoteProtocolError: "malformed_call", "invalid_call_signature".
        """
        is_earlier = data.startswith(magic(_EARLIER_CALLED), start)
        require(
            not is_earlier, _MALFORMED, "call: expected one that names the sets that its peer knows, got an earlier version's"
        )
        is_begun = len(data) >= start + _CALL_LAYOUT.size and data.startswith(magic(_CALLED), start)
        require(is_begun, _MALFORMED, f"call: expected {_CALL_LAYOUT.size} or more bytes with its name, got others")
        _, peer, number, version, count, set_count = _CALL_LAYOUT.unpack_from(data, start)
        first_set = start + _CALL_LAYOUT.size + 8 * count
        end = first_set + DIGEST_BYTES * set_count
        is_whole = len(data) >= end + SIGNATURE_BYTES
        require(is_whole, _MALFORMED, f"call: expected {end + SIGNATURE_BYTES - start} bytes, got {len(data) - start}")
        answered = struct.unpack_from(f"<{count}Q", data, start + _CALL_LAYOUT.size)
        is_sorted = is_ascending([*answered, number])
        require(is_sorted, _MALFORMED, "call: expected numbers of earlier rounds that ascend strictly, got others")
        sets = tuple(data[place : place + DIGEST_BYTES] for place in range(first_set, end, DIGEST_BYTES))
        require(is_ascending(sets), _MALFORMED, "call: expected digests of sets that ascend strictly, got others")
        is_signed = is_signed_text(peer, _CALLED, data[start:end], data[end : end + SIGNATURE_BYTES])
        require(is_signed, "invalid_call_signature", "call: not signed by the peer that it names")
        return cls(peer=peer, number=number, version=version, answered=answered, sets=sets), end + SIGNATURE_BYTES


def read_calls(data: Buffer, enrolment: Enrolment) -> list[Called]:
    """Read the answers of all listed peers, in the order of their keys, as the leader shows them with the enrolment.

    Raises:
        RemoteProtocolError: "malformed_call", "wrong_round", "invalid_call_signature".
    """
    data, calls, place = bytes(data), list[Called](), 0
    for peer in enrolment.participants:
        call, place = Called.decode_prefix(data, place)
        require(call.peer == peer, _MALFORMED, "calls: expected one of each listed peer, in the order of their keys")
        is_this = call.number == enrolment.version
        require(is_this, "wrong_round", f"call: expected one of round {enrolment.version}, got {call.number}")
        calls.append(call)
    require(place == len(data), _MALFORMED, f"calls: expected {place} bytes, got {len(data)}")
    return calls
