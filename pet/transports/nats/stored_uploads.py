"""Large uploads in mode `stream`: kept by the broker in a work queue until the receiver has them.

The sender needs no receiver while it sends. The receiver takes a chunk out of the queue as soon as it has put it aside: if it
did so for whole uploads only, parts of many of them could fill the queue, and none would ever become whole.

Source: docs/spec/federation.md 5.4, mode `stream`; facts 6, 7 and 11 of 5.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pet.bodies.body import SealedBody
from pet.buffers import Buffer
from pet.errors import MissingExtraError, NoRoomError, RemoteProtocolError, ServiceBusyError, TransportError
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.finish import finish_in_thread
from pet.transports.nats.frames import UploadOffer, decode_chunk
from pet.transports.nats.receiver import DEFAULT_MAX_SPOOL_BYTES, UploadHandler
from pet.transports.nats.retry import RetryPeriod
from pet.transports.nats.sender import digest_of, encode_chunk, make_offer
from pet.transports.nats.spool import ABANDONED_SECONDS, SpoolRoom, UploadSpool
from pet.transports.nats.storage import ask_storage, store_message
from pet.transports.nats.subjects import Subjects

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

_logger: Final = logging.getLogger(__name__)

#: Carries the offer, so that the first chunk to arrive tells what the upload is.
_OFFER_HEADER: Final = "Pet-Upload"
#: Chunks under way for one sender.
_SENDERS: Final = 3
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


async def store_upload(
    connection: NatsConnection,
    subjects: Subjects,
    peer: str,
    body: Buffer,
    *,
    kind: str,
    round_name: str = "",
    patience_seconds: float,
    deadline: float | None = None,
) -> None:
    """Store an upload at the broker; see `send_upload` for the arguments.

    A full queue is waited for. Every attempt has the same message id, so that the broker keeps a chunk once.

    Raises:
        TransportError: it could not be stored; the subclass says why.
    """
    offer = make_offer(connection, body, kind, round_name, await digest_of(body))
    view, patience = memoryview(body), RetryPeriod(patience_seconds, deadline)
    while True:
        losses = connection.losses
        await _store_all(connection, subjects.upload(peer, offer.upload_id.hex()), offer, view, patience)
        # A broker that keeps streams in memory has lost them with the connection, perhaps (fact 5).
        if connection.losses == losses or connection.settings.storage == "file":
            return


async def _store_all(
    connection: NatsConnection, subject: str, offer: UploadOffer, body: memoryview, patience: RetryPeriod
) -> None:
    headers, indexes = {_OFFER_HEADER: offer.to_bytes().decode()}, iter(range(offer.chunk_count))

    async def store_some(indexes: Iterator[int]) -> None:
        for index in indexes:
            chunk, failures = b"".join(encode_chunk(offer, body, index)), 0
            while True:
                try:
                    message_id = f"{offer.upload_id.hex()}:{index}"
                    await store_message(connection, f"{subject}.{index}", chunk, message_id, headers=headers)
                except TransportError as error:
                    failures += 1
                    await patience.wait(error, failures)
                else:
                    patience.progress()
                    break

    workers = [asyncio.create_task(store_some(indexes)) for _ in range(_SENDERS)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


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
        max_spool_bytes: what uploads may take on the disk together; what comes beyond stays with the broker.
    """

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        handler: UploadHandler,
        *,
        directory: Path | None = None,
        max_spool_bytes: int = DEFAULT_MAX_SPOOL_BYTES,
    ) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._handler: Final = handler
        self._directory: Final = directory
        self._max_spool_bytes: Final = max_spool_bytes
        self._room: SpoolRoom | None = None
        self._spools: Final[dict[tuple[str, bytes], UploadSpool]] = {}
        #: When a chunk came last, in the time of the event loop.
        self._touched: Final[dict[tuple[str, bytes], float]] = {}
        self._finished: Final[OrderedDict[tuple[str, bytes], None]] = OrderedDict()
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def start(self) -> None:
        """Go on with what an earlier process left, and take chunks from now on.

        Raises:
            TransportError: the consumer cannot be made.
        """
        await self._make_consumer()
        folder = None if self._directory is None else self._directory / "stored"
        room = self._room = await asyncio.to_thread(SpoolRoom, folder)
        for peer, spool in await asyncio.to_thread(lambda: list(room.restore())):
            self._spools[peer, spool.offer.upload_id] = spool
            self._touch(peer, spool)
            self._finish_if_whole(peer, spool)
        self._start(self._keep_pulling())

    async def stop(self) -> None:
        """Take no more chunks. What is in files stays."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for spool in self._spools.values():
            await finish_in_thread(spool.close)
        self._spools.clear()
        if self._room is not None:
            await finish_in_thread(self._room.close)

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
            # The next receiver need not wait until the broker gives us up.
            for message in messages:
                with suppress(nats.errors.Error, OSError):
                    await message.nak()

    async def _take(self, message: Msg) -> None:
        """Put one chunk aside and take it out of the queue; one that fits nowhere is taken out for good (fact 11)."""
        try:
            peer, upload_id, _ = message.subject.removeprefix(self._subjects.prefix + "up.").split(".")
            offer = UploadOffer.from_bytes((message.headers or {}).get(_OFFER_HEADER, "").encode())
            header, data = decode_chunk(message.data)
            if offer.upload_id.hex() != upload_id:
                raise RemoteProtocolError("foreign_chunk", f"chunk: expected one of {upload_id}, got {offer.upload_id.hex()}")
            if (peer, offer.upload_id) not in self._finished:
                spool = await self._spool_for(peer, offer)
                spool.require_place(header, data)
                await asyncio.to_thread(spool.write, [(header.index, data)])
                self._touch(peer, spool)
                self._finish_if_whole(peer, spool)
        except (RemoteProtocolError, ValueError) as error:
            _logger.warning("%s: a stored chunk is dropped: %s", message.subject, error)
            await message.term()
        except NoRoomError as error:
            _logger.info("%s: %s", message.subject, error)
            await message.nak(delay=_NO_ROOM_SECONDS)
        else:
            await message.ack()

    async def _spool_for(self, peer: str, offer: UploadOffer) -> UploadSpool:
        key = peer, offer.upload_id
        if (spool := self._spools.get(key)) is not None:
            return spool
        if offer.size_bytes > (most := self._handler.max_bytes(offer.kind)):
            reason = "unknown_kind" if most < 0 else "too_large"
            raise RemoteProtocolError(reason, f"upload {offer.kind}: expected at most {most} bytes, got {offer.size_bytes}")
        await self._make_room(offer.size_bytes)
        assert self._room is not None, "made by start"
        self._spools[key] = spool = await asyncio.to_thread(self._room.open, peer, offer)
        return spool

    async def _make_room(self, size_bytes: int) -> None:
        """Give up uploads whose senders have, if the room is needed.

        Raises:
            NoRoomError: there is none, for now.
        """
        if sum(spool.offer.size_bytes for spool in self._spools.values()) + size_bytes <= self._max_spool_bytes:
            return
        long_ago = asyncio.get_running_loop().time() - ABANDONED_SECONDS
        for key in [key for key, touched in self._touched.items() if touched < long_ago and key not in self._finished]:
            _logger.warning("stored upload of %s given up: nothing came for %g s", key[0], ABANDONED_SECONDS)
            self._touched.pop(key)
            await finish_in_thread(self._spools.pop(key).discard)
        taken = sum(spool.offer.size_bytes for spool in self._spools.values())
        if taken + size_bytes > self._max_spool_bytes:
            raise NoRoomError(f"expected room for {size_bytes} bytes, {taken} of {self._max_spool_bytes} are taken")

    def _touch(self, peer: str, spool: UploadSpool) -> None:
        self._touched[peer, spool.offer.upload_id] = asyncio.get_running_loop().time()

    def _finish_if_whole(self, peer: str, spool: UploadSpool) -> None:
        key = peer, spool.offer.upload_id
        if spool.is_whole and key not in self._finished:
            self._finished[key] = None
            while len(self._finished) > _FINISHED_KEPT:
                self._finished.popitem(last=False)
            self._start(self._finish(peer, spool))

    async def _finish(self, peer: str, spool: UploadSpool) -> None:
        """Give a whole upload to the handler."""
        key = peer, spool.offer.upload_id
        try:
            body = await asyncio.to_thread(spool.take, spool.offer.sha256)
            reason = "wrong_digest" if body is None else await self._handle(peer, spool.offer, _LastingBody(body))
            if reason is not None:
                _logger.info("stored upload of %s refused: %s", peer, reason)
        except Exception:
            _logger.exception("a stored upload of %s could not be handled", peer)
        self._spools.pop(key, None)
        self._touched.pop(key, None)
        await finish_in_thread(spool.discard)  # what was handled must not be handled again by the next receiver

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

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
