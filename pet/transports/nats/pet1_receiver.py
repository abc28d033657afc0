"""Updates of pet/1 over NATS: requests with a sealed part, and with one leaf each.

The answer is that of the endpoint. Where there is no room now, or the sender asks too often, it is empty: the sender tries
again. A leaf is never copied: it stays where it was received until it is durable, and so few senders have their turn
(pet1_senders.py) that all of them together stay below what the broker and this process hold.

What a refusal is for, only the endpoint knows; it is asked with nothing where the length alone is wrong.

Source: docs/spec/profile.md 7.3, 15.2.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from pet.bodies.body import MemoryBody
from pet.buffers import Buffer
from pet.errors import BodyError, MissingExtraError, ServiceBusyError
from pet.pet1.answers import OPEN, PIECE_HEAD, UpdateRefused
from pet.pet1.leaves import LEAF_BYTES, leaf_count
from pet.transports.line_limit import LineLimit
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.pet1_frames import NO_ROOM
from pet.transports.nats.pet1_senders import DEFAULT_SENDERS, Pet1Senders
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.subscription import Subscription, respond
from pet.transports.pet1 import Pet1Endpoint
from pet.transports.rates import Rates
from pet.transports.refusal_counts import RefusalReason
from pet.transports.service import Service

with MissingExtraError.naming("nats"):
    from nats.aio.msg import Msg

_logger: Final = logging.getLogger(__name__)

_WRONG_LEAF: Final = UpdateRefused("wrong_leaf").encode()


class Pet1Receiver:
    """Takes updates of many senders for one endpoint.

    Args:
        service: the coordinator behind it.
        endpoint: its endpoint.
        connection: to the broker.
        subjects: names of the federation.
        rates: how often each sender may ask in a second, with what else counts there; leaves wait for their turn instead.
    """

    def __init__(
        self,
        service: Service,
        endpoint: Pet1Endpoint,
        connection: NatsConnection,
        subjects: Subjects,
        *,
        rates: Rates,
    ) -> None:
        self._service: Final = service
        self._endpoint: Final = endpoint
        self._connection: Final = connection
        self._subjects: Final = subjects
        self._rates: Final = rates
        self._senders: Final = Pet1Senders(DEFAULT_SENDERS, service.stall_seconds)
        self._lines: Final = LineLimit()
        self._subscriptions: Final[list[Subscription]] = []
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def start(self) -> None:
        """Take updates from now on.

        Raises:
            ForbiddenSubjectError, UnreachableError: the broker does not let us.
        """
        subjects = self._subjects
        self._subscriptions.append(await self._connection.serve(subjects.open_update_all, self._open))
        self._subscriptions.append(await self._connection.take(subjects.leaves_all, self._take))

    async def stop(self) -> None:
        """Take no more; what was taken is still answered."""
        for subscription in self._subscriptions:
            await self._connection.unsubscribe(subscription)
        self._subscriptions.clear()
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _open(self, subject: str, sealed: bytes) -> bytes:
        """Take the sealed part of an update."""
        peer, sizes = subject.rpartition(".")[2], self._endpoint.update_sizes()
        if self._rates.take(peer)[1] > 0:
            return self._refuse_rate(peer)
        try:
            if sizes is None or len(sealed) != sizes.sealed_bytes:
                return await self._refuse_length()
            if not self._senders.may_send(peer, leaf_count(sizes.vector_bytes), _now_seconds()):
                self._service.note_refused_upload("no_slot")
                return NO_ROOM
            opened = await self._service.work(self._endpoint.open_update, MemoryBody(sealed))
        except BodyError as error:
            _logger.info("update of %s: %s", peer, error)
            return NO_ROOM
        if opened.upload is None:
            self._senders.end_turn(peer)
        return opened.answer

    def _take(self, message: Msg) -> None:
        """Take a leaf in the moment it comes, or say at once that there is no room for it."""
        peer, sizes = message.subject.rpartition(".")[2], self._endpoint.update_sizes()
        leaves = 1 if sizes is None else leaf_count(sizes.vector_bytes)
        if self._senders.take_leaf(peer, leaves, _now_seconds()):
            task = asyncio.create_task(self._answer_leaf(peer, message), name="pet-nats-leaf")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._service.note_refused_upload("no_slot")
        self._connection.answer(message)
        self._recycle(message)

    async def _answer_leaf(self, peer: str, message: Msg) -> None:
        try:
            answer = await self._judge(peer, message.data)
            if answer and answer[0] != OPEN:
                self._note_end(peer, answer)
        except BodyError as error:
            _logger.info("leaf of %s: %s", peer, error)
            answer = NO_ROOM
        except Exception:
            _logger.exception("a leaf of %s could not be taken", peer)
            return
        finally:
            self._senders.end_leaf(peer, _now_seconds())
        await respond(message, answer)
        self._recycle(message)

    async def _judge(self, peer: str, piece: bytes | memoryview) -> bytes:
        """Have the endpoint take a leaf."""
        sizes, view = self._endpoint.update_sizes(), memoryview(piece)
        if sizes is None or len(view) <= PIECE_HEAD.size:
            return await self._refuse_length()
        upload, first = PIECE_HEAD.unpack_from(view)
        leaf = view[PIECE_HEAD.size :]
        if len(leaf) != min(LEAF_BYTES, sizes.vector_bytes - first * LEAF_BYTES):
            leaf = leaf[:0]
        memory = self._service.memory
        if memory.is_short_for(peer, len(leaf)):
            raise ServiceBusyError("leaf: expected free memory, got others that wait for some")
        async with memory.reserve(len(leaf), peer) as reservation:
            await reservation.grow(len(leaf))
            reservation.finish()
            return await self._service.work(self._endpoint.take_leaves, upload, first, leaf)

    async def _refuse_length(self) -> bytes:
        """Return the refusal of what has another length than this round's: that of nothing at all."""
        opened = await self._service.work(self._endpoint.open_update, b"")
        return opened.answer

    def _note_end(self, peer: str, answer: bytes) -> None:
        """Note that an update is over, or that a leaf was refused: its sender waits for its turn behind others."""
        self._senders.end_turn(peer)
        if answer == _WRONG_LEAF:
            self._service.refusals.count(RefusalReason.WRONG_LEAF)
            self._lines.log(_logger, logging.WARNING, peer, "a wrong leaf of an update came from %s", peer)

    def _refuse_rate(self, peer: str) -> bytes:
        self._service.refusals.count(RefusalReason.RATE)
        self._lines.log(_logger, logging.INFO, peer, "updates not opened: %s asked too many in a second", peer)
        return NO_ROOM

    def _recycle(self, message: Msg) -> None:
        data: Buffer = message.data
        if isinstance(data, memoryview):
            self._connection.recycle(data)


def _now_seconds() -> float:
    return asyncio.get_running_loop().time()
