"""The file that holds a member's state: private, durable, and known by its number of changes.

Beside the file lies a note of how many changes were made to it (pet/change_guard.py), so that a copy from a backup is refused:
a member that signs again what it has signed before counts as a colluder. Who copies both back is not noticed here.

Source: docs/spec/profile.md 14.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pet.change_guard import Guard
from pet.errors import StateError
from pet.files import shown_fault
from pet.participant.state_file import StateFile
from pet.protocol.pet1_member import ROLE
from pet.protocol.pet1_peer import PeerState

_FORMAT: Final = 1
_WARNING: Final = "secrets of a round in clear; do not restore this from a backup: a restored member counts as a colluder"


class MemberFile:
    """One member's state on disk, open for this process alone.

    Args:
        path: the file; its folder must exist. Beside it lie a lock and the note of changes.
        is_new: begin a file that was not there before; else there has to be one.

    Attributes:
        saved: what the member stored last; None before the first.

    Raises:
        StateError: another process uses the file; it is missing, there already, damaged, or older than what the member sent.
    """

    def __init__(self, path: Path | str, *, is_new: bool) -> None:
        self._file: Final = StateFile(path)
        self._note_path: Final = self._file.path.with_name(f"{self._file.path.name}.changes")
        self.saved: bytes | None = None
        self._changes = 0
        try:
            data = self._file.load()
            had_note = self._note_path.exists()
            self._require(data is not None, is_new, had_note)
            with StateError.reading(f"state file: {self._file.path}"):
                self._guard: Final = Guard(self._note_path)
            try:
                if data is None:
                    self._require_nothing_lost()
                    self.save(PeerState(role=ROLE).encode())
                else:
                    self._read(data)
            except BaseException:
                self._guard.close()
                raise
        except BaseException:
            self._file.close()
            raise

    def save(self, state: bytes) -> None:
        """Replace the state; when this returns, it is on the disk, and nobody takes an older one for it.

        Raises:
            StateError: it cannot be written.
        """
        record = {"warning": _WARNING, "format": _FORMAT, "changes": self._changes + 1, "peer": json.loads(state)}
        self._file.save(json.dumps(record).encode())
        self._changes += 1
        try:
            self._guard.note(self._changes)
        except OSError as error:
            raise StateError(f"state file: {shown_fault(error, self._note_path, 'to note a change')}") from None
        self.saved = state

    def close(self) -> None:
        """Let others use the file; calling it twice does no harm."""
        self._guard.close()
        self._file.close()

    def _require(self, is_there: bool, is_new: bool, had_note: bool) -> None:
        path = self._file.path
        if is_new and is_there:
            raise StateError(f"state file: expected none at {path} for a member that begins, got one: start it without --new")
        if not is_new and not is_there:
            raise StateError(
                f"state file: expected the member's state at {path}, got none. A member that never ran begins with --new"
                " (new=True). If the file was lost, do so only after the round is over: until then the member counts as a"
                " colluder"
            )
        if is_there and not had_note:
            raise StateError(
                f"state file: expected {self._note_path.name} beside {path}, got none: the state was copied from somewhere, and"
                " may be older than what the member sent. Remove it after the round is over, and begin with --new (new=True)"
            )

    def _require_nothing_lost(self) -> None:
        """Refuse to begin where a state was; a kill before the first one leaves the note, and has lost nothing."""
        if self._guard.sequence:
            raise StateError(
                f"state file: expected none that was before, got {self._note_path}, the note of {self._guard.sequence} changes"
                " to a state that is gone. Remove it after the round is over, and begin with --new (new=True)"
            )

    def _read(self, data: bytes) -> None:
        with StateError.reading(f"state file: {self._file.path}"):
            record: dict[str, Any] = json.loads(data)
            if record["format"] != _FORMAT:
                raise StateError(f"expected format {_FORMAT}, got {record['format']!r}")
            self._changes, peer = record["changes"], record["peer"]
            if type(self._changes) is not int or not isinstance(peer, dict):
                raise StateError("expected a number of changes and what the member stored, got others")
        if self._changes < self._guard.sequence:
            raise StateError(
                f"state file: expected change {self._guard.sequence} in {self._file.path}, as {self._note_path.name} says, got"
                f" {self._changes}: the state is older than what the member sent, and was restored from a backup. Remove both"
                " files after the round is over, and begin with --new (new=True)"
            )
        self.saved = json.dumps(peer).encode()
