"""Send updates of pet/1 in mode `stream`: into the work queue of the broker, the sealed part first, leaf by leaf then.

The coordinator may be away meanwhile, so nobody says what is there: an update counts as open when its sealed part is stored,
and as accepted when all is stored. What the coordinator says of it stands in the manifest.

Source: docs/spec/profile.md 7.3, 15.2.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.errors import RemoteProtocolError, TransportError, UnreachableError
from pet.pet1.answers import PIECE_HEAD, UpdateAccepted, UpdateOpen
from pet.pet1.leaves import leaf_count
from pet.pet1.round_record import RoundRecord
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.retry import RetryPeriod
from pet.transports.nats.storage import store_message
from pet.transports.nats.subjects import Subjects

#: Updates that are remembered, of all that share a transport; of one that is forgotten all leaves are stored again.
_MAX_UPDATES: Final = 256


@dataclass(slots=True)
class _Stored:
    """What is stored of an update.

    Attributes:
        losses: how often the connection had been lost when the first of it was stored.
        leaves: numbers of its leaves.
    """

    losses: int
    leaves: set[int] = field(default_factory=set)


class UpdateStoring:
    """The updates of one transport.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        peer: who sends.
        patience_seconds: how long a full queue is waited for without any progress.
    """

    def __init__(self, connection: NatsConnection, subjects: Subjects, peer: str, patience_seconds: float) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._peer: Final = peer
        self._patience_seconds: Final = patience_seconds
        #: Messages with the same name are stored once, no matter who sends them: with a name that others can guess, one of
        #: theirs would keep ours out.
        self._prefix: Final = secrets.token_hex(16)
        self._leaf_count = 0
        self._updates: Final[OrderedDict[bytes, _Stored]] = OrderedDict()

    async def open(self, sealed: Buffer, record: bytes | None) -> bytes:
        """Store the sealed part of an update; returns the answer that it is open.

        Args:
            sealed: the sealed part.
            record: of the round, which says how long vectors are.

        Raises:
            TransportError: there is no round, or it cannot be stored.
        """
        try:
            vector_bytes = RoundRecord.from_bytes(record or b"").vector_bytes
        except RemoteProtocolError as error:
            raise TransportError(f"round record: {error}") from None
        self._leaf_count = leaf_count(vector_bytes)
        await self._store("open", hashlib.sha256(sealed).hexdigest(), bytes(sealed))
        return self._answer(set())

    async def store_leaf(self, upload: bytes, number: int, leaf: memoryview) -> bytes:
        """Store a leaf; returns the answer that the update is open, or accepted if that was the last one.

        Raises:
            UnreachableError: the broker may have lost what was stored before, and the update has to be opened again.
            TransportError: it cannot be stored.
        """
        stored = self._updates.setdefault(upload, _Stored(self._connection.losses))
        self._updates.move_to_end(upload)
        if len(self._updates) > _MAX_UPDATES:
            self._updates.popitem(last=False)
        await self._store("leaves", f"{upload.hex()}:{number}", b"".join((PIECE_HEAD.pack(upload, number), leaf)))
        if stored.losses != self._connection.losses and self._connection.settings.storage == "memory":
            self._updates.pop(upload, None)
            raise UnreachableError("stored update: expected the connection to stay, got it lost: the storage may be gone")
        stored.leaves.add(number)
        if len(stored.leaves) == self._leaf_count:
            self._updates.pop(upload, None)
        return self._answer(stored.leaves)

    def _answer(self, leaves: set[int]) -> bytes:
        have = tuple(number in leaves for number in range(self._leaf_count))
        return UpdateAccepted().encode() if all(have) else UpdateOpen(1, have).encode()

    async def _store(self, part: str, name: str, payload: bytes) -> None:
        """Store a message once, however often it is tried."""
        patience, failures = RetryPeriod(self._patience_seconds), 0
        subject = self._subjects.stored_update(self._peer, part)
        while True:
            try:
                await store_message(self._connection, subject, payload, f"{self._prefix}:{name}")
            except TransportError as error:
                failures += 1
                await patience.wait(error, failures)
            else:
                return
