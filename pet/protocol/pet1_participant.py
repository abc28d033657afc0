"""An update participant of pet/1: from the record of a round to an update that it sends once.

    record = participant.join(record_bytes, enrolment_bytes, now)       # None: not enrolled, or not selected
    participant.check_model(model_bytes)                                # where the record names one
    update = participant.mask(committee_bytes, weights, scalar)         # durable before it returns
    participant.find_update(manifest_bytes, certificate_bytes)          # afterwards, if it wants to know

In a federation it knows nothing of other rounds: pet/protocol/pet1_federation_peer.py does, and is what takes part.

No sockets, clock or threads; entropy is given at construction (libsodium draws the key of the sealed part itself). A refusal
raises and changes nothing.

Source: docs/spec/profile.md 7.3, 13 (U1 to U9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pet.buffers import Buffer
from pet.crypto import SigningKeyPair, seal
from pet.errors import LocalProtocolError, ModelError
from pet.kernels import new_array
from pet.mask_choices import Derivation, FieldValues
from pet.masking import Scalar, mask_model
from pet.pet1.answers import UpdateAnswer, UpdateOpen, build_piece, read_answer
from pet.pet1.committee import Committee
from pet.pet1.enrolment import Enrolment, SeenEnrolment
from pet.pet1.federation import FederationPolicy
from pet.pet1.hashes import DIGEST_BYTES, digest, u32
from pet.pet1.inclusion import Inclusion, find_update
from pet.pet1.leaves import build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.refusing import require
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol.pet1_peer import PeerState, Policy, Store, open_round
from pet.protocol.weight_sums import WeightSums

ROLE: Final = "update participant"
#: Random bytes that the secrets of an update are made of.
_SECRET_BYTES: Final = 96
#: As xaynet's participants: a coordinator announces the length, and a participant holds such a vector twice.
_MAX_VECTOR_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTerms:
    """What a participant agrees to in a round's numbers (U5).

    Attributes:
        values: what its elements stand for; None leaves it to the record, where the caller's weights decide.
        derivations: the fields that it masks in.
        max_updates: the largest N_max: with more, elements have fewer bits.
        max_bound: the largest bound A, for the same reason.
        max_vector_bytes: the longest vector.
    """

    values: FieldValues | None = FieldValues.F32
    derivations: frozenset[Derivation] = frozenset(Derivation)
    max_updates: int = 2**24 - 1
    max_bound: float = 2.0**100
    max_vector_bytes: int = _MAX_VECTOR_BYTES

    def require_met(self, record: RoundRecord) -> None:
        """Refuse a round with other numbers.

        Raises:
            RemoteProtocolError: "unacceptable_terms".
        """
        config = record.config
        is_met = (
            self.values in (None, config.values)
            and config.derivation in self.derivations
            and config.max_model_count <= self.max_updates
            and config.bound <= self.max_bound
            and record.vector_bytes <= self.max_vector_bytes
        )
        require(is_met, "unacceptable_terms", f"round record: expected numbers within this participant's terms, got {config}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingUpdate:
    """An update as it travels: the sealed part, then the vector, whole or in pieces.

    Attributes:
        header: what members see of it.
        sealed: the message, sealed for the coordinator.
        vector: packed elements.
        leaf_count: of the vector.
        clipped_count: weights that were clamped to the bound.
    """

    header: ShareHeader
    sealed: bytes = field(repr=False)
    vector: memoryview = field(repr=False)
    leaf_count: int
    clipped_count: int

    def body(self) -> list[Buffer]:
        """Return all in one, as buffers to be sent one after the other."""
        return [u32(len(self.sealed)), self.sealed, self.vector]

    def read_answer(self, answer: Buffer) -> UpdateAnswer:
        """Read what the coordinator answered to the sealed part, a piece, or all in one.

        Raises:
            RemoteProtocolError: "malformed_answer".
        """
        return read_answer(answer, self.leaf_count)

    def pieces(self, opened: UpdateOpen) -> Iterator[list[Buffer]]:
        """Yield the bodies of the pieces that are missing."""
        for leaves in opened.missing():
            yield build_piece(self.header.digest, leaves, self.vector)


@dataclass(slots=True)
class _Joined:
    record: RoundRecord
    enrolment: Enrolment
    has_model: bool


class UpdateParticipant:
    """One update participant, from round to round."""

    def __init__(
        self,
        *,
        signing_key: SigningKeyPair,
        policy: Policy,
        entropy: Callable[[int], bytes],
        store: Store,
        terms: RoundTerms | None = None,
        saved: bytes | None = None,
        threads: int | None = None,
    ) -> None:
        """Start outside any round.

        Args:
            signing_key: its identity, an enrolled one.
            policy: what it asks of enrolments.
            entropy: gives as many unpredictable bytes as asked for, from the operating system.
            store: makes its state durable before it returns.
            terms: what it agrees to; the defaults of `RoundTerms` if None.
            saved: the state stored last; None before the first.
            threads: how many threads masking may use; None means PET_THREADS, else all cores.

        Raises:
            StateError: `saved` is no state of an update participant.
        """
        self._key, self._policy, self._entropy, self._store = signing_key, policy, entropy, store
        self._terms = terms or RoundTerms()
        self._threads = threads
        self._state = PeerState(role=ROLE) if saved is None else PeerState.decode(saved, ROLE)
        self._joined: _Joined | None = None
        self._sent: tuple[ShareHeader, Committee] | None = None
        # Kept in memory only: on disk it would be a way to test guesses of the weights.
        self._memory_key: Final = entropy(DIGEST_BYTES)
        self._last_weights = b""

    @property
    def last_number(self) -> int | None:
        """Highest number of a round that an update was made for."""
        return self._state.last_number

    def has_sent(self, record: RoundRecord) -> bool:
        """Return whether an update was made for this round, or for a later one."""
        last = self._state.last_number
        return last is not None and record.number <= last

    def join(self, record: Buffer, enrolment: Buffer, now: int) -> RoundRecord | None:
        """Take part in a round, in place of the one before, if all of U1, U2 and U5 hold.

        Args:
            record: the 192 bytes.
            enrolment: as it is served.
            now: own time, Unix seconds.

        Returns:
            The record; None for a round that this participant is not enrolled or not selected in: it is idle.

        Raises:
            RemoteProtocolError: as `open_round`; "wrong_round" (a number that is not above the last one used),
                "unacceptable_terms".
        """
        opened, accepted = open_round(record, enrolment, self._policy, now=now, seen=self._state.seen)
        last = self._state.last_number
        is_new = last is None or opened.number > last
        require(is_new, "wrong_round", f"round record: expected a number above {last}, got {opened.number}")
        self._save(replace(self._state, seen=SeenEnrolment(accepted.version, accepted.digest)))
        self._joined = None
        public_key = self._key.public_key
        if not (accepted.lists_participant(public_key) and opened.selects(public_key)):
            return None
        self._terms.require_met(opened)
        starts_from_model = opened.model_digest != bytes(DIGEST_BYTES) and opened.config.values is not FieldValues.INT
        self._joined = _Joined(opened, accepted, has_model=not starts_from_model)
        return opened

    def check_model(self, model: Buffer) -> None:
        """Check that a model is the one that the record names (U3): everybody starts from the same.

        Args:
            model: its weights, packed little-endian.

        Raises:
            RemoteProtocolError: "wrong_model".
            LocalProtocolError: no round was joined.
        """
        joined = self._require_joined()
        is_named = digest("pet-1 model", model) == joined.record.model_digest
        require(is_named, "wrong_model", "model: expected the one that the round record names, got another")
        joined.has_model = True

    def mask(
        self,
        committee: Buffer,
        weights: NDArray[Any],
        scalar: Scalar = 1,
        *,
        on_clip: Literal["count", "raise"] = "count",
        memory: NDArray[np.uint8] | None = None,
        sums: WeightSums | None = None,
    ) -> OutgoingUpdate:
        """Mask weights for a committee (U4, U6). That an update was made for this round is durable when it returns (U7).

        Args:
            committee: as it is served.
            weights: of the record's data type and length; trained anew for this round (U8).
            scalar: weight of the update in the mean, 0 to 1; of integers a whole number of 1 or more.
            on_clip: as `pet.mask_model`.
            memory: where the vector is made if it has the size of one; a new array if None. The weights may lie at its
                beginning, and are lost then, but for a RemoteProtocolError.
            sums: of these weights; None makes them.

        Raises:
            RemoteProtocolError: as `Committee.from_bytes`; the participant may be shown another committee.
            LocalProtocolError: no round was joined, its model was not checked, or an update was made for it.
            ModelError: weights that do not fit, or the very weights of the update before.
        """
        joined = self._require_joined()
        if not joined.has_model:
            raise LocalProtocolError("update: expected the model of the round to be checked first, got weights")
        record = joined.record
        members = Committee.from_bytes(committee, record, joined.enrolment)
        if len(weights) != record.model_length:
            raise ModelError(f"weights: expected {record.model_length}, got {len(weights)}")
        remembered = self._require_other_weights(sums or WeightSums.of(weights))
        secrets = UpdateSecrets.from_random(self._entropy(_SECRET_BYTES))
        context = derive_context(members.digest, self._key.public_key, secrets.point)
        seeds = secrets.mask_seeds(members, context)
        # The vector has room for the unit behind it: to put the two together later would copy all of it.
        shape = len(weights) + 1, record.config.element_bytes
        is_room = memory is not None and memory.nbytes == record.vector_bytes
        packed = memory.reshape(shape) if memory is not None and is_room else new_array(shape, np.uint8)
        _, masked = mask_model(
            weights, record.config, scalar, seed=seeds, on_clip=on_clip, threads=self._threads, out=packed[:-1]
        )
        packed[-1] = list(masked.unit.to_bytes(record.config.element_bytes, "little"))
        vector = packed.reshape(-1).data
        leaves = derive_leaf_digests(vector, context, self._threads)
        header = ShareHeader.build(self._key, members, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
        message = build_update(self._key, members, header, secrets.salt, leaves)
        self._save(replace(self._state, last_number=record.number))
        self._joined, self._last_weights = None, remembered
        self._sent = header, members
        return OutgoingUpdate(
            header=header,
            sealed=seal(message, record.coordinator_key),
            vector=vector,
            leaf_count=len(leaves),
            clipped_count=masked.clipped_count or 0,
        )

    def find_update(self, manifest: Buffer, certificate: Buffer) -> Inclusion:
        """Return whether the update that was made last is in the agreed set (U9).

        Args:
            manifest: of its round, as it is served.
            certificate: the same.

        Raises:
            RemoteProtocolError: as `pet.pet1.inclusion.find_update`.
            LocalProtocolError: no update was made since this object was.
        """
        if self._sent is None:
            raise LocalProtocolError("update: expected one that was made by this participant since it started, got none")
        header, committee = self._sent
        return find_update(header, committee, manifest, certificate)

    def _require_joined(self) -> _Joined:
        if self._joined is None:
            raise LocalProtocolError("update: expected a round that was joined and has no update yet, got none")
        return self._joined

    def _require_other_weights(self, sums: WeightSums) -> bytes:
        """Refuse the weights of the update before (U8): masked again for another set, the two give their difference.

        In a federation the sets are what protects (F1 to F5), as its statistics cannot be made anew.

        Returns:
            What these are remembered by.
        """
        remembered = sums.remembered(self._memory_key)
        if not isinstance(self._policy, FederationPolicy) and remembered == self._last_weights:
            raise ModelError("weights: expected others than those of the round before: train again")
        return remembered

    def _save(self, state: PeerState) -> None:
        self._store(state.encode())
        self._state = state
