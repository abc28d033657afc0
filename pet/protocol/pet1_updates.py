"""Updates of pet/1 on their way in: judged by the sealed part before a byte of the vector is taken, then leaf by leaf.

Nobody can spoil another's update: a wrong leaf is dropped, and the rest stays. Counting updates, phases and time are the
machine's business.

Source: docs/spec/profile.md 7.3.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from pet.buffers import Buffer
from pet.crypto import open_sealed
from pet.errors import CryptoError, RemoteProtocolError
from pet.pet1.answers import UpdateOpen, read_piece
from pet.pet1.leaves import Upload, read_update, sealed_update_bytes
from pet.pet1.refusing import require
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_round import OpenUpload, Pet1Round


@dataclass(slots=True)
class UpdateIntake:
    """Takes the sealed parts and the pieces of a round's updates.

    Attributes:
        store: where leaves are.
        pieces_in_flight: what each sender may have on its way.
        closed: updates that were closed for good and that nobody took yet.
    """

    store: LeafStore
    pieces_in_flight: int
    closed: list[OpenUpload] = field(default_factory=list)

    def open(self, current: Pet1Round, sealed: Buffer) -> OpenUpload:
        """Judge the sealed part of an update, and open it, or find the one that is open.

        Raises:
            RemoteProtocolError: "length_mismatch", "decryption", and as `read_update`; "update_already_submitted" (another
                header of this participant), "invalid_element" (this very update is closed for good), "too_many_updates".
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
        known = current.uploads.get(header.participant)
        if known is not None:
            is_same = known.name == header.digest
            require(is_same, "update_already_submitted", "update: expected one share header of a participant, got another")
            require(not known.is_dead, "invalid_element", "update: expected elements below the order, a leaf had others")
            return known
        most = current.record.config.max_model_count
        require(len(current.updates) < most, "too_many_updates", f"update: expected at most {most} in this round, got one more")
        upload = Upload(record=current.record, context=header.context, leaf_digests=leaf_digests)
        opened = current.uploads[header.participant] = OpenUpload(header=header, message=message, upload=upload)
        self._adopt(opened)
        return opened

    def _adopt(self, opened: OpenUpload) -> None:
        """Take the leaves that came before the coordinator was killed: they need not be sent again."""
        for index in self.store.held(opened.name):
            with contextlib.suppress(RemoteProtocolError):  # torn by the kill: it is sent again
                opened.upload.check_leaf(index, self.store.get(opened.name, index))
                opened.upload.mark(index)

    def take_piece(self, current: Pet1Round, body: Buffer) -> OpenUpload:
        """Take the leaves of a piece, up to the first wrong one.

        Raises:
            RemoteProtocolError: "unknown_upload", "length_mismatch", "wrong_leaf", "invalid_element".
        """
        header_digest, first, data = read_piece(body)
        found = [each for each in current.uploads.values() if each.name == header_digest and not each.is_dead]
        require(bool(found), "unknown_upload", "piece: expected the header digest of an open update, got another")
        self.take_leaves(found[0], first, data)
        return found[0]

    def take_leaves(self, opened: OpenUpload, first: int, data: Buffer) -> None:
        """Take whole leaves of an open update, up to the first wrong one.

        Raises:
            RemoteProtocolError: "length_mismatch", "wrong_leaf", "invalid_element".
        """
        for index, leaf in enumerate(opened.upload.check_piece(first, data), first):
            if opened.upload.have[index]:
                continue
            try:
                opened.upload.check_leaf(index, leaf)
            except RemoteProtocolError as error:
                if error.reason == "invalid_element":
                    opened.is_dead = True
                    self.closed.append(opened)
                raise
            self.store.put(opened.name, index, leaf)
            opened.upload.mark(index)

    def take_closed(self) -> list[OpenUpload]:
        """Take the updates that were closed for good, each once."""
        taken, self.closed = self.closed, []
        return taken

    def answer(self, opened: OpenUpload) -> UpdateOpen:
        """Return what the sender of an update that is not complete is answered."""
        return UpdateOpen(self.pieces_in_flight, tuple(opened.upload.have))
