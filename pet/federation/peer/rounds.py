"""Rounds as a peer lives them: the leader calls, peers enrol, the leader announces, all contribute, the aggregate spreads.

The admin leads. A round that fails is called again at once, with those who still answer; what was masked for it is thrown away.
Nothing of a peer is lost with a round, as each next one carries its statistics as a whole.

Source: docs/spec/federation.md 1.5, 1.7, 5.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

from pet.errors import (
    FederationError,
    FederationStateError,
    NothingNewError,
    PetError,
    RemoteProtocolError,
    RoundError,
    SharingError,
    TransportError,
)
from pet.federation.formats.json_form import JsonForm, Rules, Whole
from pet.federation.peer.confirmation import Confirmations, confirmed_together, some
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor, Offer
from pet.federation.peer.enrolment import ENROLMENT, Enrolment, Manifest, RoundKeys
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.outcome import OUTCOME, Outcome, OutcomeKind, log_outcome
from pet.federation.peer.round import RoundLeader, RoundPart, RoundResult, end_task
from pet.federation.peer.terms_update import MAX_PEERS
from pet.federation.records import PeerIdentity
from pet.transports.nats import BlobReference, Broadcasts, NatsSettings, Subjects

_logger: Final = logging.getLogger(__name__)

CALL: Final = "call"
GO: Final = "go"
AGGREGATE: Final = "aggregate"
ATTEMPTS: Final = 3
DEFAULT_PHASE_SECONDS: Final = 60.0
#: How long a peer has to answer a call; one that is offline is found out at once.
_CALL_SECONDS: Final = 10.0
#: Aggregates of this many rounds lie side by side, so that a slow reader finds the one that was announced to it.
_KEPT_AGGREGATES: Final = 4
_REPORT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
#: Room for what surrounds the numbers of an aggregate.
_SPARE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """What this peer enrolled with."""

    enrolment: Enrolment
    keys: RoundKeys
    offer: Offer


@dataclass(frozen=True, slots=True)
class _Called:
    """A peer's answer to a call: how it enrols, and whom it has confirmed; None of an earlier version, which does not say."""

    enrolment: Annotated[Enrolment, ENROLMENT]
    # Of a thousand fingerprints it is 35 kB; more are not read.
    confirmed: Annotated[frozenset[str], Rules(max_length=MAX_PEERS)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Announced:
    """What is said of an aggregate: its round, and the versions in it by peer."""

    round: Whole
    contributors: dict[str, Whole]


_CALLED: Final = JsonForm(_Called)
_ANNOUNCED: Final = JsonForm(_Announced)


class Rounds:
    """This peer's part in the rounds of its federation.

    Args:
        context: of this peer.
        link: to the others.
        nats: how to reach the broker; a leader opens a connection per round.
        subjects: of the federation.
        contributor: its project.
        catch_up: asks the admin for what was missed.
        phase_seconds: how long each phase of a round waits for those who were announced.
    """

    def __init__(
        self,
        context: PeerContext,
        link: PeerLink,
        nats: NatsSettings,
        subjects: Subjects,
        contributor: Contributor,
        catch_up: Callable[[], Awaitable[None]],
        *,
        phase_seconds: float = DEFAULT_PHASE_SECONDS,
    ) -> None:
        self._context: Final = context
        self._link: Final = link
        self._nats: Final = nats
        self._subjects: Final = subjects
        self._contributor: Final = contributor
        self._catch_up: Final = catch_up
        self._phase_seconds: Final = phase_seconds
        self._broadcasts: Final = Broadcasts(link.connection, subjects)
        self._confirmations: Final = Confirmations(context)
        self._pending: _Pending | None = None
        self._playing: asyncio.Task[None] | None = None
        self._round_id = context.counters.round_id
        self._publishing: Final = asyncio.Lock()

    async def close(self) -> None:
        """Stop taking part."""
        await end_task(self._playing)

    @property
    def is_playing(self) -> bool:
        """Whether this peer contributes to a round just now."""
        return self._playing is not None and not self._playing.done()

    # ---- leader -------------------------------------------------------------------------------------------------------

    async def lead(self, *, is_manual: bool = False) -> Outcome:
        """Lead one round, called again if it fails, and let everybody know why if there is no new aggregate.

        A peer that let an attempt fail is left out of the next one, so nobody can keep the others from their aggregate; where
        the sharing rules do not allow that, since vectors left already, it is called once more.

        Args:
            is_manual: whether somebody asked for it, and so hears of it if there was nothing new.
        """
        outcome = await self._lead()
        if outcome.kind not in (OutcomeKind.MERGED, OutcomeKind.NOTHING_NEW) or (
            is_manual and outcome.kind is OutcomeKind.NOTHING_NEW
        ):
            log_outcome(self._context, outcome)
            await asyncio.gather(*(self._report(peer, outcome) for peer in self._context.others))
        return outcome

    async def _lead(self) -> Outcome:
        context, without = self._context, frozenset[str]()
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                is_merged = await self._attempt(without)
                return Outcome(OutcomeKind.MERGED if is_merged else OutcomeKind.NOTHING_NEW)
            except SharingError as error:
                if not without or attempt == ATTEMPTS:
                    return Outcome(OutcomeKind.REFUSED, str(error))
                context.log_error(f"Round without the peers that did not answer refused: {error}; all are called again")
                without = frozenset()
            except (RoundError, TransportError, RemoteProtocolError) as error:
                reason = f"round {self._round_id}: {error}"
                context.log_error(f"Round {self._round_id} failed, attempt {attempt} of {ATTEMPTS}: {error}")
                if isinstance(error, RoundError):
                    without |= error.without
                await asyncio.sleep(_RETRY_SECONDS)
        return Outcome(OutcomeKind.FAILED, reason)

    async def _attempt(self, without: frozenset[str]) -> bool:
        context, ledger = self._context, self._context.counters.ledger
        manifest = await self._called(context.counters.round_id + 1, without)
        if not manifest.enrolments or not ledger.has_news(manifest.contributions):
            return False
        ledger.require_aggregate(manifest.contributions, self._contributor.least_rows)
        manifest.verify(context.terms.federation_id, context.members)
        context.counters.round_id = manifest.round_id
        context.save()
        result = await self._run(manifest)
        aggregate = await asyncio.to_thread(self._contributor.from_round, result.means, result.scalar_sum)
        ledger.record(manifest.contributions)
        versions = {peer: contribution.version for peer, contribution in manifest.contributions.items()}
        taken = self._contributor.take(aggregate, manifest.round_id, versions, context.uuid)
        context.counters.aggregate_contributors = versions
        context.save()
        context.store.save_state(AGGREGATE, aggregate)
        await self.publish_aggregate()
        if taken:
            context.log_sync(f"Sync completed successfully, round {manifest.round_id} with {len(versions)} peers")
        return True

    async def _called(self, round_id: int, without: frozenset[str]) -> Manifest:
        """Call a round, under the number that follows the last one that those who answer know."""
        manifest = await self._call_manifest(round_id, without)
        following = manifest.following_round
        if following == round_id or following <= self._context.counters.aggregate_round:
            return manifest
        # The last round that was announced reached nobody of those.
        return await self._call_manifest(following, without)

    async def _call_manifest(self, round_id: int, without: frozenset[str]) -> Manifest:
        self._round_id = round_id
        enrolments = tuple(self._confirmed_together(await self._call(round_id, without)))
        return Manifest(round_id=round_id, leader=self._context.uuid, enrolments=enrolments)

    async def _report(self, peer: PeerIdentity, outcome: Outcome) -> None:
        """Let a peer know why there is no new aggregate; who is away does without."""
        fields = {"kind": outcome.kind.value, "text": outcome.text}
        try:
            await self._link.ask(self._subjects.control(peer.uuid), peer, OUTCOME, fields, timeout_seconds=_REPORT_SECONDS)
        except FederationError as error:
            _logger.debug("peer %s was not informed of an outcome: %s", peer.name, error)

    async def _call(self, round_id: int, without: frozenset[str]) -> list[_Called]:
        """Call everybody but those; returns who enrolled."""
        own = None if self._context.uuid in without else self._enrol_self(round_id)
        called = [peer for peer in self._context.others if peer.uuid not in without]
        answers = await asyncio.gather(*(self._call_one(peer, round_id) for peer in called))
        if own is not None:
            answers = [_Called(own, frozenset(self._confirmations.to_field())), *answers]
        return [one for one in answers if one is not None]

    def _confirmed_together(self, called: list[_Called]) -> list[Enrolment]:
        """Leave out whom not all others have confirmed: they would refuse the round."""
        enrolments = {one.enrolment.peer: one.enrolment for one in called}
        peers = [peer for peer in self._context.record.peers if peer.uuid in enrolments]
        chosen, reasons = confirmed_together(peers, {one.enrolment.peer: one.confirmed for one in called})
        if reasons:
            left_out = [f"{self._context.name_of(uuid)} ({reason})" for uuid, reason in reasons.items()]
            self._context.log_error(f"Sync without {some(left_out)}")
        return [enrolments[peer.uuid] for peer in chosen]

    def _enrol_self(self, round_id: int) -> Enrolment | None:
        try:
            return self._enrol(round_id, is_leader=True)
        except NothingNewError:
            return None
        except FederationStateError as error:
            self._context.log_error(f"Sync without this peer: {error}")
            return None

    async def _call_one(self, peer: PeerIdentity, round_id: int) -> _Called | None:
        context = self._context
        try:
            subject = self._subjects.control(peer.uuid)
            fields = {"round": round_id, "terms": context.counters.terms_version}
            answer = await self._link.ask(subject, peer, CALL, fields, timeout_seconds=_CALL_SECONDS)
            called = _CALLED.receive(answer.fields, "malformed_enrolment", "answer to a call")
            called.enrolment.require_signed(context.terms.federation_id, {peer.uuid: peer})
            if called.enrolment.round_id != round_id:
                raise RemoteProtocolError("bad_enrolment", "enrolment: expected one for this round, got another")
            if called.enrolment.schema != self._contributor.schema_digest:
                context.log_error(f"Sync without {peer.name} (its statistics are of another schema)")
                return None
        except (FederationError, RemoteProtocolError) as error:
            _logger.debug("round %d without %s: %s", round_id, peer.name, error)
            return None
        return called

    async def _run(self, manifest: Manifest) -> RoundResult:
        length = self._contributor.vector_length
        leader = RoundLeader(self._nats, self._subjects, manifest, length, self._phase_seconds)
        async with leader:
            fields = manifest.to_fields() | {"parameters": leader.parameters.hex()}
            try:
                await asyncio.gather(
                    *(self._announce(peer, fields) for peer in self._context.others if peer.uuid in manifest.contributions)
                )
                if self._context.uuid in manifest.contributions:
                    self._play(manifest, leader.parameters)
                return await leader.result()
            except RoundError:
                if leader.has_updates:  # what the peers remember, a leader that does not contribute remembers too
                    self._context.counters.ledger.agree(manifest.contributions)
                    self._context.save()
                raise

    async def _announce(self, peer: PeerIdentity, fields: dict[str, Any]) -> None:
        try:
            await self._link.ask(self._subjects.control(peer.uuid), peer, GO, fields, timeout_seconds=_CALL_SECONDS)
        except FederationError as error:
            raise RoundError(f"peer {peer.name}: expected to take part, got: {error}", {peer.uuid}) from None

    async def publish_aggregate(self) -> None:
        """Publish the last aggregate, freshly signed."""
        async with self._publishing:
            await self._publish_aggregate()

    async def _publish_aggregate(self) -> None:
        context = self._context
        aggregate = context.store.load_state(AGGREGATE)
        if aggregate is None:
            return
        round_id = context.counters.aggregate_round
        subject = self._subjects.model(f"aggregate-{round_id % _KEPT_AGGREGATES}")
        fields = {"round": round_id, "contributors": context.counters.aggregate_contributors}
        data, _ = context.codec.make(
            context.terms, AGGREGATE, subject, context.clock.now_seconds(), fields, attachment=aggregate
        )
        reference = await self._broadcasts.publish_blob(subject, data)
        await self._broadcasts.publish_event(AGGREGATE, reference.to_bytes())

    # ---- everybody ----------------------------------------------------------------------------------------------------

    async def answer_call(self, message: PeerMessage) -> dict[str, Any]:
        """Enrol for the round that the admin calls.

        Raises:
            FederationStateError: not now; says why.
        """
        context = self._context
        round_id = message.number("round")
        if message.sender != context.admin().uuid or round_id <= context.counters.round_id:
            raise FederationStateError(f"round: expected one after {context.counters.round_id} from the admin, got {round_id}")
        if not context.record.is_pulsing:
            raise FederationStateError("pulse: this peer does not pulse")
        if message.number("terms") > context.counters.terms_version:
            await self._catch_up()  # or members that joined meanwhile would be strangers in the manifest
        try:
            enrolment = self._enrol(round_id, is_leader=False)
            return {"enrolment": ENROLMENT.fields(enrolment), "confirmed": self._confirmations.to_field()}
        except NothingNewError:
            raise
        except FederationStateError as error:
            context.log_error(f"Sync refused: {error}")
            raise

    async def answer_go(self, message: PeerMessage) -> dict[str, Any]:
        """Begin to contribute to an announced round, if all of it is as it should be.

        Raises:
            RemoteProtocolError: it is not; says what.
        """
        context, pending = self._context, self._pending
        manifest = Manifest.from_fields(message.fields)
        if pending is None or manifest.leader != message.sender or message.sender != context.admin().uuid:
            raise RemoteProtocolError("bad_manifest", "manifest: expected one of a round that we enrolled for, got another")
        if pending.enrolment not in manifest.enrolments:
            raise RemoteProtocolError("bad_manifest", "manifest: expected our enrolment as we signed it, got another")
        try:
            manifest.verify(context.terms.federation_id, context.members)
            self._confirmations.require_all(manifest.contributions, "manifest")
            context.counters.ledger.require_hidden(manifest.contributions, self._contributor.least_rows)
            context.counters.round_id = manifest.round_id
            context.save()
            self._play(manifest, bytes.fromhex(message.text("parameters")))
        except (RemoteProtocolError, SharingError, ValueError) as error:
            context.count(receive_errors=1)
            context.log_error(f"Round {manifest.round_id} refused: {error}")
            raise RemoteProtocolError("bad_manifest", str(error)) from None
        return {}

    async def take_event(self, payload: bytes) -> None:
        """Fetch and take an aggregate that was announced; one that was taken before changes nothing."""
        context = self._context
        try:
            reference = BlobReference.from_bytes(payload)
            data = await self._broadcasts.fetch_blob(reference, 8 * self._contributor.vector_length + _SPARE_BYTES)
            message = context.codec.open(
                bytes(data), context.terms, reference.subject, context.clock.now_seconds(), context.find_member
            )
            self._take_aggregate(message)
        except FederationStateError as error:
            _logger.debug("aggregate not taken: %s", error)
        except PetError as error:
            context.count(receive_errors=1)
            context.log_error(f"Message refused: {error}")

    def _take_aggregate(self, message: PeerMessage) -> None:
        context = self._context
        if message.kind != AGGREGATE or message.sender != context.admin().uuid:
            raise RemoteProtocolError("bad_aggregate", "aggregate: expected one of the admin, got something else")
        announced = _ANNOUNCED.receive(message.fields, "bad_aggregate", "aggregate")
        round_id, contributors = announced.round, announced.contributors
        if round_id <= context.counters.aggregate_round:
            return
        context.counters.ledger.record_versions(contributors)
        if self._contributor.take(message.attachment, round_id, contributors, message.sender):
            context.log_sync(f"Sync completed successfully, round {round_id} with {len(contributors)} peers")

    def _enrol(self, round_id: int, *, is_leader: bool) -> Enrolment:
        context, offer = self._context, self._contributor.offer()
        keys = RoundKeys.generate(is_leader=is_leader)
        last_round, federation_id = context.counters.round_id, context.terms.federation_id
        schema = self._contributor.schema_digest
        enrolment = keys.enrol(context.record.keys, federation_id, round_id, offer.contribution, last_round, schema=schema)
        self._pending = _Pending(enrolment=enrolment, keys=keys, offer=offer)
        return enrolment

    def _play(self, manifest: Manifest, parameters: bytes) -> None:
        """Take part, in a task; an earlier round is given up."""
        pending = self._pending
        assert pending is not None, "checked by the caller"
        part = RoundPart(
            manifest=manifest,
            parameters=parameters,
            keys=pending.keys,
            peer=self._context.uuid,
            vector=pending.offer.vector,
            scalar=pending.offer.scalar,
            before_update=partial(self._agree, manifest, pending.offer),
        )
        part.check()
        if self._playing is not None:
            self._playing.cancel()
        # Each phase waits once; a peer that has not finished by then is in a round that is over.
        limit = 4 * self._phase_seconds
        self._playing = asyncio.create_task(
            self._logged(asyncio.wait_for(part.run(self._link.connection, self._subjects), limit))
        )
        self._pending = None  # keys and statistics of a round serve once

    def _agree(self, manifest: Manifest, offer: Offer) -> None:
        """Note durably, as the masked vector is about to leave, what this peer contributes to.

        Raises:
            SharingError: it has agreed to another round meanwhile, beside which this one would give a peer away.
        """
        ledger = self._context.counters.ledger
        ledger.require_hidden(manifest.contributions, self._contributor.least_rows)
        ledger.agree(manifest.contributions)
        self._context.save()
        self._contributor.agree(offer)

    def withdraw(self) -> None:
        """Take no further part: what has not left stays here."""
        self._pending = None
        if self._playing is not None:
            self._playing.cancel()

    async def _logged(self, part: Awaitable[None]) -> None:
        try:
            await part
        except* (PetError, TimeoutError) as group:
            errors = "; ".join(str(error) or "it did not end in time" for error in group.exceptions)
            self._context.log_error(f"Round {self._context.counters.round_id}: {errors}")
