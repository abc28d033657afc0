"""Updates of pet/1 on their way in: judged by the sealed part before a byte of the vector is taken, then leaf by leaf.

Nobody can spoil another's update: a wrong leaf is dropped, and the rest stays. Counting updates, phases and time are the
machine's business.

Most of the work needs nothing of the round that changes: opening, verifying, hashing, and writing leaves. It is done first, by
as many threads as there are uploads, and comes to an `UploadWork`; what that means for the round is decided when it is taken.

Source: docs/spec/profile.md 7.3.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from pet.buffers import Buffer
from pet.crypto import open_sealed
from pet.errors import CryptoError, RemoteProtocolError, StateError
from pet.pet1.answers import UpdateOpen
from pet.pet1.leaves import MAX_PIECE_LEAVES, Upload, read_update, sealed_update_bytes
from pet.pet1.refusing import require
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_round import OpenUpload, Pet1Round


@dataclass(slots=True, kw_only=True)
class UploadWork:
    """What was done for an update outside of its round, which is as before.

    Attributes:
        current: the round.
        opened: the update: one of the round's, or one that its sealed part has yet to open.
        kept: numbers of its leaves that are right, and kept: durable after `UpdateIntake.sync`.
        refusal: why the sealed part is refused, or the rest of a piece behind these leaves; None if it is not.
    """

    current: Pet1Round | None
    opened: OpenUpload | None = None
    kept: list[int] = field(default_factory=list)
    refusal: RemoteProtocolError | None = None

    @property
    def must_be_taken(self) -> bool:
        """Whether nothing may be added to it: it is refused, or has a piece's leaves or all that were missing."""
        if self.refusal is not None:
            return True
        assert self.opened is not None, "what is not refused is about an update"
        have = self.opened.upload.have
        return len(self.kept) >= min(MAX_PIECE_LEAVES, len(have) - sum(have))


@dataclass(slots=True)
class UpdateIntake:
    """Takes the sealed parts and the leaves of a round's updates.

    Attributes:
        store: where leaves are.
        pieces_in_flight: what each sender may have on its way.
        closed: updates that were closed for good and that nobody took yet.
    """

    store: LeafStore
    pieces_in_flight: int
    closed: list[OpenUpload] = field(default_factory=list)

    def judge(self, current: Pet1Round, sealed: Buffer, work: UploadWork) -> None:
        """Judge the sealed part of an update by itself, and find the leaves of it that are there; any thread may call this.

        Raises:
            RemoteProtocolError: "length_mismatch", "decryption", and as `read_update`.
        """
        committee = current.committee
        assert committee is not None, "updates come after the Sum phase"
        size = sealed_update_bytes(committee)
        require(len(sealed) == size, "length_mismatch", f"sealed update: expected {size} bytes, got {len(sealed)}")
        try:
            message = open_sealed(sealed, current.keys)
        except CryptoError as error:
            raise RemoteProtocolError("decryption", str(error)) from None
        header, leaf_digests = read_update(message, committee)
        upload = Upload(record=current.record, context=header.context, leaf_digests=leaf_digests)
        work.opened = OpenUpload(header=header, message=message, upload=upload)
        known = current.uploads.get(header.participant)
        if known is None:
            self._find_kept(work.opened, work)
        elif known.name == work.opened.name:
            work.kept.extend(list(known.upload.kept))  # of a piece that is still on its way, or whose sender has gone

    def _find_kept(self, opened: OpenUpload, work: UploadWork) -> None:
        """Find leaves that came before the coordinator was killed: they need not be sent again."""
        for index in self.store.held(opened.name):
            with contextlib.suppress(RemoteProtocolError, StateError):  # torn by the kill: it is sent again
                opened.upload.check_leaf(index, self.store.get(opened.name, index))
                work.kept.append(index)

    def keep(self, current: Pet1Round, name: bytes, first: int, data: Buffer, work: UploadWork) -> None:
        """Judge whole leaves of an open update and keep them, up to the first wrong one; any thread may call this.

        Raises:
            RemoteProtocolError: "unknown_upload", "length_mismatch", "wrong_leaf", "invalid_element".
        """
        opened = current.find_upload(name)
        if opened is None or opened.is_dead:
            raise RemoteProtocolError("unknown_upload", "piece: expected the header digest of an open update, got another")
        work.opened = opened
        for index, leaf in enumerate(opened.upload.check_piece(first, data), first):
            if not opened.upload.have[index]:
                opened.upload.check_leaf(index, leaf)
                self.store.put(name, index, leaf)
                opened.upload.note_kept(index)
                work.kept.append(index)

    def sync(self, work: UploadWork) -> None:
        """Make the leaves durable that were kept; any thread may call this.

        Those that were found as well: a coordinator that was killed may have written them and no more.
        """
        if work.opened is not None and work.kept:
            self.store.sync(work.opened.name)

    def take(self, current: Pet1Round, work: UploadWork) -> OpenUpload:
        """Let the round know what was done for one of its updates, or for a new one.

        Raises:
            RemoteProtocolError: what the work was refused with; "update_already_submitted" (another header of this
                participant), "invalid_element" (this very update is closed for good), "too_many_updates".
        """
        opened = self._admit(current, work.opened) if work.opened is not None else None
        if opened is not None:
            for index in work.kept:
                opened.upload.mark(index)
        if work.refusal is not None:
            if opened is not None and work.refusal.reason == "invalid_element":
                opened.is_dead = True
                self.closed.append(opened)
            raise work.refusal
        assert opened is not None, "what is not refused is about an update"
        return opened

    def _admit(self, current: Pet1Round, opened: OpenUpload) -> OpenUpload:
        """Return an update of the round, which is the one given unless it is open already."""
        known = current.uploads.get(opened.header.participant)
        if known is None:
            most = current.record.config.max_model_count
            is_room = len(current.updates) < most
            require(is_room, "too_many_updates", f"update: expected at most {most} in this round, got one more")
            current.add_upload(opened)
            return opened
        is_same = known.name == opened.name
        require(is_same, "update_already_submitted", "update: expected one share header of a participant, got another")
        require(not known.is_dead, "invalid_element", "update: expected elements below the order, a leaf had others")
        return known

    def take_closed(self) -> list[OpenUpload]:
        """Take the updates that were closed for good, each once."""
        taken, self.closed = self.closed, []
        return taken

    def answer(self, opened: OpenUpload) -> UpdateOpen:
        """Return what the sender of an update that is not complete is answered."""
        return UpdateOpen(self.pieces_in_flight, tuple(opened.upload.have))
