"""Receive large uploads in mode `direct`: slots, windows, idempotent chunks, digest, verdict.

The receiver decides the pace. There are so few slots that all windows together stay far below what the broker holds for
one connection before it drops it; a sender without a slot has to wait. One task owns each slot; nothing here knows
what an upload means.

Source: docs/spec/federation.md 5.4, mode `direct`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import secrets
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from pet.bodies.body import SealedBody
from pet.errors import MissingExtraError, RemoteProtocolError, TransportError
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.finish import finish_in_thread
from pet.transports.nats.frames import HEADER_BYTES, OpenAnswer, UploadOffer, Verdict, decode_chunk, has_bit, set_bit
from pet.transports.nats.spool import SpoolRoom, UploadSpool
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.subscription import Subscription

with MissingExtraError.naming("nats"):
    from nats.aio.msg import Msg

_logger: Final = logging.getLogger(__name__)

#: Chunks under way for one upload. With eight slots and 1 MiB they are 32 MiB, half of what the broker holds (fact 2).
DEFAULT_WINDOW: Final = 4
DEFAULT_SLOTS: Final = 8
#: Windows of chunks that one upload may have in memory: one that is answered already and one that is not are what a sender
#: that keeps to its window can cause; what comes beyond is dropped.
_MAX_WINDOWS: Final = 3
#: Slots of one sender: nobody alone can keep all others waiting.
_SLOTS_PER_PEER: Final = 4
#: When to ask again for a slot. Half of it is random, so that those who wait do not come all at once.
_WAIT_SECONDS: Final = 0.2
#: Room for uploads on the disk: two dozen of 150 MB.
DEFAULT_MAX_SPOOL_BYTES: Final = 4 * 2**30
#: How long a slot waits for the sender to ask for the verdict; later it has to ask for a slot to get it.
_DONE_SECONDS: Final = 5.0
#: How long a receiver that stops waits for senders to ask: the last message of a round may be what ends it.
_STOP_SECONDS: Final = 1.0
#: Verdicts that are remembered for senders whose answer got lost.
_VERDICTS_KEPT: Final = 4096


class UploadHandler(Protocol):
    """The counts of uploads by outcome."""

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


class UploadReceiver:
    """Takes uploads of many senders for one handler.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        handler: gets what is whole.
        directory: for uploads that go on after a restart of this process; None forgets them then.
        slots: uploads received at the same time.
        window: chunks under way for each.
        max_spool_bytes: what uploads may take on the disk together, until they are handled; the next one waits.
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
    ) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._handler: Final = handler
        self._directory: Final = directory
        self._max_spool_bytes: Final = max_spool_bytes
        self._room: SpoolRoom | None = None
        self._slots_most: Final = slots
        self._window: Final = window
        self._receiving: Final[dict[tuple[str, bytes], _Receiving]] = {}
        self._verdicts: Final[OrderedDict[tuple[str, bytes], Verdict]] = OrderedDict()
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._subscription: Subscription | None = None
        #: One upload after the other is written to: as many threads as uploads would keep the event loop from its work, and
        #: what comes meanwhile is then written together.
        self._turn: Final = asyncio.Lock()

    async def start(self) -> None:
        """Take offers from now on.

        Raises:
            ForbiddenSubjectError, UnreachableError: the broker does not let us.
        """
        making = asyncio.create_task(asyncio.to_thread(SpoolRoom, self._directory))
        try:
            self._room = await asyncio.shield(making)
        except asyncio.CancelledError:
            self._room = await making  # made in spite of that: `stop` removes it
            raise
        self._subscription = await self._connection.serve(self._subjects.open_all, self._answer_offer)

    async def stop(self) -> None:
        """Take no more offers; keep answering for finished uploads, discard the others."""
        try:
            await self._end_uploads()
        finally:  # also when this is cancelled
            if self._room is not None:
                await finish_in_thread(self._room.close)

    async def _end_uploads(self) -> None:
        if self._subscription is not None:
            await self._connection.unsubscribe(self._subscription)
        if whole := [asyncio.create_task(each.wait_until_reported()) for each in self._receiving.values() if each.is_whole]:
            await asyncio.wait(whole, timeout=_STOP_SECONDS)
            for waiting in whole:
                waiting.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer_offer(self, subject: str, payload: bytes) -> bytes:
        try:
            offer = UploadOffer.from_bytes(payload)
            answer = await self._open(subject.rpartition(".")[2], offer)
        except RemoteProtocolError as error:
            _logger.info("upload refused: %s", error)
            answer = OpenAnswer(verdict=Verdict(is_accepted=False, reason=error.reason))
        return answer.to_bytes()

    async def _open(self, peer: str, offer: UploadOffer) -> OpenAnswer:
        """Give out a slot, or what stands in its way."""
        key = peer, offer.upload_id
        if (verdict := self._verdicts.get(key)) is not None:
            return OpenAnswer(verdict=verdict)
        receiving = self._receiving.get(key)
        if receiving is not None:
            receiving.require_same(offer)
            return await receiving.answer()
        if offer.size_bytes > (most := self._handler.max_bytes(offer.kind)):
            reason = "unknown_kind" if most < 0 else "too_large"
            raise RemoteProtocolError(reason, f"upload {offer.kind}: expected at most {most} bytes, got {offer.size_bytes}")
        busy = [owner for (owner, _), other in self._receiving.items() if not other.is_whole]
        taken = sum(other.size_bytes for other in self._receiving.values())
        is_full = taken > 0 and taken + offer.size_bytes > self._max_spool_bytes
        if is_full or len(busy) >= self._slots_most or busy.count(peer) >= _SLOTS_PER_PEER:
            return OpenAnswer(wait_seconds=_WAIT_SECONDS * (0.5 + random.random() / 2))  # noqa: S311 - no secret
        chunk_bytes = min(offer.chunk_bytes, self._connection.max_chunk_bytes - HEADER_BYTES)
        offer = replace(offer, chunk_bytes=chunk_bytes)
        receiving = _Receiving(self._connection, self._subjects, self._handler, self._window, peer, offer, self._turn)
        self._receiving[key] = receiving
        task = asyncio.create_task(self._receive(key, receiving), name="pet-nats-upload")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await receiving.answer()

    async def _receive(self, key: tuple[str, bytes], receiving: _Receiving) -> None:
        assert self._room is not None, "made by start"
        try:
            verdict = await receiving.run(self._room)
        except (TransportError, OSError, TimeoutError) as error:
            _logger.info("upload of %s given up: %s: %s", receiving.peer, type(error).__name__, error)
        except Exception:
            _logger.exception("an upload of %s could not be handled", receiving.peer)
        else:
            self._verdicts[key] = verdict
            while len(self._verdicts) > _VERDICTS_KEPT:
                self._verdicts.popitem(last=False)
        finally:
            del self._receiving[key]


class _Receiving:
    """One upload, from its slot to its verdict."""

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        handler: UploadHandler,
        window: int,
        peer: str,
        offer: UploadOffer,
        turn: asyncio.Lock,
    ) -> None:
        self.peer: Final = peer
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._handler: Final = handler
        self._window: Final = window
        self._offer = offer
        self._turn: Final = turn
        self._loop: Final = asyncio.get_running_loop()
        self._token: Final = secrets.token_hex(16)
        #: What was taken and nobody writes yet, each with the request that is not answered before it is written.
        self._chunks: list[tuple[int, memoryview, Msg | None]] = []
        self._has_chunks: Final = asyncio.Event()
        #: How many were taken and are not written yet.
        self._held = 0
        self._received = bytearray()
        self._is_durable = False
        self._spool: UploadSpool | None = None
        self._late_digest: Final[asyncio.Future[bytes]] = asyncio.get_running_loop().create_future()
        self._is_open = asyncio.Event()
        self._is_told = asyncio.Event()
        self._verdict: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()

    @property
    def size_bytes(self) -> int:
        """What it takes in the spool."""
        return 0 if self._verdict.done() else self._offer.size_bytes

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is there: then it no longer needs a slot."""
        return self._spool is not None and self._spool.is_whole

    async def wait_until_reported(self) -> None:
        """Wait until the sender knows the verdict."""
        await self._is_told.wait()

    def require_same(self, offer: UploadOffer) -> None:
        """Check that an offer with a known id is that of the same upload.

        Raises:
            RemoteProtocolError: it is not (reason "foreign_chunk").
        """
        if (offer.size_bytes, offer.sha256) != (self._offer.size_bytes, self._offer.sha256):
            raise RemoteProtocolError("foreign_chunk", "upload: expected size and digest as before, got others")

    async def answer(self) -> OpenAnswer:
        """Return the slot, once there is one."""
        opened = asyncio.ensure_future(self._is_open.wait())
        first: set[asyncio.Future[Any]] = {opened, self._verdict}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if self._verdict.done():
            verdict = self._verdict.result()
            return OpenAnswer(wait_seconds=_WAIT_SECONDS) if verdict is None else OpenAnswer(verdict=verdict)
        assert self._spool is not None, "an open slot has a spool"
        return OpenAnswer(
            slot=self._token,
            chunk_bytes=self._offer.chunk_bytes,
            window=self._window,
            have=bytes(self._spool.bitmap),
            expires_seconds=self._handler.stall_seconds,
        )

    async def run(self, room: SpoolRoom) -> Verdict:
        """Receive the upload and have it handled.

        Raises:
            TimeoutError: it stalled.
            TransportError, OSError: broker or disk failed.
        """
        subscriptions: list[Subscription] = []
        try:
            self._spool = await asyncio.to_thread(room.open, self.peer, self._offer)
            self._offer = self._spool.offer
            self._received, self._is_durable = bytearray(self._spool.bitmap), room.is_durable
            chunk, done = self._subjects.chunk(self._token), self._subjects.done(self._token)
            # Unchecked: what we may not listen on, we may not listen on for any slot, and the answer to the offer goes the same
            # way after this, so that the sender cannot be earlier.
            subscriptions.append(await self._connection.take(chunk, self._take_chunk, is_checked=False))
            subscriptions.append(await self._connection.serve(done, self._answer_done, is_checked=False))
            self._is_open.set()
            await self._write_chunks(self._spool)
            async with asyncio.timeout(self._handler.stall_seconds):
                sha256 = self._offer.sha256 or await self._late_digest
            verdict = await self._judge(self._spool, sha256)
            self._verdict.set_result(verdict)
            with suppress(TimeoutError):
                async with asyncio.timeout(_DONE_SECONDS):
                    await self._is_told.wait()
            return verdict
        finally:
            if not self._verdict.done():
                self._verdict.set_result(None)
                if self._spool is not None:
                    await finish_in_thread(self._spool.close)
            # Who still waits for an answer gets it before the subjects go away.
            await asyncio.sleep(0)
            for subscription in subscriptions:
                await self._connection.unsubscribe(subscription)

    def _take_chunk(self, message: Msg) -> None:
        """Take one chunk, and answer: at once where nothing outlives the process anyway, else when it is written."""
        spool = self._spool
        assert spool is not None, "chunks come after the slot was opened"
        try:
            header, data = decode_chunk(message.data)
            spool.require_place(header, data)
        except RemoteProtocolError as error:
            _logger.info("chunk ignored: %s", error)
            return
        if has_bit(spool.bitmap if self._is_durable else self._received, header.index):
            self._connection.answer(message)  # the first answer got lost
            return
        if self._held >= _MAX_WINDOWS * self._window:
            return  # more than was agreed; it will come again
        waits = self._is_durable or self._held >= self._window
        set_bit(self._received, header.index)
        self._chunks.append((header.index, data, message if waits else None))
        self._held += 1
        self._has_chunks.set()
        if not waits:
            self._connection.answer(message)

    async def _write_chunks(self, spool: UploadSpool) -> None:
        """Write chunks until all are there, as many at a time as have come."""
        while not spool.is_whole:
            async with asyncio.timeout(self._handler.stall_seconds):
                await self._has_chunks.wait()
            async with self._turn:
                chunks, self._chunks = self._chunks, []
                self._has_chunks.clear()
                await asyncio.to_thread(self._store, spool, chunks)
            self._held -= len(chunks)
            for _, data, _ in chunks:
                self._connection.recycle(data)
            del chunks

    def _store(self, spool: UploadSpool, chunks: list[tuple[int, memoryview, Msg | None]]) -> None:
        """Write chunks, have them answered, and digest them meanwhile; in a worker thread."""
        new = spool.write((index, data) for index, data, _ in chunks)
        if messages := [message for _, _, message in chunks if message is not None]:
            self._loop.call_soon_threadsafe(self._answer, messages)
        for index, data in new:
            spool.digest_more(index, data)

    def _answer(self, messages: list[Msg]) -> None:
        for message in messages:
            self._connection.answer(message)

    async def _judge(self, spool: UploadSpool, sha256: bytes) -> Verdict:
        """Check the digest and give the upload to the handler."""
        body = await asyncio.to_thread(spool.take, sha256)
        if body is None:
            await finish_in_thread(spool.discard)
            return Verdict(is_accepted=False, reason="wrong_digest")
        reason = await self._handler.handle(self.peer, self._offer, body)
        return Verdict(is_accepted=reason is None, reason=reason or "")

    async def _answer_done(self, _subject: str, payload: bytes) -> bytes:
        """Answer with the verdict, or with what is missing. The payload is the digest, if the offer had none."""
        if sum(byte.bit_count() for byte in self._received) < self._offer.chunk_count:
            return (await self.answer()).to_bytes()
        if len(payload) == hashlib.sha256().digest_size and not self._late_digest.done():
            self._late_digest.set_result(payload)
        verdict = await asyncio.shield(self._verdict)
        self._is_told.set()
        return (OpenAnswer(wait_seconds=_WAIT_SECONDS) if verdict is None else OpenAnswer(verdict=verdict)).to_bytes()
