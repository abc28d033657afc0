"""What the uploads of one receiver have in common, and what they are for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from pet.bodies.body import SealedBody
from pet.bodies.upload_folder import UploadFolder
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.frames import UploadOffer
from pet.transports.nats.slots import Slots
from pet.transports.nats.subjects import Subjects


class UploadHandler(Protocol):
    """What uploads are for."""

    @property
    def stall_seconds(self) -> float:
        """How long an upload may make no progress."""
        ...

    def max_bytes(self, kind: str) -> int:
        """Return the largest upload of a kind that could be taken now; negative refuses the kind."""
        ...

    async def handle(self, peer: str, offer: UploadOffer, body: SealedBody) -> str | None:
        """Take a whole upload, whose digest is right, and close it. What takes long has to be done in a thread.

        Returns:
            None if it was taken, else why not: a short identifier, which the sender gets to see.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the uploads of one receiver have in common.

    Attributes:
        connection: to the broker.
        subjects: names of the federation.
        handler: gets what is whole.
        folder: where uploads lie until they are handled.
        window: chunks under way for each.
        slots: how many uploads may be under way.
        turn: one upload after the other is written to: as many threads as uploads would keep the event loop from its work, and
            what comes meanwhile is then written together.
    """

    connection: NatsConnection
    subjects: Subjects
    handler: UploadHandler
    folder: UploadFolder[UploadOffer]
    window: int
    slots: Slots
    turn: asyncio.Lock
