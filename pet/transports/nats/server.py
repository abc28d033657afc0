"""PET over NATS, the coordinator's side: serves a `Service` on the subjects of a federation.

Round parameters, sum dictionary and model are events that everybody reads from the broker; a seed dictionary is for one
participant and answered to it; messages come in as uploads. It moves bytes between a broker and a `Service`: it knows no phase
and is never given the outcome of a message.

Source: docs/spec/federation.md 5.2, 5.4; the order of what is published is that of docs/spec/pet.md 5.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Self

from pet.bodies.body import SealedBody
from pet.crypto import PUBLIC_KEY_BYTES, hash_sha256
from pet.errors import MissingError, TransportError
from pet.model_formats import NPY, npy_header
from pet.transports.base import PublishedModel
from pet.transports.line_limit import LineLimit
from pet.transports.nats.answers import (
    ASK_SEEDS,
    ASK_STATUS,
    MODEL,
    PARAMETERS,
    SUMS,
    Answer,
    encode_answer,
    event_route,
    seeds_route,
)
from pet.transports.nats.broadcasts import MAX_EVENT_BYTES, BlobReference, Broadcasts
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.frames import UploadOffer
from pet.transports.nats.pet1_publishing import StoredModel, name_other_profile
from pet.transports.nats.pet1_server import Pet1Server
from pet.transports.nats.receiver import DEFAULT_REQUESTS_PER_SECOND, DEFAULT_SLOTS, UploadReceiver
from pet.transports.nats.stored_uploads import StoredUploads
from pet.transports.nats.streams import MIN_AGE_SECONDS
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.subscription import Reply, Subscription
from pet.transports.pet1 import Pet1Endpoint
from pet.transports.rates import Rates
from pet.transports.refusal_counts import RefusalReason
from pet.transports.service import Service
from pet.transports.signed_answers import SIGNATURE_HEADER, AnswerSigner, read_in_round

_logger: Final = logging.getLogger(__name__)

#: The kind of upload that a sealed message of PET is.
PET_MESSAGE: Final = "pet"
#: How often the coordinator is asked what it publishes; asking costs three attribute reads.
_POLL_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 1.0
#: How often everything is published again: the broker forgets what is old, and a round may last longer.
_REPUBLISH_SECONDS: Final = MIN_AGE_SECONDS / 3
#: How long an upload is not confirmed because what the round announced is not at the broker yet; a broker that takes longer has
#: the sender learn less, and must not make it send again.
_RECEIPT_SECONDS: Final = 2.0


class NatsServer:
    """Serves one coordinator to the participants of a federation: `async with NatsServer(...)`, or `start` and `stop`.

    The service must run in the same event loop; it is neither started nor stopped here, and may be served over HTTP as well.

    Args:
        service: the coordinator.
        connection: to the broker; stays open.
        subjects: names of the federation.
        creates_streams: whether this is the admin, who makes the streams; others find them there.
        publishes_model: whether participants find the global model at the broker. Where it has another way to them, the event
            says that there is none.
        directory: for uploads that go on after a restart of the coordinator; None forgets them then.
        slots: large uploads received at the same time, and small ones besides.
        requests_per_second: questions and offers of one participant, on average over ten seconds; beyond that an offer has to
            wait, and a question is not answered. A participant is a name that the broker lets it use alone (docs/nats.md).
        signer: signs events and answers in the header `Pet-Signature`; None signs nothing.
    """

    def __init__(
        self,
        service: Service,
        connection: NatsConnection,
        subjects: Subjects,
        *,
        creates_streams: bool = True,
        publishes_model: bool = True,
        directory: Path | None = None,
        slots: int = DEFAULT_SLOTS,
        requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND,
        signer: AnswerSigner | None = None,
    ) -> None:
        self._service: Final = service
        self._endpoint: Final = service.endpoint
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._broadcasts: Final = Broadcasts(connection, subjects)
        self._creates_streams: Final = creates_streams
        self._publishes_model: Final = publishes_model
        self._rates: Final = Rates(requests_per_second)
        self._lines: Final = LineLimit()
        handler = _UploadHandler(service, self._wait_until_published)
        spool, memory = service.spool, service.memory
        self._receiver: Final = UploadReceiver(
            connection,
            subjects,
            handler,
            directory=directory,
            slots=slots,
            spool=spool,
            memory=memory,
            rates=self._rates,
            on_refused=service.note_refused_upload,
        )
        self._pet1: Final = (
            Pet1Server(service, service.endpoint, connection, subjects, self._rates, publishes_model=publishes_model)
            if isinstance(service.endpoint, Pet1Endpoint)
            else None
        )
        updates = None if self._pet1 is None else self._pet1.stored
        self._stored: Final = StoredUploads(
            connection, subjects, handler, updates=updates, directory=directory, spool=spool, memory=memory
        )
        self._asking: Subscription | None = None
        self._publishing: asyncio.Task[None] | None = None
        #: Event -> what it was made of, and the parameters of the round that it was published in.
        self._published: Final[dict[str, tuple[object, bytes | None]]] = {}
        self._has_streams = False
        self._began_seconds = 0.0
        self._signer: Final = signer
        self._stored_model: tuple[PublishedModel, BlobReference] | None = None
        #: Set to look at once for what is new, and whenever that was done.
        self._looks_now: Final = asyncio.Event()
        self._has_looked: Final = asyncio.Condition()
        self._is_stopping = False

    async def start(self) -> None:
        """Make the streams and serve from now on.

        Raises:
            TransportError: broker or streams cannot be used; the subclass says why.
        """
        await self._publish_changes()
        self._connection.on_restored(self._start_anew)
        await self._receiver.start()
        if self._pet1 is not None:
            await self._pet1.start()
        self._asking = await self._connection.serve(self._subjects.ask_all, self._answer)
        if self._connection.settings.mode == "stream":
            await self._stored.start()
        self._publishing = asyncio.create_task(self._keep_publishing(), name="pet-nats-publishing")

    async def stop(self) -> None:
        """Serve no more; what was published stays with the broker."""
        # Nothing is published from now on: who waits for that is to confirm its upload while there is somebody who can.
        self._is_stopping = True
        async with self._has_looked:
            self._has_looked.notify_all()
        async with AsyncExitStack() as parts:  # each is stopped, also when this is cancelled meanwhile
            parts.push_async_callback(self._receiver.stop)
            parts.push_async_callback(self._stored.stop)
            if self._pet1 is not None:
                parts.push_async_callback(self._pet1.stop)
            if self._asking is not None:
                parts.push_async_callback(self._connection.unsubscribe, self._asking)
            if self._publishing is not None:
                self._publishing.cancel()
                await asyncio.wait({self._publishing})

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start_anew(self) -> None:
        """Have streams made that a restart of the broker took away, and everything published again."""
        self._has_streams = False

    async def _keep_publishing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._looks_now.wait(), _POLL_SECONDS)
            self._looks_now.clear()
            try:
                await self._publish_changes()
                async with self._has_looked:
                    self._has_looked.notify_all()
            except TransportError as error:
                _logger.warning("not published yet: %s", error)
                self._has_streams = self._has_streams and not isinstance(error, MissingError)
                await asyncio.sleep(_RETRY_SECONDS)
            except Exception:
                _logger.exception("what the round announced could not be published")
                await asyncio.sleep(_RETRY_SECONDS)

    async def _publish_changes(self) -> None:
        """Publish what is new since the last look.

        Old dictionaries go before new parameters come, and a model comes before the parameters of the next round: a participant
        that sees a round begin must find the model of the one before, and no dictionary of it.
        """
        if not self._has_streams or time.monotonic() - self._began_seconds > _REPUBLISH_SECONDS:
            if self._creates_streams:
                await self._broadcasts.create_streams()
            self._published.clear()
            self._stored_model = None
            if self._pet1 is not None:
                self._pet1.forget()
            else:
                await name_other_profile(self._broadcasts)
            self._has_streams, self._began_seconds = True, time.monotonic()
        endpoint = self._endpoint
        parameters, sums = endpoint.parameters(), endpoint.sums()
        model = endpoint.model() if self._publishes_model else None
        if endpoint.parameters() is not parameters:
            return  # a round ended just now: the next look sees it whole
        if self._published_in(PARAMETERS) is not parameters:
            await self._publish(SUMS, None, None, parameters)
        stored = None if model is None else await self._store_model(model)
        await self._publish(MODEL, model, stored, parameters)
        await self._publish(PARAMETERS, parameters, parameters, parameters)
        await self._publish(SUMS, sums, sums, parameters)
        if self._pet1 is not None:
            header = b"" if model is None else npy_header(model.length, model.dtype)
            await self._pet1.publish(None if stored is None else StoredModel(stored, header))

    async def _wait_until_published(self) -> None:
        """Wait until the broker has the round and the sum dictionary that the coordinator announces; not for long.

        Who sent a message asks the broker at once whether it came in time: what is there must not be older than the message.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_RECEIPT_SECONDS, self._connection.settings.request_timeout_seconds / 2)):
                async with self._has_looked:
                    while not (self._is_stopping or self._is_published()):
                        self._looks_now.set()
                        await self._has_looked.wait()

    def _is_published(self) -> bool:
        announced = {PARAMETERS: self._endpoint.parameters(), SUMS: self._endpoint.sums()}
        is_published = all(name in self._published and self._published[name][0] is source for name, source in announced.items())
        return is_published and (self._pet1 is None or self._pet1.is_published())

    def _published_in(self, name: str) -> object:
        """Return the parameters of the round in which an event was published last."""
        return self._published.get(name, (None, None))[1]

    async def _publish(self, name: str, source: object, answer: Answer, parameters: bytes | None) -> None:
        """Publish one event, unless that was done; a signed one in each round anew, as its signature names the round."""
        done = self._published.get(name)
        if done is not None and done[0] is source and (self._signer is None or done[1] is parameters):
            return
        if isinstance(answer, bytes) and len(answer) >= min(MAX_EVENT_BYTES, self._connection.max_chunk_bytes):
            answer = await self._broadcasts.publish_blob(self._subjects.model(name), answer)
        payload = encode_answer(answer)
        await self._broadcasts.publish_event(
            name, payload, self._signature(event_route(self._subjects, name), payload, parameters)
        )
        self._published[name] = source, parameters

    def _signature(self, route: str, payload: bytes, parameters: bytes | None) -> dict[str, str] | None:
        """Return the header of an answer in a round; a reference has the digest of what it refers to in it."""
        if self._signer is None or parameters is None:
            return None
        return {SIGNATURE_HEADER: self._signer.sign(route, parameters, hash_sha256(payload))}

    async def _store_model(self, model: PublishedModel) -> BlobReference:
        """Store a model for all, once."""
        if self._stored_model is None or self._stored_model[0] is not model:
            subject = self._subjects.model(str(model.round_id))
            reference = await self._broadcasts.publish_blob(subject, _npy_pieces(model), media_type=NPY)
            self._stored_model = model, reference
        return self._stored_model[1]

    async def _answer(self, subject: str, payload: bytes) -> bytes | Reply | None:
        """Answer what is for one participant, its seed dictionary, and how the round goes; None beyond its rate."""
        peer = subject.rpartition(".")[2]
        if self._rates.take(peer)[1] > 0:
            self._service.refusals.count(RefusalReason.RATE)
            self._lines.log(_logger, logging.INFO, peer, "questions not answered: %s asked too many in a second", peer)
            return None
        if payload == ASK_STATUS:
            return encode_answer(json.dumps(self._endpoint.status()).encode())
        key = payload.removeprefix(ASK_SEEDS)
        if not payload.startswith(ASK_SEEDS) or len(key) != PUBLIC_KEY_BYTES:
            text = "question of %s ignored: expected %r, or %r and a key, got %d bytes"
            self._lines.log(_logger, logging.INFO, peer, text, peer, ASK_STATUS, ASK_SEEDS, len(payload))
            return encode_answer(None)
        # Encoding ten thousand entries takes long enough to do it elsewhere.
        parameters, seeds = await self._service.run(read_in_round, self._endpoint, lambda: self._endpoint.seeds(key))
        answer: Answer = seeds
        if seeds is not None and len(seeds) >= self._connection.max_chunk_bytes:
            name = "seeds-" + hashlib.sha256(key).hexdigest()[:32]
            answer = await self._broadcasts.publish_blob(self._subjects.model(name), seeds)
        data = encode_answer(answer)
        headers = self._signature(seeds_route(self._subjects, key), data, parameters)
        return data if headers is None else Reply(data, headers)


class _UploadHandler:
    """Gives uploads to the service; implements `UploadHandler`."""

    def __init__(self, service: Service, wait_until_published: Callable[[], Awaitable[None]]) -> None:
        self._service: Final = service
        self._wait_until_published: Final = wait_until_published

    @property
    def stall_seconds(self) -> float:
        return self._service.stall_seconds

    def max_bytes(self, kind: str) -> int:
        return self._service.endpoint.max_body_bytes() if kind == PET_MESSAGE else -1

    async def handle(self, _peer: str, _offer: UploadOffer, body: SealedBody) -> str | None:
        """Hand it over. What the protocol thinks of it stays with the coordinator, as over HTTP (docs/spec/pet.md 9.3)."""
        await self._service.handle_message(body)
        await self._wait_until_published()
        return None


def _npy_pieces(model: PublishedModel) -> Iterator[bytes]:
    pieces = (array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in model.array_chunks())
    return itertools.chain([npy_header(model.length, model.dtype)], pieces)
