"""Updates of pet/1 over NATS: requests with a sealed part, and with one leaf each.

The answer is that of the endpoint. Where there is no room now, or the sender asks too often, it is empty: the sender tries
again. A leaf is never copied: it stays where it was received until it is durable, and so few senders have their turn
(pet1_senders.py) that all of them together stay below what the broker and this process hold. What has come of an update while
leaves of it were written is made durable together.

What a refusal is for, only the endpoint knows; it is asked with nothing where the length alone is wrong.

Source: docs/spec/profile.md 7.3, 15.2.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from typing import Final

from pet.bodies.body import MemoryBody
from pet.buffers import Buffer
from pet.errors import BodyError, MissingExtraError, ServiceBusyError
from pet.pet1.answers import OPEN, PIECE_HEAD, WRONG_LEAF
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.leaves import LEAF_BYTES, leaf_count
from pet.transports.line_limit import LineLimit
from pet.transports.nats.connection import NatsConnection
from pet.transports.nats.pet1_frames import NO_ROOM
from pet.transports.nats.pet1_senders import DEFAULT_SENDERS, Pet1Senders
from pet.transports.nats.subjects import Subjects
from pet.transports.nats.subscription import Subscription
from pet.transports.pet1 import IncomingPiece, Pet1Endpoint
from pet.transports.rates import Rates
from pet.transports.refusal_counts import RefusalReason
from pet.transports.service import Service

with MissingExtraError.naming("nats"):
    from nats.aio.msg import Msg

_logger: Final = logging.getLogger(__name__)


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
        #: Leaves that wait until those before them are durable, by sender and header digest.
        self._waiting: Final[dict[tuple[str, bytes], list[Msg]]] = {}
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
        if not self._senders.take_leaf(peer, leaves, _now_seconds()):
            self._service.note_refused_upload("no_slot")
            self._connection.answer(message)
            self._recycle(message)
            return
        key = peer, bytes(message.data[:DIGEST_BYTES])
        if (waiting := self._waiting.get(key)) is not None:
            waiting.append(message)
            return
        self._waiting[key] = [message]
        task = asyncio.create_task(self._take_all(key), name="pet-nats-leaves")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_all(self, key: tuple[str, bytes]) -> None:
        """Take leaves that one sender brings of one update: what has come meanwhile together, until there is nothing."""
        peer, upload = key
        while messages := self._waiting[key]:
            self._waiting[key] = []
            answers: list[bytes | None] = [None] * len(messages)
            try:
                answers[:] = await self._judge(peer, upload, [memoryview(message.data) for message in messages])
            except BodyError as error:
                _logger.info("leaves of %s: %s", peer, error)
                answers[:] = [NO_ROOM] * len(messages)
            except Exception:
                _logger.exception("leaves of %s could not be taken", peer)
            for _ in messages:
                self._senders.end_leaf(peer, _now_seconds())
            for answer, together in itertools.groupby(zip(answers, messages, strict=True), key=lambda pair: pair[0]):
                if answer is not None:
                    self._answer(peer, [message for _, message in together], answer)
        del self._waiting[key]

    def _answer(self, peer: str, messages: Sequence[Msg], answer: bytes) -> None:
        if answer and answer[0] != OPEN:
            self._note_end(peer, answer)
        self._connection.answer(*messages, data=answer)
        for message in messages:
            self._recycle(message)

    async def _judge(self, peer: str, upload: bytes, pieces: Sequence[memoryview]) -> list[bytes]:
        """Have the endpoint take leaves of one update; returns their answers."""
        sizes = self._endpoint.update_sizes()
        if sizes is None or any(len(piece) <= PIECE_HEAD.size for piece in pieces):
            return [await self._refuse_length()] * len(pieces)
        leaves = list[tuple[int, memoryview]]()
        for piece in pieces:
            _, first = PIECE_HEAD.unpack_from(piece)
            leaf = piece[PIECE_HEAD.size :]
            is_whole = len(leaf) == min(LEAF_BYTES, sizes.vector_bytes - first * LEAF_BYTES)
            leaves.append((first, leaf if is_whole else leaf[:0]))
        memory, size_bytes = self._service.memory, sum(len(leaf) for _, leaf in leaves)
        if memory.is_short_for(peer, size_bytes):
            raise ServiceBusyError("leaves: expected free memory, got others that wait for some")
        async with memory.reserve(size_bytes, peer) as reservation:
            await reservation.grow(size_bytes)
            reservation.finish()
            return await self._service.work(_take_leaves, self._endpoint.begin_piece(upload), leaves)

    async def _refuse_length(self) -> bytes:
        """Return the refusal of what has another length than this round's: that of nothing at all."""
        opened = await self._service.work(self._endpoint.open_update, b"")
        return opened.answer

    def _note_end(self, peer: str, answer: bytes) -> None:
        """Note that an update is over, or that a leaf was refused: its sender waits for its turn behind others."""
        self._senders.end_turn(peer)
        if answer == WRONG_LEAF:
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


def _take_leaves(piece: IncomingPiece, leaves: Sequence[tuple[int, memoryview]]) -> list[bytes]:
    """Take leaves, in a worker thread; those behind a refusal are not looked at, and get the same answer.

    Raises:
        StorageError: they cannot be stored now.
    """
    answers = list[bytes]()
    for index, (first, leaf) in enumerate(leaves):
        answer = piece.take(first, leaf, is_last=index == len(leaves) - 1)
        if answer is not None:
            is_over = answer[0] != OPEN
            answers += [answer] * ((len(leaves) if is_over else index + 1) - len(answers))
            if is_over:
                break
    return answers


def _now_seconds() -> float:
    return asyncio.get_running_loop().time()
