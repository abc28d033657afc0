"""Where the uploads of one receiver lie, small ones in memory, large ones in files, and the room they take.

In a folder that was chosen for it, files outlive this process, small ones too: beside the data stands a note, what the upload
is, with one bit for each chunk that is there. Room is counted where it is for all other bodies (spool.py, memory_budget.py):
`UploadFolder.reserve` does so in the event loop; other calls may block and belong into a worker thread.

Source: docs/spec/federation.md 5.4.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic

from pet.bodies.incoming import SMALL_BODY_BYTES
from pet.bodies.memory_budget import MemoryBudget
from pet.bodies.partial_upload import NOTE_BYTES, PartialUpload, Plan, UploadFile, UploadMemory, note_of
from pet.bodies.spool import Spool
from pet.errors import NoRoomError, RemoteProtocolError
from pet.files import create_private, make_folder

#: A file that nobody has written to for this long belongs to a sender that has given up.
ABANDONED_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class UploadRoom:
    """Room that was reserved for an upload.

    Attributes:
        keep: lets nobody else have it any longer, as the upload is whole.
        give_back: gives it back; calling it twice does no harm.
    """

    keep: Callable[[], None]
    give_back: Callable[[], None]


class UploadFolder(Generic[Plan]):
    """The uploads of one receiver.

    Args:
        folder: for files that outlive this process; made if it is missing. None keeps small uploads in memory, large ones in
            files without a name.
        spool: counts what is in files.
        memory: counts what is in memory.
        read_plan: makes a plan of what its `to_bytes` returned; raises RemoteProtocolError for anything else.
    """

    def __init__(self, folder: Path | None, spool: Spool, memory: MemoryBudget, read_plan: Callable[[bytes], Plan]) -> None:
        self._folder: Final = folder
        self._spool: Final = spool
        self._memory: Final = memory
        self._read_plan: Final = read_plan
        if folder is not None:
            make_folder(folder)
            for path in sorted(folder.glob("*.upload"), key=_last_written):
                self._leave_or_remove(path)

    @property
    def is_durable(self) -> bool:
        """Whether uploads go on after a restart of this process."""
        return self._folder is not None

    def has_room(self, peer: str, size_bytes: int) -> bool:
        """Return whether there would be room now for an upload of that size."""
        where = self._spool if self._lies_in_file(size_bytes) else self._memory
        return where.has_room(size_bytes, _holder_of(peer))

    def reserve(self, peer: str, size_bytes: int, end: Callable[[], None]) -> UploadRoom:
        """Reserve room for an upload, in the event loop.

        Args:
            peer: who sends it: room is shared with other peers, and addresses (pet/bodies/holders.py).
            size_bytes: of the whole.
            end: called in the event loop when the room is given to somebody else; must arrange for the end of the upload.

        Raises:
            NoRoomError: there is none now.
        """
        if self._lies_in_file(size_bytes):
            holding = self._spool.reserve(size_bytes, _holder_of(peer), end)
            return UploadRoom(
                functools.partial(self._spool.keep_room, holding), functools.partial(self._spool.give_back, holding)
            )
        reservation = self._memory.try_reserve(size_bytes, _holder_of(peer), end)
        if reservation is None:
            raise NoRoomError(f"upload: expected {size_bytes} bytes of free memory, got less")
        return UploadRoom(reservation.finish, reservation.give_back)

    def find(self, peer: str, plan: Plan) -> tuple[Plan, bytearray]:
        """Return how an upload is divided, and which of its chunks are there; nothing is made.

        The sender may say another chunk size now than when it began; what is there decides.
        """
        kept = None if self._folder is None else self._read_note(self._path_of(peer, plan))
        if kept is not None and (kept[0].size_bytes, kept[0].sha256) == (plan.size_bytes, plan.sha256):
            return kept
        return plan, bytearray(-(-plan.chunk_count // 8))

    def open(self, peer: str, plan: Plan) -> PartialUpload[Plan]:
        """Begin an upload, or go on with what there is of it.

        Raises:
            OSError: the file cannot be written.
        """
        plan, bitmap = self.find(peer, plan)
        if not self._lies_in_file(plan.size_bytes):
            return PartialUpload(plan, UploadMemory(plan.size_bytes), bitmap)
        path = None if self._folder is None else self._path_of(peer, plan)
        if path is not None:
            self._spool.resume(path)
            if not any(bitmap):
                _remove(path)
                with create_private(note_of(path)) as note:
                    note.write(plan.to_bytes().ljust(NOTE_BYTES) + bitmap)
        return PartialUpload(plan, UploadFile(self._spool, plan.size_bytes, path), bitmap)

    def restore(self) -> Iterator[tuple[str, Plan]]:
        """Yield sender and plan of each upload that an earlier process left."""
        for path in [] if self._folder is None else sorted(self._folder.glob("*.upload")):
            if (kept := self._read_note(path)) is not None:
                yield path.stem.rpartition("-")[0], kept[0]

    def _lies_in_file(self, size_bytes: int) -> bool:
        return self.is_durable or size_bytes > SMALL_BODY_BYTES

    def _path_of(self, peer: str, plan: Plan) -> Path:
        assert self._folder is not None, "only files of a folder have names"
        return self._folder / f"{peer}-{plan.upload_id.hex()}.upload"

    def _leave_or_remove(self, path: Path) -> None:
        """Count what an earlier process left; remove what was given up."""
        kept = self._read_note(path)
        if kept is None or time.time() - _last_written(path) > ABANDONED_SECONDS:
            _remove(path)
        else:
            self._spool.leave(path, note_of(path), kept[0].size_bytes)

    def _read_note(self, path: Path) -> tuple[Plan, bytearray] | None:
        """Read plan and bitmap of an upload; None if there are none that can be used."""
        with contextlib.suppress(OSError, RemoteProtocolError):
            note = note_of(path).read_bytes()
            plan = self._read_plan(note[:NOTE_BYTES])
            if path.exists() and len(note) == NOTE_BYTES + -(-plan.chunk_count // 8):
                return plan, bytearray(note[NOTE_BYTES:])
        return None


def _holder_of(peer: str) -> str:
    """Return the name of a peer among holders, where it is no address."""
    return f"peer {peer}"


def _last_written(path: Path) -> float:
    return path.stat().st_mtime


def _remove(path: Path) -> None:
    for each in (note_of(path), path):
        each.unlink(missing_ok=True)
