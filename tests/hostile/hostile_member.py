"""Attacks on a coordinator over NATS by one member: a user of the broker who may do what a participant may, without end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from hostile_servers import FEDERATION_ID, MEMBER, Server

from pet.errors import TransportError
from pet.transports.nats import NatsConnection, NatsSettings, Subjects, UploadOffer, connect, send_upload
from pet.transports.nats.answers import ASK_SEEDS, ASK_STATUS
from pet.transports.nats.frames import ChunkHeader, OpenAnswer

_SUBJECTS: Final = Subjects(FEDERATION_ID)
#: Too large for the slots of small uploads.
_LARGE_BYTES: Final = 1_100_000
#: How many of its requests wait for an answer at a time.
_AT_ONCE: Final = 8


@dataclass(frozen=True)
class MemberAttack:
    """What a member does again and again.

    Attributes:
        name: in a word.
        act: does it once; takes the connection and a number of its own each time.
        reasons: as what the coordinator may count it (`pet_nats_uploads_refused_total`, `pet_messages_refused_total`); empty
            where nothing has to be refused.
    """

    name: str
    act: Callable[[NatsConnection, int], Awaitable[object]]
    reasons: tuple[str, ...] = ()


async def _offer(connection: NatsConnection, number: int, size: int, chunks: int) -> None:
    """Offer an upload, and send its first chunks."""
    offer = UploadOffer(
        upload_id=number.to_bytes(16, "big"), size_bytes=size, sha256=b"", kind="pet", round="", chunk_bytes=min(size, 16_000)
    )
    slot = OpenAnswer.from_bytes(await connection.request(_SUBJECTS.open(MEMBER), offer.to_bytes())).slot
    for index in range(chunks if slot else 0):
        header = ChunkHeader(offer.upload_id, index, offer.chunk_count, offer.size_bytes).to_bytes()
        await connection.request(_SUBJECTS.chunk(slot), header + bytes(offer.chunk_size(index)), timeout_seconds=5)
    if not slot:
        await asyncio.sleep(0.05)


async def _send_junk(connection: NatsConnection, _: int) -> None:
    await send_upload(connection, _SUBJECTS, MEMBER, secrets.token_bytes(300), kind="pet", patience_seconds=5)


async def _ask(connection: NatsConnection, number: int) -> None:
    await connection.request(_SUBJECTS.ask(MEMBER), ASK_STATUS if number % 2 else ASK_SEEDS + bytes(32))


MEMBER_ATTACKS: Final = (
    MemberAttack(
        "silent offers", lambda connection, number: _offer(connection, number, _LARGE_BYTES, 0), ("no_slot", "evicted")
    ),
    MemberAttack("small silent offers", lambda connection, number: _offer(connection, number, 1000, 0), ("no_slot", "evicted")),
    MemberAttack(
        "begun uploads",
        lambda connection, number: _offer(connection, number, _LARGE_BYTES, 1),
        ("no_slot", "no_room", "evicted"),
    ),
    MemberAttack("uploads without a digest", lambda connection, number: _offer(connection, number, 300, 1), ("evicted",)),
    MemberAttack("junk uploads", _send_junk, ("decryption",)),
    MemberAttack("too large offers", lambda connection, number: _offer(connection, number, 1 << 30, 0), ("too_large",)),
    MemberAttack("questions", _ask),
)


@contextlib.contextmanager
def attacked_by_member(server: Server, attacks: tuple[MemberAttack, ...]) -> Iterator[None]:
    """Carry out attacks on one connection to the broker, until the end of the `with`."""
    assert server.broker is not None
    settings = NatsSettings(hosts=(server.broker.url,), user=MEMBER, password=MEMBER, request_timeout_seconds=10)
    stopping = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_attack_until(settings, attacks, stopping)))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


async def _attack_until(settings: NatsSettings, attacks: tuple[MemberAttack, ...], stopping: threading.Event) -> None:
    numbers = itertools.count(int.from_bytes(bytes(attacks[0].name.encode().ljust(12)[:12])) << 32)

    async def repeat(attack: MemberAttack) -> None:
        while not stopping.is_set():
            with contextlib.suppress(TransportError, TimeoutError):
                await attack.act(connection, next(numbers))
            await asyncio.sleep(0.002)

    async with await connect(settings, MEMBER) as connection:
        tasks = [asyncio.create_task(repeat(attack)) for attack in attacks for _ in range(_AT_ONCE)]
        while not stopping.is_set():
            await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
