"""The coordinator of pet/1: the round machine with the profile's rules, and the three ways in of an update.

Sum, Check and Sum2 come as everywhere, through `receive`. Updates come in pieces, and each request is answered with what the
sender has to do next.

What it takes is durable where its owner makes it so, before anything is answered or published: all of `next_entry()`, and the
record of pet/protocol/pet1_saved_state.py whenever the phase has changed. Then `release_leaves()` may be called.

Source: docs/spec/profile.md 7.3, 12, 13 (K1 to K8), 14.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pet.buffers import Buffer
from pet.errors import RemoteProtocolError
from pet.messages import ChunkStore, Message
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, UpdateRefused, read_piece
from pet.pet1.checks import count_complaints
from pet.pet1.leaves import LEAF_BYTES, MAX_PIECE_LEAVES, sealed_update_bytes
from pet.pet1.messages import Pet1Tag
from pet.pet1.payloads import Pet1Payload
from pet.pet1.refusing import require
from pet.protocol.message_checks import SenderCheck
from pet.protocol.pet1_entries import Pet1Entry, UploadEntry
from pet.protocol.pet1_evidence import EvidenceStore, MemoryEvidenceStore
from pet.protocol.pet1_leaf_store import LeafStore, MemoryLeafStore
from pet.protocol.pet1_publications import Pet1Publication, publish_header
from pet.protocol.pet1_round import Pet1Round, Pet1Settings
from pet.protocol.pet1_rules import pet1_profile
from pet.protocol.pet1_updates import UpdateIntake, UploadWork
from pet.protocol.phases import Phase
from pet.protocol.round_machine import RoundMachine
from pet.protocol.round_state import MachineState

_SIZE_BYTES: Final = 4
_PIECE_BYTES: Final = MAX_PIECE_LEAVES * LEAF_BYTES


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What a member has done in this round (K5).

    Attributes:
        announced: its Sum message is there.
        checked: its Check message is there.
        complained: the message has complaints, true or not.
        answered: its Sum2 message is there.
        wrong: in a round of which evidence is kept, its answer did not fit the others'.
    """

    announced: bool
    checked: bool
    complained: bool
    answered: bool
    wrong: bool


class Pet1Coordinator(RoundMachine[Pet1Settings, Pet1Round, Pet1Entry, Pet1Publication]):
    """A coordinator of pet/1.

    Args:
        settings: how rounds are run. `next_settings` can be replaced at any time: they count from the next round on.
        now_seconds: the time now.
        entropy: returns as many random bytes as it is asked for; `os.urandom` outside of tests.
        round_id: number of the last round; a fresh coordinator begins with its Unix time in seconds, so that no number of its
            key file is used again.
        leaf_store: where leaves are until the model is out; in memory if None.
        evidence_store: where it is kept who sent something wrong; in memory if None.
        chunk_store: where the pieces of unfinished Sum2 messages lie; in memory if None.
        threads: how many threads adding may use; None means PET_THREADS, else all cores.
        state: where another coordinator was, to go on from.
    """

    def __init__(
        self,
        settings: Pet1Settings,
        *,
        now_seconds: float,
        entropy: Callable[[int], bytes],
        round_id: int,
        leaf_store: LeafStore | None = None,
        evidence_store: EvidenceStore | None = None,
        chunk_store: ChunkStore | None = None,
        threads: int | None = None,
        state: MachineState[Pet1Round] | None = None,
    ) -> None:
        self._leaves: Final = MemoryLeafStore() if leaf_store is None else leaf_store
        self._evidence: Final = MemoryEvidenceStore() if evidence_store is None else evidence_store
        super().__init__(
            pet1_profile(self._leaves, threads, self._evidence),
            settings,
            now_seconds=now_seconds,
            entropy=entropy,
            round_id=round_id,
            chunk_store=chunk_store,
            state=state,
        )
        self._intake: Final = UpdateIntake(self._leaves, settings.pieces_in_flight)
        self._entries: Final = deque[Pet1Entry]()

    def slots(self) -> list[SlotStatus]:
        """Return what each member has done in this round; empty before the first."""
        current = self.state.round
        if current is None:
            return []
        wrong = self._evidence.wrong_members()
        return [
            SlotStatus(
                announced=slot in current.sums,
                checked=slot in current.checks,
                complained=slot in current.checks and count_complaints(current.checks[slot]) > 0,
                answered=slot in current.answers,
                wrong=member in wrong,
            )
            for slot, member in enumerate(current.enrolment.members)
        ]

    def next_entry(self) -> Pet1Entry | None:
        """Take the oldest entry of this round that nobody took yet; None if there is none.

        Its owner makes it durable before it answers the message that left it.
        """
        return self._entries.popleft() if self._entries else None

    def release_leaves(self) -> None:
        """Drop the leaves that the state needs no longer. Call it only once the state, as it is now, is durable."""
        current = self.state.round
        if self.phase is Phase.SHUTDOWN:
            return  # a coordinator that goes on from the state before needs them
        there = set(self._leaves.uploads())
        needed = set() if current is None else {each.name for each in current.uploads.values() if not each.is_dead}
        if current is not None and self.phase is Phase.UPDATE:
            # Of updates that were open before a restart leaves are there that no upload names yet: their senders come again.
            needed = there - {each.name for each in current.uploads.values() if each.is_dead}
        for name in there - needed:
            self._leaves.drop(name)

    def take(self, message: Message, checked: SenderCheck | None = None) -> Pet1Entry | None:
        """Take a message as `receive` does, but let no time pass."""
        entry = super().take(message, checked)
        if entry is not None:
            self._entries.append(entry)
        return entry

    def open_update(self, sealed: Buffer, now_seconds: float) -> UpdateAnswer:
        """Take the sealed part of an update, or the same again after a break."""
        self.advance_time(now_seconds)
        work = self.judge_update(sealed)
        self.sync_leaves(work)
        return self.take_update(work, now_seconds)

    def take_piece(self, body: Buffer, now_seconds: float) -> UpdateAnswer:
        """Take a piece of an open update's vector."""

        def keep(current: Pet1Round, work: UploadWork) -> None:
            self._intake.keep(current, *read_piece(body), work)

        self.advance_time(now_seconds)
        work = self._do_work(keep)
        self.sync_leaves(work)
        return self.take_update(work, now_seconds)

    def take_whole_update(self, body: Buffer, now_seconds: float) -> UpdateAnswer:
        """Take an update in one: the size of the sealed part, that part, and the vector."""
        view = memoryview(body).cast("B")

        def judge(current: Pet1Round, work: UploadWork) -> None:
            assert current.committee is not None, "updates come after the Sum phase"
            size = sealed_update_bytes(current.committee)
            end = _SIZE_BYTES + size
            is_sized = int.from_bytes(view[:_SIZE_BYTES], "little") == size and len(view) == end + current.record.vector_bytes
            require(
                is_sized, "length_mismatch", f"update: expected a sealed part of {size} bytes and a vector, got {len(view)}"
            )
            self._intake.judge(current, view[_SIZE_BYTES:end], work)

        self.advance_time(now_seconds)
        work = self._do_work(judge)
        self.sync_leaves(work)
        answer = self.take_update(work, now_seconds)
        opened, end = work.opened, len(view) - (0 if work.current is None else work.current.record.vector_bytes)
        for first, start in enumerate(range(end, len(view), _PIECE_BYTES)):
            if not isinstance(answer, UpdateOpen) or opened is None:
                break
            piece = view[start : start + _PIECE_BYTES]
            work = self.keep_leaves(opened.name, first * MAX_PIECE_LEAVES, piece)
            self.sync_leaves(work)
            answer = self.take_update(work, now_seconds)
        return answer

    def judge_update(self, sealed: Buffer) -> UploadWork:
        """Judge the sealed part of an update, for `sync_leaves` and `take_update`; changes nothing of the round.

        This, `keep_leaves` and `sync_leaves` are most of the work, and may overlap with each other and with all other calls,
        in any thread.
        """
        return self._do_work(lambda current, work: self._intake.judge(current, sealed, work))

    def keep_leaves(self, upload: bytes, first: int, leaves: Buffer, work: UploadWork | None = None) -> UploadWork:
        """Judge whole leaves of an open update in a row and keep them, for `sync_leaves` and `take_update`.

        Args:
            upload: the header digest.
            first: number of the first of them.
            leaves: their bytes.
            work: what was done for the leaves before them, to be added to, unless it must be taken; None begins another.
        """
        return self._do_work(lambda current, work: self._intake.keep(current, upload, first, leaves, work), work)

    def sync_leaves(self, work: UploadWork) -> None:
        """Make leaves durable that were kept: before `take_update`, which lets the round know of them."""
        self._intake.sync(work)

    def _do_work(self, do: Callable[[Pet1Round, UploadWork], None], work: UploadWork | None = None) -> UploadWork:
        """Do what needs nothing of the round that changes; why something is refused stands in the result."""
        current = self.state.round  # before the phase: in that phase it has a committee
        work = UploadWork(current=current) if work is None else work
        try:
            _require_update_phase(self.phase, is_same_round=current is work.current)
            assert current is not None, "the phase is one of a round"
            do(current, work)
        except RemoteProtocolError as error:
            work.refusal = error
        return work

    def take_update(self, work: UploadWork, now_seconds: float) -> UpdateAnswer:
        """Let time pass, take what was done for an update, and count it once it is complete."""
        self.advance_time(now_seconds)
        current = self.state.round
        try:
            _require_update_phase(self.phase, is_same_round=current is work.current)
            assert current is not None, "the phase is one of a round"
            opened = self._intake.take(current, work)
        except RemoteProtocolError as error:
            self.refuse(error.reason)
            for closed in self._intake.take_closed():
                self._entries.append(UploadEntry(closed.header.participant, closed.message, is_dead=True))
            return UpdateRefused(error.reason)
        if not opened.upload.is_complete:
            return self._intake.answer(opened)
        if not opened.is_counted:
            self._count(current, opened.header.participant)
            self.advance_time(now_seconds)
        return UpdateAccepted()

    def _begin_round(self) -> Any:
        """Open a round; entries of the one before need not be kept by anybody any longer."""
        self._entries.clear()
        return super()._begin_round()

    def _count(self, current: Pet1Round, participant: bytes) -> None:
        message = Message(
            participant_public_key=participant,
            coordinator_public_key=current.record.coordinator_key,
            payload=Pet1Payload(Pet1Tag.UPDATE, b""),
            tag=Pet1Tag.UPDATE,
        )
        self.take(message)
        self._emit(publish_header(self.state.round_id, current, len(current.updates) - 1))


def _require_update_phase(phase: Phase, *, is_same_round: bool = True) -> None:
    """Refuse what comes outside of the Update phase, or was done in that of another round.

    Raises:
        RemoteProtocolError: "wrong_phase".
    """
    is_open = phase is Phase.UPDATE and is_same_round
    require(is_open, "wrong_phase", f"phase {phase.value}: expected no update, got one")
