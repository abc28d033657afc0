"""Updates of pet/1 in mode `stream`: out of the work queue in which the broker keeps them, the sealed part first.

Nobody waits for an answer: a sender sees in the manifest the outcome of its update. A leaf is taken out of the queue once
it is durable. A sealed part stays in it until its update is accepted or refused, as a coordinator that starts again has to open
the update again; the broker brings it once more then, and now and then before. So few of them stay that they cannot fill what
the broker hands out at a time: those of one sender that holds many are taken out early, and then an update that is not complete
does not outlive the coordinator.

Source: docs/spec/profile.md 7.3, 15.2.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Final

from pet.bodies.body import MemoryBody
from pet.bodies.holders import HolderTable, Holding
from pet.errors import MissingExtraError
from pet.pet1.answers import OPEN, PIECE_HEAD, REFUSED, WRONG_LEAF, UpdateRefused
from pet.pet1.leaves import LEAF_BYTES
from pet.transports.line_limit import LineLimit
from pet.transports.pet1 import Pet1Endpoint
from pet.transports.refusal_counts import RefusalReason
from pet.transports.service import Service

with MissingExtraError.naming("nats"):
    import nats.errors
    from nats.aio.msg import Msg

_logger: Final = logging.getLogger(__name__)

#: Sealed parts that stay in the queue; a quarter of what the broker hands out without an answer (`max_ack_pending`).
_MAX_HELD: Final = 64
#: How long after the start leaves may come before their sealed part, which the broker brings again after 30 s.
_RESUMING_SECONDS: Final = 60.0
_RESUMING_DELAY_SECONDS: Final = 2.0
_RETRY_SECONDS: Final = 0.5
_UNKNOWN: Final = UpdateRefused("unknown_upload").encode()


class StoredUpdates:
    """Takes updates out of the queue, message by message; for one event loop. Made when it begins.

    Args:
        service: the coordinator behind it.
        endpoint: its endpoint.
    """

    def __init__(self, service: Service, endpoint: Pet1Endpoint) -> None:
        self._service: Final = service
        self._endpoint: Final = endpoint
        self._lines: Final = LineLimit()
        self._table: Final = HolderTable(_MAX_HELD)
        #: By header digest, the sealed part of each update that is open.
        self._held: Final[dict[bytes, tuple[Msg, Holding]]] = {}
        self._tasks: Final[set[asyncio.Task[None]]] = set()
        self._began_seconds: Final = time.monotonic()

    async def take(self, peer: str, part: str, message: Msg) -> None:
        """Take a message of the queue, "open" or "leaves".

        Raises:
            ServiceBusyError: it cannot be taken now; it is left to the caller.
        """
        if part == "open":
            await self._open(peer, message)
        else:
            await self._take_leaf(peer, message)

    async def _open(self, peer: str, message: Msg) -> None:
        opened = await self._service.work(self._endpoint.open_update, MemoryBody(message.data))
        if opened.upload is None:
            self._log_refusal(peer, opened.answer)
            await message.ack()
            return
        upload = opened.upload
        if (held := self._held.pop(upload, None)) is not None:  # the broker brings it again
            self._table.release(held[1])
        holding = self._table.take(peer, 1, lambda: self._let_go(upload))
        if holding is None:
            await message.ack()
        else:
            self._held[upload] = message, holding

    async def _take_leaf(self, peer: str, message: Msg) -> None:
        sizes, data = self._endpoint.update_sizes(), memoryview(message.data)
        if sizes is None or len(data) <= PIECE_HEAD.size:
            _logger.info("a stored leaf of %s is dropped: of no round that is under way", peer)
            await message.term()
            return
        upload, first = PIECE_HEAD.unpack_from(data)
        leaf = data[PIECE_HEAD.size :]
        is_whole = len(leaf) == min(LEAF_BYTES, sizes.vector_bytes - first * LEAF_BYTES)
        answer = await self._service.work(self._endpoint.take_leaves, upload, first, leaf if is_whole else leaf[:0])
        since_start = time.monotonic() - self._began_seconds
        if answer == _UNKNOWN and since_start < _RESUMING_SECONDS:
            await message.nak(delay=_RESUMING_DELAY_SECONDS)
            return
        if answer == WRONG_LEAF:
            self._service.refusals.count(RefusalReason.WRONG_LEAF)
        elif answer[0] != OPEN:
            self._let_go(upload)
        self._log_refusal(peer, answer)
        await message.ack()

    async def stop(self) -> None:
        """Give back the sealed parts of what is open: the next coordinator need not wait until the broker gives this one up.

        In a while: what the broker has promised to this one until then would get them at once, and nobody would read it.
        """
        for message, _ in self._held.values():
            with suppress(nats.errors.Error, OSError):
                await message.nak(delay=_RESUMING_DELAY_SECONDS)
        self._held.clear()
        await asyncio.gather(*self._tasks)

    def _let_go(self, upload: bytes) -> None:
        """Have the sealed part of an update taken out of the queue."""
        if (held := self._held.pop(upload, None)) is not None:
            message, holding = held
            self._table.release(holding)
            task = asyncio.create_task(_acknowledge(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _log_refusal(self, peer: str, answer: bytes) -> None:
        if answer[0] == REFUSED:
            reason = answer[1:].decode("ascii", "replace")
            self._lines.log(_logger, logging.INFO, peer, "stored update of %s refused: %s", peer, reason)


async def _acknowledge(message: Msg) -> None:
    with suppress(nats.errors.Error, OSError):  # it comes again, and is refused then
        await message.ack()
