"""The aggregate of the last round on its way to all peers: the leader publishes it, the others take it.

It is a blob that every member may fetch, announced by an event. Who missed one asks the admin, and gets the last again.

Source: docs/spec/federation.md 1.5, 5.2.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final

from pet.errors import FederationStateError, PetError, RemoteProtocolError
from pet.federation.formats.json_form import JsonForm, Whole
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.transports.nats import BlobReference

_logger: Final = logging.getLogger(__name__)

AGGREGATE: Final = "aggregate"
#: Aggregates of this many rounds lie side by side, so that a slow reader finds the one that was announced to it.
_KEPT_AGGREGATES: Final = 4
#: Room for what surrounds the numbers of an aggregate.
_SPARE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Announced:
    """What is said of an aggregate: its round, and the versions in it by peer."""

    round: Whole
    contributors: dict[str, Whole]


_ANNOUNCED: Final = JsonForm(_Announced)


class Aggregates:
    """This peer's end of the way.

    Args:
        context: of this peer.
        link: to the others.
        contributor: its project.
    """

    def __init__(self, context: PeerContext, link: PeerLink, contributor: Contributor[Any]) -> None:
        self._context: Final = context
        self._link: Final = link
        self._contributor: Final = contributor
        self._publishing: Final = asyncio.Lock()

    async def publish(self, aggregate: bytes) -> None:
        """Keep an aggregate as the last one, and publish it."""
        self._context.store.save_state(AGGREGATE, aggregate)
        await self.publish_again()

    async def publish_again(self) -> None:
        """Publish the last aggregate, freshly signed; nothing happens before there is one."""
        async with self._publishing:
            if (aggregate := self._context.store.load_state(AGGREGATE)) is not None:
                await self._publish(aggregate)

    async def _publish(self, aggregate: bytes) -> None:
        context = self._context
        round_id = context.counters.aggregate_round
        subject = self._link.subjects.model(f"aggregate-{round_id % _KEPT_AGGREGATES}")
        fields = {"round": round_id, "contributors": context.counters.aggregate_contributors}
        data, _ = context.codec.make(
            context.terms, AGGREGATE, subject, context.clock.now_seconds(), fields, attachment=aggregate
        )
        reference = await self._link.broadcasts.publish_blob(subject, data)
        await self._link.broadcasts.publish_event(AGGREGATE, reference.to_bytes())

    async def take_event(self, payload: bytes) -> None:
        """Fetch and take an aggregate that was announced; one that was taken before changes nothing."""
        context = self._context
        try:
            reference = BlobReference.from_bytes(payload)
            data = await self._link.broadcasts.fetch_blob(reference, 8 * self._contributor.vector_length + _SPARE_BYTES)
            message = context.codec.open(
                bytes(data), context.terms, reference.subject, context.clock.now_seconds(), context.find_member
            )
            self._take(message)
        except FederationStateError as error:
            _logger.debug("aggregate not taken: %s", error)
        except PetError as error:
            context.count(receive_errors=1)
            context.log_error(f"Message refused: {error}")

    def _take(self, message: PeerMessage) -> None:
        context = self._context
        if message.kind != AGGREGATE or message.sender != context.admin().uuid:
            raise RemoteProtocolError("bad_aggregate", "aggregate: expected one of the admin, got something else")
        announced = _ANNOUNCED.receive(message.fields, "bad_aggregate", "aggregate")
        round_id, contributors = announced.round, announced.contributors
        if round_id <= context.counters.aggregate_round:
            return
        context.counters.ledger.record_versions(contributors)
        aggregate = self._contributor.decode(message.attachment)
        if self._contributor.take(aggregate, round_id, contributors, message.sender):
            context.log_sync(f"Sync completed successfully, round {round_id} with {len(contributors)} peers")
