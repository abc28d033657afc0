"""A sealed message on its way to a coordinator: bytes that lie in memory or in a file, and can be opened and kept.

A transport makes bodies and an endpoint uses them up, without either knowing where the bytes lie: a small body is in memory, a
large one in a file (pet/bodies/spool.py). Opening one leaves it as it is, so that a coordinator can still keep the sealed
bytes of what it accepted. What they mean is for pet/messages/.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final, Protocol

from pet.buffers import Buffer
from pet.files import write_new


class SealedBody(Protocol):
    """The sealed bytes of one message; for one thread at a time."""

    @property
    def size_bytes(self) -> int:
        """How many bytes there are."""
        ...

    def open(self) -> AbstractContextManager[memoryview]:
        """Lend a writable buffer that holds the bytes, to be decrypted in place; it must not be looked at afterwards.

        The body itself stays sealed: it can be opened again, or kept.
        """
        ...

    def keep(self, path: Path) -> None:
        """Make the sealed bytes a file that outlives the body: written to the disk, then named.

        A loss of power leaves the bytes as soon as this returns, and their name after `sync_folder`.

        Raises:
            OSError: there is such a file already, or it cannot be made.
        """
        ...

    def close(self) -> None:
        """Release the bytes. Calling it twice does no harm; no other call may follow."""
        ...


class MemoryBody:
    """A `SealedBody` in memory.

    Args:
        data: the bytes; not copied, and not changed.
    """

    def __init__(self, data: Buffer) -> None:
        self._data: Buffer = data
        self.size_bytes: Final = len(data)

    def open(self) -> AbstractContextManager[memoryview]:
        """Lend a copy of the bytes."""
        return nullcontext(memoryview(bytearray(self._data)))

    def keep(self, path: Path) -> None:
        """Write a file that only its owner can read."""
        write_new(path, [self._data])

    def close(self) -> None:
        """Forget the bytes."""
        self._data = b""


def as_sealed_body(body: SealedBody | Buffer) -> SealedBody:
    """Return a body as it is, and bytes as a body in memory."""
    return MemoryBody(body) if isinstance(body, (bytes, bytearray, memoryview)) else body
