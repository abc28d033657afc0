"""What is announced over NATS for an update round whose uploads begin, and do not end: nobody takes what is sent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from participant_driver import round_parameters
from stalling_coordinator import LENGTH, SUMS

from pet.transports.nats import Broadcasts, NatsConnection, NatsSettings, Subjects, UploadOffer, connect
from pet.transports.nats import answers as forms
from pet.transports.nats.frames import OpenAnswer
from pet.transports.nats.storage import ask_storage
from pet.transports.nats.streams import Streams

FEDERATION = "abcdefghijklmnop"
#: Of the work queue, which takes no whole message of `LENGTH` weights.
QUEUE_BYTES = 1 << 22


@contextlib.contextmanager
def announced_round(settings: NatsSettings) -> Iterator[threading.Event]:
    """Announce a round in which everybody has an update task; yields what is set when a chunk of a message is on its way.

    In mode `direct` each offer gets a slot whose chunks are read and never answered, in mode `stream` nobody reads the queue.
    """
    begun, is_ready, ends = threading.Event(), threading.Event(), threading.Event()

    async def announce() -> None:
        subjects = Subjects(FEDERATION)
        async with await connect(settings, "coordinator") as connection:
            broadcasts = Broadcasts(connection, subjects)
            await broadcasts.create_streams()
            queue = next(config for config in Streams(connection, subjects, 0).configs() if "up." in config["subjects"][0])
            await ask_storage(connection, f"STREAM.UPDATE.{queue['name']}", queue | {"max_bytes": QUEUE_BYTES})
            await broadcasts.publish_event(forms.MODEL, forms.encode_answer(None))
            parameters = round_parameters("update", length=LENGTH).to_bytes()
            await broadcasts.publish_event(forms.PARAMETERS, forms.encode_answer(parameters))
            await broadcasts.publish_event(forms.SUMS, forms.encode_answer(SUMS))
            await _watch(connection, subjects, begun)
            is_ready.set()
            await asyncio.to_thread(ends.wait, 120)

    thread = threading.Thread(target=lambda: asyncio.run(announce()))
    thread.start()
    try:
        assert is_ready.wait(60)
        yield begun
    finally:
        ends.set()
        thread.join(60)


async def _watch(connection: NatsConnection, subjects: Subjects, begun: threading.Event) -> None:
    async def give_slot(_subject: str, payload: bytes) -> bytes:
        offer = UploadOffer.from_bytes(payload)
        have = bytes((offer.chunk_count + 7) // 8)
        return OpenAnswer(slot="slot1", window=32, chunk_bytes=offer.chunk_bytes, have=have).to_bytes()

    async def note(_: object) -> None:
        begun.set()

    if connection.settings.mode == "direct":
        await connection.serve(subjects.open_all, give_slot)
        await connection.subscribe(subjects.chunk("slot1"), note)
    else:
        await connection.subscribe(subjects.upload("me", "id").replace(".me.id", ".>"), note)
