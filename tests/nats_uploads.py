"""What the tests of uploads share: a handler that keeps what it gets, and a way to count and disturb what is sent."""

from __future__ import annotations

import asyncio
import contextlib
import random

from pet.transports.nats import (
    Broadcasts,
    NatsSettings,
    StoredUploads,
    Subjects,
    UploadReceiver,
    connect,
    generate_federation_id,
    send_upload,
    store_upload,
)

CHUNK = 2**14 - 4096 - 40  # data in a chunk, with the settings below


def settings_for(broker, **options):
    return NatsSettings(**{"hosts": (broker.url,), "request_timeout_seconds": 3, "chunk_bytes": 2**14, **options})


def some_bytes(size, seed=1):
    return random.Random(seed).randbytes(size)


class Keeper:
    """Keeps every upload."""

    stall_seconds = 5.0

    def __init__(self, max_bytes=2**30, seconds=0.0, reason=None):
        self.bodies, self.peers, self._max_bytes, self._seconds, self._reason = [], [], max_bytes, seconds, reason

    def max_bytes(self, kind):
        return self._max_bytes if kind == "test" else -1

    async def handle(self, peer, offer, body):
        with body.open() as data:
            self.bodies.append(bytes(data))
        self.peers.append(peer)
        body.close()
        await asyncio.sleep(self._seconds)
        return self._reason


class CountedConnection:
    """A connection that counts what is sent by the word after the federation's id."""

    def __init__(self, connection):
        self._connection, self.counts = connection, {}

    def __getattr__(self, name):
        return getattr(self._connection, name)

    async def request(self, subject, *payload, **options):
        word = subject.split(".")[3]
        self.counts[word] = self.counts.get(word, 0) + 1
        return await self._connection.request(subject, *payload, **options)


@contextlib.asynccontextmanager
async def receiving(broker, handler, *, subjects=None, kind=UploadReceiver, **options):
    """Run a receiver on a connection of its own; yields the names of its federation."""
    subjects = subjects or Subjects(generate_federation_id())
    settings = options.pop("settings", None) or settings_for(broker)
    async with await connect(settings, "coordinator") as connection:
        broadcasts = Broadcasts(connection, subjects)
        await broadcasts.create_streams()
        connection.on_restored(broadcasts.create_streams)
        receiver = kind(connection, subjects, handler, **options)
        await receiver.start()
        try:
            yield subjects
        finally:
            await receiver.stop()


async def send(connection, subjects, body, *, patience_seconds=10.0, kind="test", **options):
    return await send_upload(connection, subjects, "peer", body, kind=kind, patience_seconds=patience_seconds, **options)


async def store(connection, subjects, body, *, patience_seconds=10.0, kind="test", **options):
    await store_upload(connection, subjects, "peer", body, kind=kind, patience_seconds=patience_seconds, **options)


async def until(condition, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


__all__ = [
    "CHUNK",
    "CountedConnection",
    "Keeper",
    "StoredUploads",
    "receiving",
    "send",
    "settings_for",
    "some_bytes",
    "store",
    "until",
]
