"""Rounds as their leader runs them: it calls, announces who enrolled, runs the coordinator, and takes what comes of it.

The admin leads. A round that fails is called again at once, with those who still answer; what was masked for it is thrown away.
Nothing of a peer is lost with a round, as each next one carries its statistics as a whole. A leader contributes as everybody
does, in rounds.py.

Source: docs/spec/federation.md 1.5, 1.7, 5.2.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pet.errors import FederationError, RemoteProtocolError, RoundError, SharingError, TransportError
from pet.federation.formats.json_form import JsonForm, Rules
from pet.federation.peer.aggregates import Aggregates
from pet.federation.peer.confirmation import Confirmations, confirmed_together, some
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor
from pet.federation.peer.enrolment import ENROLMENT, Manifest, PeerEnrolment
from pet.federation.peer.link import PeerLink
from pet.federation.peer.outcome import OUTCOME, Outcome, OutcomeKind, log_outcome
from pet.federation.peer.round import RoundLeader, RoundResult
from pet.federation.peer.rounds import CALL, GO, Rounds
from pet.federation.peer.terms_update import MAX_PEERS
from pet.federation.records import PeerIdentity

_logger: Final = logging.getLogger(__name__)

ATTEMPTS: Final = 3
#: How long a peer has to answer a call; one that is offline is found out at once.
_CALL_SECONDS: Final = 10.0
_REPORT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Called:
    """A peer's answer to a call: how it enrols, and whom it has confirmed; None of an earlier version, which does not say."""

    enrolment: Annotated[PeerEnrolment, ENROLMENT]
    # Of a thousand fingerprints it is 35 kB; more are not read.
    confirmed: Annotated[frozenset[str], Rules(max_length=MAX_PEERS)] | None = None


_CALLED: Final = JsonForm(_Called)


class Leadership:
    """What the peer that leads does for each round.

    Args:
        context: of this peer.
        link: to the others.
        contributor: its project.
        rounds: its own part in them.
        aggregates: where a result goes.
    """

    def __init__(
        self, context: PeerContext, link: PeerLink, contributor: Contributor[Any], rounds: Rounds, aggregates: Aggregates
    ) -> None:
        self._context: Final = context
        self._link: Final = link
        self._contributor: Final = contributor
        self._rounds: Final = rounds
        self._aggregates: Final = aggregates
        self._confirmations: Final = Confirmations(context)
        self._round_id = context.counters.round_id

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
        await self._aggregates.publish(self._contributor.encode(aggregate))
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
            await self._link.ask(self._link.subjects.control(peer.uuid), peer, OUTCOME, fields, timeout_seconds=_REPORT_SECONDS)
        except FederationError as error:
            _logger.debug("peer %s was not informed of an outcome: %s", peer.name, error)

    async def _call(self, round_id: int, without: frozenset[str]) -> list[_Called]:
        """Call everybody but those; returns who enrolled."""
        own = None if self._context.uuid in without else self._rounds.enrol_as_leader(round_id)
        called = [peer for peer in self._context.others if peer.uuid not in without]
        answers = await asyncio.gather(*(self._call_one(peer, round_id) for peer in called))
        if own is not None:
            answers = [_Called(own, frozenset(self._confirmations.to_field())), *answers]
        return [one for one in answers if one is not None]

    def _confirmed_together(self, called: list[_Called]) -> list[PeerEnrolment]:
        """Leave out whom not all others have confirmed: they would refuse the round."""
        enrolments = {one.enrolment.peer: one.enrolment for one in called}
        peers = [peer for peer in self._context.record.peers if peer.uuid in enrolments]
        chosen, reasons = confirmed_together(peers, {one.enrolment.peer: one.confirmed for one in called})
        if reasons:
            left_out = [f"{self._context.name_of(uuid)} ({reason})" for uuid, reason in reasons.items()]
            self._context.log_error(f"Sync without {some(left_out)}")
        return [enrolments[peer.uuid] for peer in chosen]

    async def _call_one(self, peer: PeerIdentity, round_id: int) -> _Called | None:
        context = self._context
        try:
            subject = self._link.subjects.control(peer.uuid)
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
        leader = RoundLeader(self._link.connection.settings, self._link.subjects, manifest, length, self._rounds.phase_seconds)
        async with leader:
            fields = manifest.to_fields() | {"parameters": leader.parameters.hex()}
            try:
                await asyncio.gather(
                    *(self._announce(peer, fields) for peer in self._context.others if peer.uuid in manifest.contributions)
                )
                if self._context.uuid in manifest.contributions:
                    self._rounds.play(manifest, leader.parameters)
                return await leader.result()
            except RoundError:
                if leader.has_updates:  # what the peers remember, a leader that does not contribute remembers too
                    self._context.counters.ledger.agree(manifest.contributions)
                    self._context.save()
                raise

    async def _announce(self, peer: PeerIdentity, fields: dict[str, Any]) -> None:
        try:
            await self._link.ask(self._link.subjects.control(peer.uuid), peer, GO, fields, timeout_seconds=_CALL_SECONDS)
        except FederationError as error:
            raise RoundError(f"peer {peer.name}: expected to take part, got: {error}", {peer.uuid}) from None
