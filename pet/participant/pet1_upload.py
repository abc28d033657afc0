"""The way of one update of pet/1 to its coordinator: opened, then sent piece by piece, and opened again after a break.

Each answer says which leaves are there, so what arrived is not sent again. Nothing here does I/O.

Source: docs/spec/profile.md 7.3.
"""

from __future__ import annotations

from typing import Final

from pet.buffers import Buffer
from pet.pet1.answers import PIECE_HEAD, UpdateAccepted, UpdateOpen, UpdateRefused, build_piece
from pet.pet1.leaves import LEAF_BYTES
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.transports.pet1 import MAX_CALL_LEAVES
from pet.transports.pet1_requests import OpenUpdate, Pet1Request, SendPiece

#: A piece of one leaf: the least that can be sent.
MIN_PIECE_BYTES: Final = PIECE_HEAD.size + LEAF_BYTES
#: With these reasons a piece is refused, and the update is as it was: which leaves are there is asked for again.
_RESUMABLE: Final = frozenset({"unknown_upload", "wrong_leaf"})


class UploadSteps:
    """One update on its way.

    Args:
        update: what is sent.
        max_message_size: largest body in bytes; a piece has one leaf at least. None is unlimited.

    Attributes:
        made_progress: whether the last answer brought the update further.
    """

    def __init__(self, update: OutgoingUpdate, max_message_size: int | None) -> None:
        self.made_progress = False
        self._update: Final = update
        self._opened: UpdateOpen | None = None
        self._fewest_missing = update.leaf_count + 1
        leaves = MAX_CALL_LEAVES if max_message_size is None else (max_message_size - PIECE_HEAD.size) // LEAF_BYTES
        self._piece_leaves = max(1, min(MAX_CALL_LEAVES, leaves))

    @property
    def is_open(self) -> bool:
        """Whether the coordinator takes pieces now."""
        return self._opened is not None

    def next_request(self) -> Pet1Request:
        """Return what to send now."""
        if self._opened is None:
            return OpenUpdate(sealed=self._update.sealed)
        leaves = next(self._opened.missing(self._piece_leaves))
        return SendPiece(piece=build_piece(self._update.header.digest, leaves, self._update.vector))

    def receive(self, answer: Buffer) -> UpdateAccepted | UpdateRefused | None:
        """Take the answer to what was sent.

        Returns:
            The outcome; None while the update goes on.

        Raises:
            RemoteProtocolError: "malformed_answer"; the update is opened again.
        """
        self.made_progress, opened = False, self._opened
        self._opened = None
        outcome = self._update.read_answer(answer)
        if isinstance(outcome, UpdateOpen):
            self._go_on(outcome)
            return None
        if isinstance(outcome, UpdateRefused) and opened is not None and outcome.reason in _RESUMABLE:
            return None
        return outcome

    def _go_on(self, opened: UpdateOpen) -> None:
        """Note which leaves are missing. A coordinator that forgets some again and again makes nobody hurry."""
        missing = opened.have.count(False)
        self.made_progress = missing < self._fewest_missing
        self._fewest_missing = min(missing, self._fewest_missing)
        self._opened = opened if missing else None

    def reopen(self) -> None:
        """Ask again which leaves are there: a piece was lost on its way, or its answer was."""
        self._opened = None

    def shorten(self) -> int | None:
        """Send single leaves from now on; returns the size of such a piece, or None if pieces have no more already."""
        if self._opened is None or min(self._piece_leaves, len(next(self._opened.missing()))) == 1:
            return None
        self._piece_leaves = 1
        return MIN_PIECE_BYTES
