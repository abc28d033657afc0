"""Send large uploads in mode `stream`: into a work queue that the broker keeps until the receiver has them.

Source: docs/spec/federation.md 5.4, mode `stream`; facts 5 and 6 of 5.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from pet.buffers import Buffer
from pet.errors import TransportError
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.frames import UploadOffer
from pet.transports.nats.retry import RetryPeriod
from pet.transports.nats.sender import digest_of, encode_chunk, make_offer
from pet.transports.nats.storage import store_message
from pet.transports.nats.subjects import Subjects

#: Carries the offer, so that the first chunk to arrive tells what the upload is.
OFFER_HEADER: Final = "Pet-Upload"
#: Chunks under way for one sender.
_SENDERS: Final = 3


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
    headers, indexes = {OFFER_HEADER: offer.to_bytes().decode()}, iter(range(offer.chunk_count))

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
