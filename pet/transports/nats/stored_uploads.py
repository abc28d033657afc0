"""Receive large uploads in mode `stream`: out of a work queue in which the broker keeps them.

The sender (storing.py) needs no receiver while it sends. The receiver takes a chunk out of the queue as soon as it has written
it: if it did so for whole uploads only, parts of many of them could fill the queue, and none would ever become whole.

Source: docs/spec/federation.md 5.4, mode `stream`; facts 6, 7 and 11 of 5.1.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pet.bodies.body import SealedBody
from pet.bodies.memory_budget import MemoryBudget
from pet.bodies.partial_upload import PartialUpload
from pet.bodies.spool import Spool
from pet.bodies.upload_folder import ABANDONED_SECONDS, UploadFolder, UploadRoom
from pet.errors import MissingExtraError, NoRoomError, RemoteProtocolError, ServiceBusyError, TransportError
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.finish import finish_in_thread
from pet.transports.nats.frames import UploadOffer, decode_chunk
from pet.transports.nats.pet1_stored import StoredUpdates
from pet.transports.nats.receiver import DEFAULT_MAX_SPOOL_BYTES, DEFAULT_MEMORY_BYTES
from pet.transports.nats.storage import ask_storage
from pet.transports.nats.storing import OFFER_HEADER
from pet.transports.nats.subjects import STORED_UPDATE, Subjects
from pet.transports.nats.surroundings import UploadHandler

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

_logger: Final = logging.getLogger(__name__)

_ACK_WAIT_SECONDS: Final = 30
#: How long a receiver that stops waits for what is on the way to it.
_ARRIVING_SECONDS: Final = 0.2
_MAX_UNACKNOWLEDGED: Final = 256
#: Messages in one pull: 4 MiB, far below what the broker holds for a connection (fact 2). More of them, and more chunks under
#: way, cost memory of the broker and bring next to nothing: 16 and 8 took 207 MB for ten senders, 8 and 4 took 154, these 145.
_BATCH: Final = 4
#: Not a multiple of the delay of what is given back: what the broker delivers just when a pull ends waits for 30 s.
_PULL_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.5
_NO_ROOM_SECONDS: Final = 0.7
_CONSUMER: Final = "coordinator"
_FINISHED_KEPT: Final = 4096
_NANOSECONDS: Final = 10**9


@dataclass(slots=True)
class _StoredUpload:
    """An upload that is taken out of the queue, chunk by chunk.

    Attributes:
        peer: who sends it.
        upload: what is there so far.
        room: what it takes.
        grown_seconds: when a chunk came last, in the time of the event loop.
        evicting: the task that waits until the room is somebody else's.
    """

    peer: str
    upload: PartialUpload[UploadOffer]
    room: UploadRoom
    grown_seconds: float
    evicting: asyncio.Task[None] | None = None


class _LastingBody:
    """A `SealedBody` that a handler may close, and get once more; its spool is what is discarded in the end."""

    def __init__(self, body: SealedBody) -> None:
        self.size_bytes: Final = body.size_bytes
        self.open: Final = body.open
        self.keep: Final = body.keep

    def close(self) -> None:
        """Leave it as it is."""


async def _arriving(fetching: asyncio.Future[list[Msg]]) -> list[Msg]:
    """Return what the broker is handing out just now; nobody else would get it before it gives us up."""
    await asyncio.wait({fetching}, timeout=_ARRIVING_SECONDS)
    if fetching.done() and fetching.exception() is None:
        return fetching.result()
    fetching.cancel()
    await asyncio.wait({fetching})
    return []


class StoredUploads:
    """Takes uploads out of the work queue; see `UploadReceiver` for the arguments.

    Without a directory, parts of uploads that were taken out of the queue are lost if this process ends before they are whole.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        handler: gets what is whole.
        directory: for files that outlive this process.
        max_spool_bytes: what uploads may take on the disk together, if `spool` is None; more of them stay with the broker.
        spool: room on the disk that is shared with others; None makes one.
        memory: room in memory, the same way.
        updates: takes updates of pet/1; None drops them.
    """

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        handler: UploadHandler,
        *,
        updates: StoredUpdates | None = None,
        directory: Path | None = None,
        max_spool_bytes: int = DEFAULT_MAX_SPOOL_BYTES,
        spool: Spool | None = None,
        memory: MemoryBudget | None = None,
    ) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._handler: Final = handler
        self._updates: Final = updates
        self._directory: Final = directory
        self._spool: Final = spool or Spool(None, max_spool_bytes)
        self._memory: Final = memory or MemoryBudget(DEFAULT_MEMORY_BYTES)
        self._folder: UploadFolder[UploadOffer] | None = None
        self._uploads: Final[dict[tuple[str, bytes], _StoredUpload]] = {}
        self._finished: Final[OrderedDict[tuple[str, bytes], None]] = OrderedDict()
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def start(self) -> None:
        """Go on with what an earlier process left, and take chunks from now on.

        Raises:
            TransportError: the consumer cannot be made.
        """
        await self._make_consumer()
        path = None if self._directory is None else self._directory / "stored"
        make = functools.partial(UploadFolder, path, self._spool, self._memory, UploadOffer.from_bytes)
        folder = self._folder = await asyncio.to_thread(make)
        await self._restore(folder)
        self._start(self._keep_pulling())

    async def stop(self) -> None:
        """Take no more chunks. What is in files stays."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stored in self._uploads.values():
            stored.room.give_back()
            await finish_in_thread(stored.upload.close)
        self._uploads.clear()
        if self._updates is not None:
            await self._updates.stop()

    async def _make_consumer(self) -> None:
        stream = self._subjects.upload_stream
        config = {
            "durable_name": _CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": _ACK_WAIT_SECONDS * _NANOSECONDS,
            "max_ack_pending": _MAX_UNACKNOWLEDGED,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        body = {"stream_name": stream, "config": config}
        await ask_storage(self._connection, f"CONSUMER.DURABLE.CREATE.{stream}.{_CONSUMER}", body)

    async def _keep_pulling(self) -> None:
        """Pull until cancelled; whatever goes wrong with the broker is tried again."""
        while True:
            try:
                await self._make_consumer()  # a restart of the broker may have taken it away
                pulling = await self._connection.jetstream().pull_subscribe_bind(
                    consumer=_CONSUMER, stream=self._subjects.upload_stream
                )
                await self._pull(pulling)
            except (nats.errors.Error, TransportError, OSError) as error:
                _logger.debug("pulling: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _pull(self, pulling: JetStreamContext.PullSubscription) -> None:
        """Pull as long as the connection stands."""
        losses, messages = self._connection.losses, list[Msg]()
        try:
            while losses == self._connection.losses:
                fetching = asyncio.ensure_future(pulling.fetch(_BATCH, timeout=_PULL_SECONDS))
                try:
                    await asyncio.wait({fetching})
                    messages = fetching.result()
                except nats.errors.TimeoutError:
                    await self._make_consumer()  # the library says the same of an empty queue and of one that is gone
                except asyncio.CancelledError:
                    messages = await _arriving(fetching)
                    raise
                while messages:
                    await self._take(messages[0])
                    messages.pop(0)
        finally:
            # The next receiver need not wait until the broker gives us up: what is given back must not go to this pull again.
            with suppress(nats.errors.Error, OSError):
                await pulling.unsubscribe()
            for message in messages:
                with suppress(nats.errors.Error, OSError):
                    await message.nak()

    async def _take(self, message: Msg) -> None:
        """Put one chunk aside and take it out of the queue; one that fits nowhere is taken out for good (fact 11)."""
        try:
            peer, upload_id, part = message.subject.removeprefix(self._subjects.prefix + "up.").split(".")
            if upload_id == STORED_UPDATE and self._updates is not None:
                await self._take_update(self._updates, peer, part, message)
                return
            offer = UploadOffer.from_bytes((message.headers or {}).get(OFFER_HEADER, "").encode())
            header, data = decode_chunk(message.data)
            if offer.upload_id.hex() != upload_id:
                raise RemoteProtocolError("foreign_chunk", f"chunk: expected one of {upload_id}, got {offer.upload_id.hex()}")
            if (peer, offer.upload_id) not in self._finished:
                stored = await self._find_or_begin(peer, offer)
                stored.upload.plan.require_place(header, data)
                await asyncio.to_thread(stored.upload.write, [(header.index, data)])
                stored.grown_seconds = asyncio.get_running_loop().time()
                self._finish_if_whole(stored)
        except (RemoteProtocolError, ValueError) as error:
            _logger.warning("%s: a stored chunk is dropped: %s", message.subject, error)
            await message.term()
        except NoRoomError as error:
            _logger.info("%s: %s", message.subject, error)
            await message.nak(delay=_NO_ROOM_SECONDS)
        else:
            await message.ack()

    async def _take_update(self, updates: StoredUpdates, peer: str, part: str, message: Msg) -> None:
        """Take a part of an update, as soon as the coordinator can; its sealed part goes before its leaves."""
        while True:
            try:
                await updates.take(peer, part, message)
            except ServiceBusyError as error:
                _logger.info("stored update of %s: %s", peer, error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return

    async def _find_or_begin(self, peer: str, offer: UploadOffer) -> _StoredUpload:
        if (stored := self._uploads.get((peer, offer.upload_id))) is not None:
            return stored
        if offer.size_bytes > (most := self._handler.max_bytes(offer.kind)):
            reason = "unknown_kind" if most < 0 else "too_large"
            raise RemoteProtocolError(reason, f"upload {offer.kind}: expected at most {most} bytes, got {offer.size_bytes}")
        folder, key = self._folder, (peer, offer.upload_id)
        assert folder is not None, "made by start"
        is_evicted = asyncio.Event()
        try:
            room = folder.reserve(peer, offer.size_bytes, is_evicted.set)
        except NoRoomError:
            await self._give_up_abandoned()
            room = folder.reserve(peer, offer.size_bytes, is_evicted.set)
        try:
            upload = await asyncio.to_thread(folder.open, peer, offer)
        except BaseException:
            room.give_back()
            raise
        self._uploads[key] = stored = _StoredUpload(peer, upload, room, asyncio.get_running_loop().time())
        stored.evicting = self._start(self._evict(key, is_evicted))
        return stored

    async def _restore(self, folder: UploadFolder[UploadOffer]) -> None:
        """Go on with what an earlier process left, as far as there is room."""
        for peer, offer in await asyncio.to_thread(lambda: list(folder.restore())):
            try:
                self._finish_if_whole(await self._find_or_begin(peer, offer))
            except (NoRoomError, RemoteProtocolError) as error:
                _logger.warning("a stored upload of %s is not resumed: %s", peer, error)

    async def _give_up_abandoned(self) -> None:
        long_ago_seconds = asyncio.get_running_loop().time() - ABANDONED_SECONDS
        for key, stored in list(self._uploads.items()):
            if key not in self._finished and stored.grown_seconds < long_ago_seconds:
                _logger.warning("stored upload of %s given up: nothing came for %g s", stored.peer, ABANDONED_SECONDS)
                await self._discard(key)

    async def _evict(self, key: tuple[str, bytes], is_evicted: asyncio.Event) -> None:
        """Give an upload up when somebody else has its room: of all senders, this one holds most."""
        await is_evicted.wait()
        _logger.warning("stored upload of %s given up: others that hold less need the room", key[0])
        await self._discard(key)

    async def _discard(self, key: tuple[str, bytes]) -> None:
        stored = self._uploads.pop(key)
        if stored.evicting is not None and stored.evicting is not asyncio.current_task():
            stored.evicting.cancel()
        await finish_in_thread(stored.upload.discard)
        stored.room.give_back()

    def _finish_if_whole(self, stored: _StoredUpload) -> None:
        key = stored.peer, stored.upload.plan.upload_id
        if stored.upload.is_whole and key not in self._finished:
            self._finished[key] = None
            while len(self._finished) > _FINISHED_KEPT:
                self._finished.popitem(last=False)
            stored.room.keep()
            self._start(self._finish(key, stored))

    async def _finish(self, key: tuple[str, bytes], stored: _StoredUpload) -> None:
        """Give a whole upload to the handler."""
        peer, offer = stored.peer, stored.upload.plan
        try:
            body = await asyncio.to_thread(stored.upload.take, offer.sha256)
            reason = "wrong_digest" if body is None else await self._handle(peer, offer, _LastingBody(body))
            if reason is not None:
                _logger.info("stored upload of %s refused: %s", peer, reason)
        except Exception:
            _logger.exception("a stored upload of %s could not be handled", peer)
        await self._discard(key)  # what was handled must not be handled again by the next receiver

    async def _handle(self, peer: str, offer: UploadOffer, body: SealedBody) -> str | None:
        """Give a body to the handler, again and again while it is busy: nobody would send it once more.

        Raises:
            ServiceBusyError: the handler was busy for as long as an upload may make no progress.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._handler.stall_seconds
        while True:
            try:
                return await self._handler.handle(peer, offer, body)
            except ServiceBusyError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
