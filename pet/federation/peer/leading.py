"""Rounds as their leader runs them: it calls, announces who answered, runs the coordinator, and takes what comes of it.

The admin leads: it signs each round's enrolment with its identity key. A round that fails is called again at once, under the
next number, with those who still answer; what was masked for it is thrown away. Nothing of a peer is lost with a round, as each
next one carries its statistics as a whole. A leader contributes as everybody does, in rounds.py.

Source: docs/spec/federation.md 1.5, 1.7, 5.2; docs/spec/profile.md 6.5.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pet.errors import FederationError, RemoteProtocolError, RoundError, SharingError, TransportError
from pet.federation.formats.json_form import JsonForm, Rules, Whole
from pet.federation.peer.aggregates import Aggregates, SummedRound
from pet.federation.peer.calling import (
    ANSWER,
    MIN_CONTRIBUTORS,
    Announcement,
    PeerAnswer,
    require_changed_rows,
    require_rows,
)
from pet.federation.peer.confirmation import Confirmations, confirmed_together, some
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor
from pet.federation.peer.link import PeerLink
from pet.federation.peer.outcome import OUTCOME, Outcome, OutcomeKind, log_outcome
from pet.federation.peer.peer_steps import PeerSteps
from pet.federation.peer.playing import LedRound, RoundTotal
from pet.federation.peer.rounds import CALL, GO, PROFILE, Rounds, versions_by_uuid
from pet.federation.peer.terms_update import MAX_PEERS
from pet.federation.records import PeerIdentity
from pet.field_config import FieldConfig
from pet.pet1.federation import Called, enrol_federation
from pet.transports.nats import NatsServer, connect

_logger: Final = logging.getLogger(__name__)

ATTEMPTS: Final = 3
#: How long a peer has to answer a call; one that is offline is found out at once.
_CALL_SECONDS: Final = 10.0
_REPORT_SECONDS: Final = 10.0
#: Before another attempt where the broker failed; peers that did are left out, and need no time.
_RETRY_SECONDS: Final = 1.0
#: How long an enrolment may be used: longer than any round lasts, and by clocks that differ a little.
_ENROLMENT_SECONDS: Final = 3600
#: How far a peer's word for the last number that it was called with may move the next one.
_MAX_SKIPPED: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Answered:
    """What a peer says to a call: its answer, and whom it has confirmed; or the number after which it answers."""

    answer: Annotated[PeerAnswer, ANSWER] | None = None
    # Of a thousand fingerprints it is 35 kB; more are not read.
    confirmed: Annotated[frozenset[str], Rules(max_length=MAX_PEERS)] = frozenset()
    after: Whole = 0


_ANSWERED: Final = JsonForm(_Answered)


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
        self._reports: Final[set[asyncio.Task[None]]] = set()

    async def lead(self, *, is_manual: bool = False) -> Outcome:
        """Lead one round, called again if it fails, and let everybody know why if there is no new aggregate.

        A peer that let an attempt fail is left out of the next one, so nobody can keep the others from their aggregate; where
        the sharing rules do not allow that, since answers left already, it is called once more.

        Args:
            is_manual: whether somebody asked for it, and so hears of it if there was nothing new.
        """
        outcome = await self._lead()
        if outcome.kind is OutcomeKind.REFUSED or (is_manual and outcome.kind is OutcomeKind.NOTHING_NEW):
            self._tell(outcome)
        await asyncio.gather(*self._reports)
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
            except (FederationError, TransportError, RemoteProtocolError) as error:
                reason = f"round {context.counters.round_id}, attempt {attempt} of {ATTEMPTS}: {error}"
                self._tell(Outcome(OutcomeKind.FAILED, reason))
                if isinstance(error, RoundError) and error.without:
                    without |= error.without
                else:
                    await asyncio.sleep(_RETRY_SECONDS)
        return Outcome(OutcomeKind.FAILED, reason)

    async def _attempt(self, without: frozenset[str]) -> bool:
        context, counters = self._context, self._context.counters
        answers = await self._called(without)
        contributions = {answer.peer: answer.contribution for answer in answers}
        versions = {peer: contribution.version for peer, contribution in contributions.items()}
        if versions == counters.aggregate_contributors or not (answers or without):
            return False
        least_rows = self._contributor.least_rows
        require_rows(contributions, least_rows)
        require_changed_rows(contributions, counters.aggregate_contributors, counters.aggregate_rows, least_rows)
        total, announcement = await self._run(answers)
        aggregate = await asyncio.to_thread(self._contributor.from_totals, total.model.to_array(), len(answers))
        announced = announcement.verify(context.terms.federation_id, context.members)
        number, by_key = await asyncio.to_thread(self._rounds.peer.note_result, announced.enrolment, announced.calls)
        counters.aggregate_rows = {peer: contribution.rows for peer, contribution in contributions.items()}
        contributors = versions_by_uuid(context, by_key)
        # Kept before anything says that it is there: a leader that is killed in between publishes it, or runs the round again.
        summed = SummedRound(enrolment=announced.enrolment, calls=announced.calls)
        self._aggregates.keep(self._contributor.encode(aggregate), summed)
        taken = self._contributor.take(aggregate, number, contributors, context.uuid)
        counters.aggregate_contributors = contributors
        context.save()
        await self._aggregates.publish_again()
        if total.wrong:
            context.log_error(f"Round {number}: the mask's share did not fit the others' of {self._names(total.wrong)}")
        if taken:
            context.log_sync(f"Sync completed successfully, round {number} with {len(contributors)} peers")
        return True

    # ---- the call -----------------------------------------------------------------------------------------------------

    async def _called(self, without: frozenset[str]) -> list[PeerAnswer]:
        """Call a round of all but those, once more if peers were called with higher numbers; returns who takes part."""
        counters = self._context.counters
        answered = await self._call(counters.round_id + 1, without)
        after = max((one.after for one in answered), default=0)
        if after >= counters.round_id:
            answered = await self._call(min(after, counters.round_id + _MAX_SKIPPED) + 1, without)
        answers = self._confirmed_together(answered)
        if await self._unaware(answers):
            await self._aggregates.publish_again()
            await asyncio.sleep(_RETRY_SECONDS)
            answers = self._confirmed_together(await self._call(counters.round_id + 1, without))
        return await self._without_unaware(answers)

    async def _unaware(self, answers: list[PeerAnswer]) -> list[PeerAnswer]:
        """Return those of peers that have missed a result: others that were in it would refuse a round with them."""
        calls = [Called.decode_prefix(answer.called)[0] for answer in answers]
        unaware = await asyncio.to_thread(self._rounds.peer.unaware, calls)
        return [answer for answer, call in zip(answers, calls, strict=True) if call.peer in unaware]

    async def _without_unaware(self, answers: list[PeerAnswer]) -> list[PeerAnswer]:
        missed = await self._unaware(answers)
        if missed:
            names = ", ".join(self._context.name_of(answer.peer) for answer in missed)
            self._context.log_error(f"Sync without {names} (a result of an earlier round has not arrived)")
        return [answer for answer in answers if answer not in missed]

    async def _call(self, number: int, without: frozenset[str]) -> list[_Answered]:
        """Call everybody but those; returns what they answered."""
        self._context.counters.round_id = number
        self._context.save()  # no number is called twice, also after a restart
        own = None if self._context.uuid in without else await self._rounds.answer_as_leader(number)
        called = [peer for peer in self._context.others if peer.uuid not in without]
        answers = await asyncio.gather(*(self._call_one(peer, number) for peer in called))
        if own is not None:
            answers = [_Answered(own, frozenset(self._confirmations.to_field())), *answers]
        return [one for one in answers if one is not None]

    async def _call_one(self, peer: PeerIdentity, number: int) -> _Answered | None:
        context = self._context
        try:
            subject = self._link.subjects.control(peer.uuid)
            fields = {"round": number, "terms": context.counters.terms_version, "profile": PROFILE}
            answer = await self._link.ask(subject, peer, CALL, fields, timeout_seconds=_CALL_SECONDS)
            if "enrolment" in answer.fields:
                context.log_error(f"Sync without {peer.name} (its version of pet runs rounds that this one no longer leads)")
                return None
            answered = _ANSWERED.receive(answer.fields, "malformed_answer", "answer to a call")
            if answered.answer is None:
                return answered
            answered.answer.require_valid(context.terms.federation_id, {peer.uuid: peer}, number)
            if answered.answer.schema != self._contributor.schema_digest:
                context.log_error(f"Sync without {peer.name} (its statistics are of another schema)")
                return None
        except (FederationError, RemoteProtocolError) as error:
            _logger.debug("round %d without %s: %s", number, peer.name, error)
            return None
        return answered

    def _confirmed_together(self, answered: list[_Answered]) -> list[PeerAnswer]:
        """Leave out whom not all others have confirmed: they would refuse the round."""
        answers = {one.answer.peer: one for one in answered if one.answer is not None}
        peers = [peer for peer in self._context.record.peers if peer.uuid in answers]
        chosen, reasons = confirmed_together(peers, {uuid: one.confirmed for uuid, one in answers.items()})
        if reasons:
            left_out = [f"{self._context.name_of(uuid)} ({reason})" for uuid, reason in reasons.items()]
            self._context.log_error(f"Sync without {some(left_out)}")
        found = (answers[peer.uuid].answer for peer in chosen)
        return [answer for answer in found if answer is not None]

    # ---- the round ----------------------------------------------------------------------------------------------------

    async def _run(self, answers: list[PeerAnswer]) -> tuple[RoundTotal, Announcement]:
        """Announce a round and run it.

        Raises:
            SharingError: a rule of sharing forbids it, at this peer or at several others.
            RoundError: it failed; names those that did not do their part.
        """
        context, number = self._context, self._context.counters.round_id
        keys = {context.members[answer.peer].signing_key for answer in answers}
        expires = int(context.clock.now_seconds()) + _ENROLMENT_SECONDS
        enrolment = enrol_federation(number, expires, keys).sign(context.record.keys.signing)
        config = self._contributor.round_config(len(answers))
        assert isinstance(config, FieldConfig), "all of pet/1 are"
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(await connect(self._link.connection.settings, context.uuid))
            led = LedRound(
                enrolment,
                config,
                self._contributor.element_count,
                self._rounds.phase_seconds,
                # The leader publishes the result itself, signed and encrypted as the federation wants it.
                lambda service: NatsServer(
                    service, connection, self._link.subjects, creates_streams=False, publishes_model=False
                ),
            )
            await stack.enter_async_context(led)
            announcement = Announcement(record=led.record, enrolment=enrolment, answers=tuple(answers))
            own: PeerSteps | None = None
            if context.uuid in announcement.contributions:
                own = await self._rounds.join(announcement)
            await self._announce(announcement)
            if own is not None:
                self._rounds.play(own)
            try:
                return await led.result(), announcement
            except RoundError as error:
                raise self._named(error) from None

    async def _announce(self, announcement: Announcement) -> None:
        """Announce a round to all others that take part.

        Raises:
            SharingError: a rule of sharing forbids it to too many of the others for a round without them.
            RoundError: a peer does not take part.
        """
        peers = [peer for peer in self._context.others if peer.uuid in announcement.contributions]
        fields = announcement.to_fields()
        refusals = dict(zip(peers, await asyncio.gather(*(self._announce_to(peer, fields) for peer in peers)), strict=True))
        missing = {peer: error for peer, error in refusals.items() if error is not None}
        sharing = [error for error in missing.values() if getattr(error, "reason", "") == SharingError.__name__]
        if sharing and len(announcement.answers) - len(missing) < MIN_CONTRIBUTORS:
            raise SharingError(str(sharing[0]))
        if missing:
            reasons = "; ".join(f"{peer.name}: {error}" for peer, error in missing.items())
            raise RoundError(f"expected all to take part, got {reasons}", (peer.uuid for peer in missing))

    async def _announce_to(self, peer: PeerIdentity, fields: dict[str, Any]) -> FederationError | None:
        try:
            await self._link.ask(self._link.subjects.control(peer.uuid), peer, GO, fields, timeout_seconds=_CALL_SECONDS)
        except FederationError as error:
            return error
        return None

    def _named(self, error: RoundError) -> RoundError:
        """Return an error of a round with names and uuids in place of keys."""
        keys = [bytes.fromhex(key) for key in error.without]
        uuids = {peer.signing_key: peer.uuid for peer in self._context.record.peers}
        names = f" ({self._names(keys)})" if keys else ""
        return RoundError(f"{error}{names}", (uuids[key] for key in keys if key in uuids))

    def _names(self, keys: Any) -> str:
        names: Mapping[bytes, str] = {peer.signing_key: peer.name for peer in self._context.record.peers}
        return some([names.get(key, key.hex()[:8]) for key in keys])

    # ---- reports ------------------------------------------------------------------------------------------------------

    def _tell(self, outcome: Outcome) -> None:
        """Let everybody know, in the background, why there is no new aggregate; what is said stands in the own log at once."""
        log_outcome(self._context, outcome)
        for peer in self._context.others:
            task = asyncio.create_task(self._report(peer, outcome))
            self._reports.add(task)
            task.add_done_callback(self._reports.discard)

    async def _report(self, peer: PeerIdentity, outcome: Outcome) -> None:
        """Let a peer know why there is no new aggregate; who is away does without."""
        fields = {"kind": outcome.kind.value, "text": outcome.text, "round": self._context.counters.round_id}
        try:
            await self._link.ask(self._link.subjects.control(peer.uuid), peer, OUTCOME, fields, timeout_seconds=_REPORT_SECONDS)
        except FederationError as error:
            _logger.debug("peer %s was not informed of an outcome: %s", peer.name, error)
