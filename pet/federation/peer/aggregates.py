"""The aggregate of the last round on its way to all peers: the leader publishes it, the others take it.

It is a blob that every member may fetch, announced by an event. Who missed one asks the admin, and gets the last again. With it
comes which rounds the ones before it were of: a peer that has answered one of these and did not see its result would wait for
the same set else, or for new statistics of its own.

Source: docs/spec/federation.md 1.5, 5.2.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pet.errors import FederationStateError, PetError, RemoteProtocolError, StateError
from pet.federation.formats.encoding import canonical_json, parse_json_object
from pet.federation.formats.json_form import Base64UrlText, JsonForm
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.rounds import Rounds, versions_by_uuid
from pet.pet1.enrolment import split_signed
from pet.transports.nats import BlobReference

_logger: Final = logging.getLogger(__name__)

AGGREGATE: Final = "aggregate"
#: Aggregates of this many rounds lie side by side, so that a slow reader finds the one that was announced to it.
_KEPT_AGGREGATES: Final = 4
#: What the last aggregate was of, beside it.
_ROUND: Final = "aggregate_round"
#: Room for what surrounds the numbers of an aggregate: the answers of a thousand peers to its call.
_SPARE_BYTES: Final = 2 << 20
#: How many rounds of earlier aggregates come with one, and how large they may be together.
_MAX_EARLIER: Final = 8
_MAX_EARLIER_BYTES: Final = 1 << 19
#: An element becomes at most two float64.
_ELEMENT_BYTES: Final = 16
_Bytes = Annotated[bytes, Base64UrlText()]


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedRound:
    """Which round an aggregate comes from, as those who were in it signed it.

    Attributes:
        enrolment: of its peers, with the admin's signature behind it.
        calls: their answers, one behind the other.
    """

    enrolment: _Bytes = field(repr=False)
    calls: _Bytes = field(repr=False)


_SUMMED: Final = JsonForm(SummedRound)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Announced(SummedRound):
    """What an aggregate is announced with: its round, and those of the ones before it, the newest first."""

    earlier: tuple[Annotated[SummedRound, _SUMMED], ...] = ()


_ANNOUNCED: Final = JsonForm(_Announced)


class Aggregates:
    """This peer's end of the way.

    Args:
        context: of this peer.
        link: to the others.
        contributor: its project.
        rounds: its own part in rounds.
    """

    def __init__(self, context: PeerContext, link: PeerLink, contributor: Contributor[Any], rounds: Rounds) -> None:
        self._context: Final = context
        self._link: Final = link
        self._contributor: Final = contributor
        self._rounds: Final = rounds
        self._publishing: Final = asyncio.Lock()

    def keep(self, aggregate: bytes, summed: SummedRound) -> None:
        """Keep an aggregate as the last one, for `publish_again`."""
        store, earlier, size = self._context.store, list[SummedRound](), 0
        if (saved := store.load_state(_ROUND)) is not None:
            with StateError.reading("round of the last aggregate"):
                last = _ANNOUNCED.read(parse_json_object(saved))
            for one in (SummedRound(enrolment=last.enrolment, calls=last.calls), *last.earlier)[:_MAX_EARLIER]:
                size += len(one.enrolment) + len(one.calls)
                if size <= _MAX_EARLIER_BYTES:
                    earlier.append(one)
        announced = _Announced(enrolment=summed.enrolment, calls=summed.calls, earlier=tuple(earlier))
        store.save_state(_ROUND, canonical_json(_ANNOUNCED.fields(announced)).encode())
        store.save_state(AGGREGATE, aggregate)

    async def publish_again(self) -> None:
        """Publish the last aggregate, freshly signed; nothing happens before there is one.

        One of a release without rounds of pet/1 stays here: nobody could note what it is the sum of.
        """
        store = self._context.store
        async with self._publishing:
            aggregate, summed = store.load_state(AGGREGATE), store.load_state(_ROUND)
            if aggregate is not None and summed is not None:
                await self._publish(aggregate, parse_json_object(summed) or {})

    async def _publish(self, aggregate: bytes, fields: dict[str, Any]) -> None:
        context = self._context
        subject = self._link.subjects.model(f"aggregate-{context.counters.aggregate_round % _KEPT_AGGREGATES}")
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
            limit = _ELEMENT_BYTES * self._contributor.element_count + _SPARE_BYTES
            data = await self._link.broadcasts.fetch_blob(reference, limit)
            message = context.codec.open(
                bytes(data), context.terms, reference.subject, context.clock.now_seconds(), context.find_member
            )
            await self._take(message)
        except FederationStateError as error:
            _logger.debug("aggregate not taken: %s", error)
        except PetError as error:
            context.count(receive_errors=1)
            context.log_error(f"Message refused: {error}")

    async def _take(self, message: PeerMessage) -> None:
        context = self._context
        if message.kind != AGGREGATE or message.sender != context.admin().uuid:
            raise RemoteProtocolError("bad_aggregate", "aggregate: expected one of the admin, got something else")
        summed = _ANNOUNCED.receive(message.fields, "bad_aggregate", "aggregate")
        if split_signed(summed.enrolment)[0].version <= context.counters.aggregate_round:
            return
        for earlier in summed.earlier[:_MAX_EARLIER]:
            try:
                await asyncio.to_thread(self._rounds.peer.note_missed, earlier.enrolment, earlier.calls)
            except RemoteProtocolError as error:  # also of an earlier format; not to know it only makes others refuse this peer
                _logger.debug("earlier result not noted: %s", error)
        round_id, versions = await asyncio.to_thread(self._rounds.peer.note_result, summed.enrolment, summed.calls)
        contributors = versions_by_uuid(context, versions)
        aggregate = self._contributor.decode(message.attachment, len(contributors))
        if self._contributor.take(aggregate, round_id, contributors, message.sender):
            context.log_sync(f"Sync completed successfully, round {round_id} with {len(contributors)} peers")
