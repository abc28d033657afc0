"""Receive large uploads in mode `direct`: slots, windows, idempotent chunks, digest, verdict.

The receiver decides the pace. There are so few slots that all windows together stay far below what the broker holds for
one connection before it drops it; a sender without a slot has to wait (slots.py). Nothing here knows what an upload means.

Source: docs/spec/federation.md 5.4, mode `direct`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from pet.bodies.memory_budget import MemoryBudget
from pet.bodies.spool import Spool
from pet.bodies.upload_folder import UploadFolder
from pet.errors import NoRoomError, RemoteProtocolError, TransportError
from pet.transports.line_limit import LineLimit
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.frames import HEADER_BYTES, OpenAnswer, UploadOffer, Verdict
from pet.transports.nats.incoming_upload import WAIT_SECONDS, IncomingUpload
from pet.transports.nats.slots import Slots
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.subscription import Subscription
from pet.transports.nats.surroundings import Surroundings, UploadHandler
from pet.transports.rates import Rates

_logger: Final = logging.getLogger(__name__)

#: Why an upload is not received: what its sender did, or has to wait for. "rate" is an offer beyond what one peer may ask for
#: in a second; "evicted" is one that made way for others' or was
#: too slow; "other" stands for the handler's own reasons.
REFUSAL_REASONS: Final = (
    "malformed_offer",
    "foreign_chunk",
    "unknown_kind",
    "too_large",
    "no_room",
    "no_slot",
    "rate",
    "stalled",
    "evicted",
    "wrong_digest",
    "failed",
    "other",
)

#: Chunks under way for one upload. With eight slots and 1 MiB they are 32 MiB, half of what the broker holds (fact 2); small
#: uploads, of 1 MiB at most, are 8 MiB besides.
DEFAULT_WINDOW: Final = 4
DEFAULT_SLOTS: Final = 8
#: Room for uploads on the disk: two dozen of 150 MB.
DEFAULT_MAX_SPOOL_BYTES: Final = 4 * 2**30
DEFAULT_MEMORY_BYTES: Final = 64 * 2**20
#: Of one peer, as over HTTP of one address.
DEFAULT_REQUESTS_PER_SECOND: Final = 1000.0
#: How long a receiver that stops waits for senders to ask: the last message of a round may be what ends it.
_STOP_SECONDS: Final = 1.0
#: Verdicts that are remembered for senders whose answer got lost.
_VERDICTS_KEPT: Final = 4096


class UploadReceiver:
    """Takes uploads of many senders for one handler.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        handler: gets what is whole.
        directory: for uploads that go on after a restart of this process; None forgets them then.
        slots: large uploads received at the same time, and small ones besides.
        window: chunks under way for each.
        max_spool_bytes: what uploads may take on the disk together, until they are handled, if `spool` is None.
        spool: room on the disk that is shared with others; None makes one.
        memory: room in memory, the same way.
        rates: what each peer may ask for in a second, with what else counts there; None means DEFAULT_REQUESTS_PER_SECOND.
        on_refused: called with the reason, one of `REFUSAL_REASONS`, of each offer that is refused or has to wait, and of each
            upload that is given up.
    """

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        handler: UploadHandler,
        *,
        directory: Path | None = None,
        slots: int = DEFAULT_SLOTS,
        window: int = DEFAULT_WINDOW,
        max_spool_bytes: int = DEFAULT_MAX_SPOOL_BYTES,
        spool: Spool | None = None,
        memory: MemoryBudget | None = None,
        rates: Rates | None = None,
        on_refused: Callable[[str], None] | None = None,
    ) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._handler: Final = handler
        self._directory: Final = directory
        self._spool: Final = spool or Spool(None, max_spool_bytes)
        self._memory: Final = memory or MemoryBudget(DEFAULT_MEMORY_BYTES)
        self._lines: Final = LineLimit()
        self._rates: Final = rates or Rates(DEFAULT_REQUESTS_PER_SECOND)
        self._on_refused: Final = on_refused
        self._slots: Final = slots
        self._window: Final = window
        self._around: Surroundings | None = None
        self._uploads: Final[dict[tuple[str, bytes], IncomingUpload]] = {}
        self._verdicts: Final[OrderedDict[tuple[str, bytes], Verdict]] = OrderedDict()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Take offers from now on.

        Raises:
            ForbiddenSubjectError, UnreachableError: the broker does not let us.
        """
        self._around = Surroundings(
            connection=self._connection,
            subjects=self._subjects,
            handler=self._handler,
            folder=await asyncio.to_thread(UploadFolder, self._directory, self._spool, self._memory, UploadOffer.from_bytes),
            window=self._window,
            slots=Slots(self._slots),
            turn=asyncio.Lock(),
        )
        self._subscription = await self._connection.serve(self._subjects.open_all, self._answer_offer)

    async def stop(self) -> None:
        """Take no more offers; keep answering for finished uploads, discard the others."""
        try:
            if self._subscription is not None:
                await self._connection.unsubscribe(self._subscription)
            whole = [asyncio.create_task(each.wait_until_reported()) for each in self._uploads.values() if each.is_whole]
            if whole:
                await asyncio.wait(whole, timeout=_STOP_SECONDS)
            for waiting in whole:
                waiting.cancel()
        finally:  # also when this is cancelled
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer_offer(self, subject: str, payload: bytes) -> bytes:
        peer = subject.rpartition(".")[2]
        if (wait_seconds := self._rates.take(peer)[1]) > 0:
            self._count("rate")
            return OpenAnswer(wait_seconds=max(wait_seconds, WAIT_SECONDS)).to_bytes()
        try:
            offer = UploadOffer.from_bytes(payload)
            answer = await self._open(peer, offer)
        except RemoteProtocolError as error:
            self._lines.log(_logger, logging.INFO, peer, "upload of %s refused: %s", peer, error)
            self._count(error.reason)
            answer = OpenAnswer(verdict=Verdict(is_accepted=False, reason=error.reason))
        return answer.to_bytes()

    async def _open(self, peer: str, offer: UploadOffer) -> OpenAnswer:
        """Give out a slot, or what stands in its way."""
        key = peer, offer.upload_id
        if (verdict := self._verdicts.get(key)) is not None:
            return OpenAnswer(verdict=verdict)
        if (upload := self._uploads.get(key)) is not None:
            upload.require_same(offer)
            return await upload.answer()
        if offer.size_bytes > (most := self._handler.max_bytes(offer.kind)):
            reason = "unknown_kind" if most < 0 else "too_large"
            raise RemoteProtocolError(reason, f"upload {offer.kind}: expected at most {most} bytes, got {offer.size_bytes}")
        around = self._around
        assert around is not None, "made by start"
        chunk_bytes = min(offer.chunk_bytes, self._connection.max_chunk_bytes - HEADER_BYTES)
        upload = IncomingUpload(around, peer, replace(offer, chunk_bytes=chunk_bytes))
        has_room = around.folder.has_room(peer, offer.size_bytes)
        if not (has_room and upload.take_slot()):
            self._count("no_slot" if has_room else "no_room")
            # The one that waits may find a slot or room next time.
            since_seconds = asyncio.get_running_loop().time() - self._handler.stall_seconds
            for other in self._uploads.values():
                other.end_if_slow(since_seconds)
            return OpenAnswer(wait_seconds=WAIT_SECONDS * (0.5 + random.random() / 2))  # noqa: S311 - no secret
        self._uploads[key] = upload
        task = asyncio.create_task(self._receive(key, upload), name="pet-nats-upload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await upload.answer()

    def _count(self, reason: str) -> None:
        if self._on_refused is not None:
            self._on_refused(reason if reason in REFUSAL_REASONS else "other")

    async def _receive(self, key: tuple[str, bytes], upload: IncomingUpload) -> None:
        try:
            verdict = await upload.run()
        except (TransportError, OSError, TimeoutError, NoRoomError) as error:
            self._count("stalled" if isinstance(error, TimeoutError) else "evicted" if upload.is_ended else "failed")
            _logger.info("upload of %s given up: %s: %s", upload.peer, type(error).__name__, error)
        except Exception:
            _logger.exception("an upload of %s could not be handled", upload.peer)
        else:
            if not verdict.is_accepted:
                self._count(verdict.reason)
            self._verdicts[key] = verdict
            while len(self._verdicts) > _VERDICTS_KEPT:
                self._verdicts.popitem(last=False)
        finally:
            del self._uploads[key]
