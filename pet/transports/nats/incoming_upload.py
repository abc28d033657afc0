"""One upload in mode `direct`, from its slot to its verdict; one task owns it.

Of room it holds nothing until its first chunk comes, and its slot for a moment only (slots.py): then it takes both, or ends.
Where it ends, chunks that are not answered yet are answered after nobody listens for more: the sender's next chunk then fails
at once, and it asks for a slot again, which tells it what is there.

Source: docs/spec/federation.md 5.4, mode `direct`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from contextlib import suppress
from typing import Any, Final

from pet.bodies.holders import Holding
from pet.bodies.memory_budget import PROGRESS_SHARE
from pet.bodies.partial_upload import PartialUpload, has_bit, set_bit
from pet.bodies.upload_folder import UploadRoom
from pet.errors import MissingExtraError, NoRoomError, RemoteProtocolError
from pet.transports.nats import slots
from pet.transports.nats.finish import finish_in_thread
from pet.transports.nats.frames import OpenAnswer, UploadOffer, Verdict, decode_chunk
from pet.transports.nats.subscription import Subscription
from pet.transports.nats.surroundings import Surroundings

with MissingExtraError.naming("nats"):
    from nats.aio.msg import Msg

_logger: Final = logging.getLogger(__name__)

#: Windows of chunks that one upload may have in memory: one that is answered already and one that is not are what a sender
#: that keeps to its window can cause; what comes beyond is dropped.
_MAX_WINDOWS: Final = 3
#: When to ask again for a slot.
WAIT_SECONDS: Final = 0.2
#: How long a slot waits for the sender to ask for the verdict; later it has to ask for a slot to get it.
_DONE_SECONDS: Final = 5.0


class IncomingUpload:
    """One upload.

    Attributes:
        peer: who sends it.
    """

    def __init__(self, around: Surroundings, peer: str, offer: UploadOffer) -> None:
        self.peer: Final = peer
        self._around: Final = around
        self._offer = offer
        self._loop: Final = asyncio.get_running_loop()
        self._token: Final = secrets.token_hex(16)
        #: What was taken and nobody writes yet, each with the request that is not answered before it is written.
        self._chunks: list[tuple[int, memoryview, Msg | None]] = []
        self._has_news: Final = asyncio.Event()
        #: How many were taken and are not written yet.
        self._held = 0
        self._received = bytearray()
        self._upload: PartialUpload[UploadOffer] | None = None
        self._written_bytes = self._milestone_bytes = 0
        self._progress_seconds = self._loop.time()
        self._room: UploadRoom | None = None
        self._slot: Holding | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._is_ended = False
        self._late_digest: Final[asyncio.Future[bytes]] = self._loop.create_future()
        self._is_open: Final = asyncio.Event()
        self._is_reported: Final = asyncio.Event()
        self._verdict: Final[asyncio.Future[Verdict | None]] = self._loop.create_future()

    @property
    def is_ended(self) -> bool:
        """Whether it was ended for the sake of others, or for want of room."""
        return self._is_ended

    @property
    def is_whole(self) -> bool:
        """Whether every chunk is there."""
        return self._upload is not None and self._upload.is_whole

    async def wait_until_reported(self) -> None:
        """Wait until the sender knows the verdict."""
        await self._is_reported.wait()

    def take_slot(self) -> bool:
        """Take a slot for as long as one is held in silence; returns whether there is one."""
        self._slot = self._around.slots.take(self.peer, self._offer.size_bytes, self.end)
        if self._slot is None:
            return False
        self._silence = self._loop.call_later(slots.SILENT_SECONDS, self._leave_slot)
        return True

    def end(self) -> None:
        """Stop receiving: the sender has to ask for a slot again."""
        self._is_ended = True
        self._has_news.set()

    def end_if_slow(self, since_seconds: float) -> None:
        """End the upload if it holds a slot or room and did not grow by a sixteenth of its size since then."""
        if self._progress_seconds < since_seconds and not self.is_whole:
            self.end()

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
            return OpenAnswer(wait_seconds=WAIT_SECONDS) if verdict is None else OpenAnswer(verdict=verdict)
        if self._is_ended:
            return OpenAnswer(wait_seconds=WAIT_SECONDS)
        return OpenAnswer(
            slot=self._token,
            chunk_bytes=self._offer.chunk_bytes,
            window=self._around.window,
            have=bytes(self._received if self._upload is None else self._upload.bitmap),
            expires_seconds=self._around.handler.stall_seconds,
        )

    async def run(self) -> Verdict:
        """Receive the upload and have it handled.

        Raises:
            TimeoutError: it stalled.
            NoRoomError: its slot was taken away, or there is no room for it.
            TransportError, OSError: broker or disk failed.
        """
        around, subscriptions = self._around, list[Subscription]()
        try:
            self._offer, self._received = await asyncio.to_thread(around.folder.find, self.peer, self._offer)
            chunk, done = around.subjects.chunk(self._token), around.subjects.done(self._token)
            # Unchecked: what we may not listen on, we may not listen on for any slot, and the answer to the offer goes the same
            # way after this, so that the sender cannot be earlier.
            subscriptions.append(await around.connection.take(chunk, self._take_chunk, is_checked=False))
            subscriptions.append(await around.connection.serve(done, self._answer_done, is_checked=False))
            self._is_open.set()
            upload = await self._receive()
            sha256 = self._offer.sha256 or await self._wait_for_digest()
            self._keep_room()
            verdict = await self._judge(upload, sha256)
            self._release()
            self._verdict.set_result(verdict)
            with suppress(TimeoutError):
                async with asyncio.timeout(_DONE_SECONDS):
                    await self._is_reported.wait()
            return verdict
        finally:
            is_given_up = not self._verdict.done()
            if is_given_up:
                self._verdict.set_result(None)
            try:
                if is_given_up and self._upload is not None:
                    await finish_in_thread(self._upload.close)
            finally:
                self._release()
            # Who still waits for an answer gets it before the subjects go away.
            await asyncio.sleep(0)
            for subscription in subscriptions:
                await around.connection.unsubscribe(subscription)
            self._answer([message for _, _, message in self._chunks if message is not None])

    async def _receive(self) -> PartialUpload[UploadOffer]:
        """Write chunks until all are there, as many at a time as have come."""
        if self._count_received() < self._offer.chunk_count:
            await self._wait_for_chunks()
        elif not self._begin():  # all of it was there before a restart
            raise NoRoomError("upload: expected room for it, got none")
        upload = self._upload = await asyncio.to_thread(self._around.folder.open, self.peer, self._offer)
        while not upload.is_whole:
            await self._wait_for_chunks()
            async with self._around.turn:
                chunks, self._chunks = self._chunks, []
                self._has_news.clear()
                await asyncio.to_thread(self._store, upload, chunks)
            self._held -= len(chunks)
            self._note_progress(sum(len(data) for _, data, _ in chunks))
            for _, data, _ in chunks:
                self._around.connection.recycle(data)
            del chunks
        self._give_slot_back()
        return upload

    async def _wait_for_digest(self) -> bytes:
        """Return the digest, which comes once the sender knows that all is here. Who holds most may lose its room meanwhile.

        Raises:
            TimeoutError: it did not come in time.
            NoRoomError: too many uploads of this sender wait for theirs, or its room was given to somebody else.
        """
        with self._around.slots.waiting_for_digest(self.peer, self.end) as has_place:
            if not has_place:
                self.end()
                raise NoRoomError("upload: expected its digest before others are sent, got too many without one")
            async with asyncio.timeout(self._around.handler.stall_seconds):
                while not (self._late_digest.done() or self._is_ended):
                    self._has_news.clear()
                    await self._has_news.wait()
        self._require_kept()
        return self._late_digest.result()

    def _keep_room(self) -> None:
        self._require_kept()
        assert self._room is not None, "an upload that has begun has room"
        self._room.keep()

    def _require_kept(self) -> None:
        if self._is_ended:
            raise NoRoomError("upload: expected its room until it was whole, got it taken away at the last moment")

    async def _wait_for_chunks(self) -> None:
        async with asyncio.timeout(self._around.handler.stall_seconds):
            await self._has_news.wait()
        if self._is_ended:
            raise NoRoomError("upload: expected a slot until the end, got it taken away: others need it, or there is no room")

    def _take_chunk(self, message: Msg) -> None:
        """Take one chunk, and answer: at once where nothing outlives the process anyway, else when it is written."""
        try:
            header, data = decode_chunk(message.data)
            self._offer.require_place(header, data)
        except RemoteProtocolError as error:
            _logger.info("chunk ignored: %s", error)
            return
        written = self._received if self._upload is None else self._upload.bitmap
        is_durable = self._around.folder.is_durable
        if has_bit(written if is_durable else self._received, header.index):
            self._around.connection.answer(message)  # the first answer got lost
            return
        if self._held >= _MAX_WINDOWS * self._around.window:
            return  # more than was agreed; it will come again
        if not (self._is_ended or self._room is not None or self._begin()):
            self.end()
        waits = is_durable or self._is_ended or self._held >= self._around.window
        set_bit(self._received, header.index)
        self._chunks.append((header.index, data, message if waits else None))
        self._held += 1
        self._has_news.set()
        if not waits:
            self._around.connection.answer(message)

    def _begin(self) -> bool:
        """Take a slot that lasts until all chunks are there, and room, if there are any."""
        if self._silence is not None:
            self._silence.cancel()
        if self._slot is None:
            self._slot = self._around.slots.take(self.peer, self._offer.size_bytes, self.end)
        if self._slot is None:
            return False
        try:
            self._room = self._around.folder.reserve(self.peer, self._offer.size_bytes, self.end)
        except NoRoomError as error:
            _logger.info("upload of %s: %s", self.peer, error)
            return False
        self._note_progress(0)
        return True

    def _note_progress(self, size_bytes: int) -> None:
        self._written_bytes += size_bytes
        if self._written_bytes >= self._milestone_bytes:
            self._milestone_bytes = self._written_bytes + max(1, self._offer.size_bytes // PROGRESS_SHARE)
            self._progress_seconds = self._loop.time()

    def _leave_slot(self) -> None:
        """Leave the slot to others, as no chunk has come."""
        self._give_slot_back()
        self._around.slots.leave_silent(self.end)

    def _give_slot_back(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None:
            self._around.slots.give_back(slot, self._offer.size_bytes)

    def _release(self) -> None:
        """Give slot and room back."""
        if self._silence is not None:
            self._silence.cancel()
        self._give_slot_back()
        self._around.slots.forget(self.end)
        if self._room is not None:
            self._room.give_back()

    def _count_received(self) -> int:
        return sum(byte.bit_count() for byte in self._received)

    def _store(self, upload: PartialUpload[UploadOffer], chunks: list[tuple[int, memoryview, Msg | None]]) -> None:
        """Write chunks, have them answered, and digest them meanwhile; in a worker thread."""
        new = upload.write((index, data) for index, data, _ in chunks)
        if messages := [message for _, _, message in chunks if message is not None]:
            self._loop.call_soon_threadsafe(self._answer, messages)
        for index, data in new:
            upload.digest_more(index, data)

    def _answer(self, messages: list[Msg]) -> None:
        for message in messages:
            self._around.connection.answer(message)

    async def _judge(self, upload: PartialUpload[UploadOffer], sha256: bytes) -> Verdict:
        """Check the digest and give the upload to the handler."""
        body = await asyncio.to_thread(upload.take, sha256)
        if body is None:
            await finish_in_thread(upload.discard)
            return Verdict(is_accepted=False, reason="wrong_digest")
        reason = await self._around.handler.handle(self.peer, self._offer, body)
        return Verdict(is_accepted=reason is None, reason=reason or "")

    async def _answer_done(self, _subject: str, payload: bytes) -> bytes:
        """Answer with the verdict, or with what is missing. The payload is the digest, if the offer had none."""
        if self._count_received() < self._offer.chunk_count:
            return (await self.answer()).to_bytes()
        if len(payload) == hashlib.sha256().digest_size and not self._late_digest.done():
            self._late_digest.set_result(payload)
            self._has_news.set()
        verdict = await asyncio.shield(self._verdict)
        self._is_reported.set()
        return (OpenAnswer(wait_seconds=WAIT_SECONDS) if verdict is None else OpenAnswer(verdict=verdict)).to_bytes()
