"""Updates of pet/1 over HTTP: the sealed part first, and then leaf after leaf, each taken as soon as it is there.

A request holds one leaf in memory, which is charged to its sender. What is refused is answered before the rest of it is read:
by its length before a byte of it, by its sealed part before the vector, by a leaf before those behind it. What a refusal is
for, only the endpoint knows; it is asked with nothing where the length alone is wrong, which it refuses and counts as such.

Source: docs/spec/profile.md 7.3.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

from pet.errors import BodyError, MissingExtraError, ServiceBusyError
from pet.pet1.answers import OPEN, PIECE_HEAD, WRONG_LEAF
from pet.pet1.leaves import LEAF_BYTES, MAX_PIECE_LEAVES, leaf_count
from pet.transports.body_parts import BodyParts
from pet.transports.body_reader import FILL_KEY, BodyPieces, declared_length
from pet.transports.leaf_intake import LeafIntake
from pet.transports.line_limit import LineLimit
from pet.transports.message_route import refuse_body
from pet.transports.peers import peer_of
from pet.transports.pet1 import IncomingPiece, OpenedUpdate, Pet1Endpoint
from pet.transports.refusal import Refusal
from pet.transports.refusal_counts import RefusalReason
from pet.transports.service import Service

with MissingExtraError.naming("http"):
    from starlette.types import Receive, Scope, Send

_logger: Final = logging.getLogger(__name__)

OPEN_PATH: Final = "/pet/v1/update/open"
LEAVES_PATH: Final = "/pet/v1/update/leaves"
UPDATE_PATH: Final = "/pet/v1/update"
_SIZE_BYTES: Final = 4
_MAX_PIECE_BYTES: Final = PIECE_HEAD.size + MAX_PIECE_LEAVES * LEAF_BYTES
#: No body is longer than its parts, which are asked for one by one: nothing beyond them is read.
_NO_LIMIT_BYTES: Final = 1 << 62
#: What takes a body, given what it declares and who sends it; raises BodyError.
Take: TypeAlias = Callable[[BodyParts, int | None, str], Awaitable[bytes]]


class UpdateRoutes:
    """The three ways in of an update, one method each.

    Args:
        service: the coordinator behind it.
        endpoint: its endpoint.
    """

    def __init__(self, service: Service, endpoint: Pet1Endpoint) -> None:
        self._service: Final = service
        self._endpoint: Final = endpoint
        self._lines: Final = LineLimit()

    def applications(self) -> dict[str, UpdateRoute]:
        """Return what answers each path."""
        takes = {OPEN_PATH: self._open, LEAVES_PATH: self._take_piece, UPDATE_PATH: self._take_update}
        return {path: UpdateRoute(self._service, take) for path, take in takes.items()}

    async def _open(self, body: BodyParts, declared_bytes: int | None, holder: str) -> bytes:
        """Take the sealed part of an update."""
        sizes = self._endpoint.update_sizes()
        if sizes is None or declared_bytes not in {None, sizes.sealed_bytes}:
            return await self._refuse_length()
        opened = await self._open_sealed(body, sizes.sealed_bytes, holder, is_all=True)
        return await self._refuse_length() if opened is None else opened.answer

    async def _take_piece(self, body: BodyParts, declared_bytes: int | None, holder: str) -> bytes:
        """Take a piece of an update that is open."""
        sizes = self._endpoint.update_sizes()
        if sizes is None or not (declared_bytes is None or PIECE_HEAD.size < declared_bytes <= _MAX_PIECE_BYTES):
            return await self._refuse_length()
        head = await body.read(PIECE_HEAD.size)
        if len(head) < PIECE_HEAD.size:
            return await self._refuse_length()
        upload, first = PIECE_HEAD.unpack(head)
        if declared_bytes is None:
            leaves = range(first, min(first + MAX_PIECE_LEAVES, leaf_count(sizes.vector_bytes)))
        else:
            size_bytes = declared_bytes - PIECE_HEAD.size
            leaves = range(first, first + leaf_count(size_bytes))
            if not _is_whole_leaves(first, size_bytes, sizes.vector_bytes):
                leaves = range(first, first)
        return await self._take_leaves(body, upload, leaves, sizes.vector_bytes, holder, may_end=declared_bytes is None)

    async def _take_update(self, body: BodyParts, declared_bytes: int | None, holder: str) -> bytes:
        """Take an update in one."""
        sizes = self._endpoint.update_sizes()
        if sizes is None or declared_bytes not in {None, _SIZE_BYTES + sizes.sealed_bytes + sizes.vector_bytes}:
            return await self._refuse_length()
        if await body.read(_SIZE_BYTES) != sizes.sealed_bytes.to_bytes(_SIZE_BYTES, "little"):
            return await self._refuse_length()
        opened = await self._open_sealed(body, sizes.sealed_bytes, holder, is_all=False)
        if opened is None:
            return await self._refuse_length()
        if opened.upload is None:
            return opened.answer
        leaves = range(leaf_count(sizes.vector_bytes))
        return await self._take_leaves(body, opened.upload, leaves, sizes.vector_bytes, holder, may_end=False)

    async def _refuse_length(self) -> bytes:
        """Return the refusal of what has another length than this round's: that of nothing at all."""
        opened = await self._service.work(self._endpoint.open_update, b"")
        return opened.answer

    async def _open_sealed(self, body: BodyParts, size_bytes: int, holder: str, *, is_all: bool) -> OpenedUpdate | None:
        """Read the sealed part and have it judged; None if it ends early, or goes on where it is all there should be."""
        async with self._service.receive_body(size_bytes, holder) as incoming:
            while incoming.size_bytes < size_bytes and (part := await body.next(size_bytes - incoming.size_bytes)):
                await incoming.append(bytes(part))
            if incoming.size_bytes < size_bytes or (is_all and not await body.is_at_end()):
                return None
            sealed = await incoming.finish()
            try:
                return await self._service.work(self._endpoint.open_update, sealed)
            finally:
                sealed.close()

    async def _take_leaves(
        self, body: BodyParts, upload: bytes, leaves: range, vector_bytes: int, holder: str, *, may_end: bool
    ) -> bytes:
        """Take leaves as they arrive, until the update is refused or accepted: no more of it is looked at then.

        Args:
            body: where they come from.
            upload: the header digest.
            leaves: the numbers of those that may come.
            vector_bytes: size of the whole vector.
            holder: who sends them.
            may_end: whether they may be over before the last of these.
        """
        piece = self._endpoint.begin_piece(upload)
        try:
            answer: bytes | None = None
            if leaves:
                answer = await self._take_in_turn(body, piece, leaves, vector_bytes, holder, may_end=may_end)
            if (answer is None or answer[0] == OPEN) and not (leaves and await body.is_at_end()):
                answer = await self._service.work(piece.take, leaves.start, b"", is_last=True)
        except BodyError:
            # Leaves that came whole stay, as for a sender that ends after them.
            with suppress(ServiceBusyError):
                await self._service.work(piece.finish)
            raise
        if answer is None:
            answer = await self._service.work(piece.finish)
        assert answer is not None, "a leaf was taken, of which nothing was answered"
        if answer == WRONG_LEAF:
            self._service.refusals.count(RefusalReason.WRONG_LEAF)
            self._lines.log(_logger, logging.WARNING, holder, "a wrong leaf of an update came from %s", holder)
        return answer

    async def _take_in_turn(
        self, body: BodyParts, piece: IncomingPiece, leaves: range, vector_bytes: int, holder: str, *, may_end: bool
    ) -> bytes | None:
        """Take leaves up to the first that ends the piece, or the last; returns what was answered, if anything was."""
        sizes = [min(LEAF_BYTES, vector_bytes - number * LEAF_BYTES) for number in leaves]
        async with self._service.memory.reserve_in_turn(holder) as begin:
            intake = LeafIntake(self._service, piece, leaves.start, sizes, holder, begin)
            try:
                while not intake.is_over and not (may_end and intake.is_between and await body.is_at_end()):
                    await body.fill(intake)
                    await intake.settle()
                    if not intake.is_over:
                        part = await body.next(intake.missing_bytes)
                        await (intake.append(part) if part else intake.end())
            finally:
                intake.close()
        return intake.answer


class UpdateRoute:
    """One of them as an ASGI application: 200 and an answer of 7.3, or a status without a body.

    Args:
        service: the coordinator behind it.
        take: takes a body and returns the answer. What it leaves of the body is not read.
    """

    def __init__(self, service: Service, take: Take) -> None:
        self._service: Final = service
        self._take: Final = take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        service = self._service
        text = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-length"), None)
        try:
            declared_bytes = declared_length(text, _NO_LIMIT_BYTES)
            pieces = BodyPieces(receive, _NO_LIMIT_BYTES, service.stall_seconds, scope.get(FILL_KEY))
            body = BodyParts(pieces, declared_bytes)
            answer = await self._take(body, declared_bytes, peer_of(scope.get("client")))
        except BodyError as error:
            await refuse_body(service, error)(scope, receive, send)
            return
        if not body.is_whole:
            # Clients of asyncio look for an answer when all is sent: a whole piece is let through, so that they get it.
            refusal = Refusal(200, body=answer, linger_seconds=service.stall_seconds, linger_bytes=_MAX_PIECE_BYTES)
            await refusal(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(answer)), (b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


def _is_whole_leaves(first: int, size_bytes: int, vector_bytes: int) -> bool:
    """Return whether leaves from a number on are whole; only the vector's last one is shorter."""
    end = first * LEAF_BYTES + size_bytes
    return end <= vector_bytes and (size_bytes % LEAF_BYTES == 0 or end == vector_bytes)
