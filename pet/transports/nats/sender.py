"""Send large uploads in mode `direct`: ask for a slot, keep a window of chunks under way, ask for the verdict.

Whatever is lost on the way is sent again, and nothing is sent twice that the receiver says it has: after a restart of the
broker, of the receiver, or of the sender itself, an upload with the same id goes on where it stopped.

Source: docs/spec/federation.md 5.4, mode `direct`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pet.bodies.partial_upload import has_bit
from pet.buffers import Buffer
from pet.errors import (
    CounterpartOfflineError,
    MessageTooLargeError,
    RemoteProtocolError,
    SlotGoneError,
    TransportConfigError,
    TransportError,
    TransportRefusedError,
)
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.frames import (
    HEADER_BYTES,
    UPLOAD_ID_BYTES,
    ChunkHeader,
    OpenAnswer,
    UploadOffer,
    Verdict,
)
from pet.transports.nats.retry import RetryPeriod
from pet.transports.nats.subjects import Subjects

#: So much of both ends of a sealed body names it.
_END_BYTES: Final = 4096
#: How many request timeouts the receiver may take to handle an upload.
_MAX_HANDLING: Final = 20
#: A receiver that asks for more under way than this is not trusted with it.
_MAX_WINDOW: Final = 32


async def digest_of(body: Buffer) -> bytes:
    """Return the SHA-256 of a body; computed in a worker thread."""
    return (await asyncio.to_thread(hashlib.sha256, body)).digest()


def make_offer(connection: NatsConnection, body: Buffer, kind: str, round_name: str, digest: bytes) -> UploadOffer:
    """Return the offer of an upload. Its id follows from what it is, so that sending it again resumes it.

    Args:
        connection: says how large chunks may be.
        body: what to send.
        kind: what it is, for the receiver.
        round_name: which round it belongs to.
        digest: of the body; empty if it follows later. Then the id is made of size, beginning and end.
    """
    ends = (body[:_END_BYTES], body[max(0, len(body) - _END_BYTES) :])
    identity = digest or hashlib.sha256(b"".join((len(body).to_bytes(8, "big"), *ends))).digest()
    upload_id = hashlib.sha256(f"{kind}|{round_name}|".encode() + identity).digest()[:UPLOAD_ID_BYTES]
    return UploadOffer(
        upload_id=upload_id,
        size_bytes=len(body),
        sha256=digest,
        kind=kind,
        round=round_name,
        chunk_bytes=connection.max_chunk_bytes - HEADER_BYTES,
    )


def encode_chunk(offer: UploadOffer, body: memoryview, index: int) -> tuple[bytes, memoryview]:
    """Return header and data of one chunk; the data is not copied."""
    start = index * offer.chunk_bytes
    header = ChunkHeader(offer.upload_id, index, offer.chunk_count, offer.size_bytes)
    return header.to_bytes(), body[start : start + offer.chunk_bytes]


async def send_upload(
    connection: NatsConnection,
    subjects: Subjects,
    peer: str,
    body: Buffer,
    *,
    kind: str,
    round_name: str = "",
    is_sealed: bool = False,
    patience_seconds: float,
    deadline: float | None = None,
) -> Verdict:
    """Send an upload to the receiver of a federation.

    Args:
        connection: to the broker.
        subjects: names of the federation.
        peer: who sends; the broker's permissions let each peer use its own name only.
        body: what to send; must not change meanwhile.
        kind: what it is, for the receiver.
        round_name: which round it belongs to.
        is_sealed: no two of these bodies begin alike, as each begins with a key drawn for it. Then it need not be digested
            before it is sent, but meanwhile.
        patience_seconds: how long to try again without any progress.
        deadline: in the time of the event loop, after which nothing is tried again.

    Returns:
        What the receiver says.

    Raises:
        TransportError: it could not be sent; the subclass says why.
    """
    digesting = asyncio.ensure_future(digest_of(body))
    try:
        offer = make_offer(connection, body, kind, round_name, b"" if is_sealed else await digesting)
        patience = RetryPeriod(patience_seconds, deadline)
        return await _Sending(connection, subjects, peer, offer, memoryview(body), patience, digesting).run()
    finally:
        digesting.cancel()


class _Sending:
    """One upload, from the first question to the verdict."""

    def __init__(
        self,
        connection: NatsConnection,
        subjects: Subjects,
        peer: str,
        offer: UploadOffer,
        body: memoryview,
        patience: RetryPeriod,
        digesting: asyncio.Future[bytes],
    ) -> None:
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._peer: Final = peer
        self._offer: Final = offer
        self._body: Final = body
        self._patience: Final = patience
        self._digesting: Final = digesting

    async def run(self) -> Verdict:
        """Go on until there is a verdict."""
        failures = handling = 0
        while True:
            try:
                answer = await self._ask(self._subjects.open(self._peer), self._offer.to_bytes())
                if answer.slot:
                    if await self._send_missing(answer) == 0 and handling < _MAX_HANDLING:
                        # It is all there, and being handled: that takes as long as it takes.
                        handling += 1
                        self._patience.progress()
                    answer = await self._ask(self._subjects.done(answer.slot), await self._digesting)
                if answer.verdict is not None:
                    return answer.verdict
                # Not a failure: the receiver is busy, or needs some chunks again.
                self._patience.progress()
                await asyncio.sleep(answer.wait_seconds or 0)
                failures = 0
            except TransportError as error:
                failures += 1
                await self._patience.wait(error, failures)

    async def _ask(self, subject: str, payload: bytes) -> OpenAnswer:
        try:
            return OpenAnswer.from_bytes(await self._connection.request(subject, payload))
        except RemoteProtocolError as error:
            raise TransportError(f"{subject}: {error}") from None

    async def _send_missing(self, answer: OpenAnswer) -> int:
        """Send what the receiver does not have, some chunks at a time.

        Returns:
            How many chunks these were.

        Raises:
            SlotGoneError: the slot is no longer there.
            TransportError: a chunk could not be sent.
        """
        offer, most = self._offer, self._offer.chunk_bytes
        if answer.chunk_bytes > most:
            raise TransportConfigError(f"chunks: expected at most {most} bytes, the receiver wants {answer.chunk_bytes}")
        if answer.chunk_bytes != most:
            offer = replace(offer, chunk_bytes=answer.chunk_bytes)
        subject = self._subjects.chunk(answer.slot)
        missing = [index for index in range(offer.chunk_count) if not has_bit(answer.have, index)]
        indexes, window = iter(missing), min(_MAX_WINDOW, answer.window, len(missing))
        workers = [asyncio.create_task(self._send_some(subject, offer, indexes)) for _ in range(window)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return len(missing)

    async def _send_some(self, subject: str, offer: UploadOffer, indexes: Iterator[int]) -> None:
        for index in indexes:
            chunk, failures = encode_chunk(offer, self._body, index), 0
            while True:
                try:
                    await self._connection.request(subject, *chunk)
                except CounterpartOfflineError as error:
                    raise SlotGoneError(str(error)) from None
                except TransportError as error:
                    failures += 1
                    await self._patience.wait(error, failures)
                else:
                    self._patience.progress()
                    break


def require_accepted(verdict: Verdict) -> None:
    """Turn a refusal into an exception.

    Raises:
        MessageTooLargeError: the receiver takes no upload of that size.
        TransportError: the upload arrived damaged.
        TransportRefusedError: the receiver refused it for another reason.
    """
    if verdict.is_accepted:
        return
    text = f"upload: expected it to be taken, got {verdict.reason!r}"
    if verdict.reason == "wrong_digest":
        raise TransportError(text)
    raise (MessageTooLargeError if verdict.reason == "too_large" else TransportRefusedError)(text)
