"""A peer's own part in rounds: it answers when it is called, and contributes to what is announced if all is as it should be.

The leader does so too; what else it does is in leading.py.

Source: docs/spec/federation.md 1.5, 1.7, 5.2; docs/spec/profile.md 6.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pet.errors import (
    FederationError,
    FederationStateError,
    NothingNewError,
    PetError,
    RemoteProtocolError,
)
from pet.federation.peer.calling import ANSWER, Announcement, PeerAnswer, require_rows
from pet.federation.peer.confirmation import Confirmations
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor, Offer
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.peer_steps import AnnouncedRound, PeerSteps
from pet.federation.peer.playing import end_task, play
from pet.federation.peer.round_peer import RoundPeer
from pet.pet1.round_record import RoundRecord
from pet.transports.nats import AsyncNatsTransport

CALL: Final = "call"
GO: Final = "go"
#: What the calls of this version are known by: those of earlier ones have none, and lead to rounds of xaynet's profile.
PROFILE: Final = "pet/1"
DEFAULT_PHASE_SECONDS: Final = 60.0
#: Phases that take messages: Sum, Update, Check, Sum2.
_PHASES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """What this peer answered the last call with."""

    answer: PeerAnswer
    offer: Offer


class Rounds:
    """This peer's part in the rounds of its federation.

    Args:
        context: of this peer.
        link: to the others.
        contributor: its project.
        catch_up: asks the admin for what was missed.
        phase_seconds: how long each phase of a round waits for those who were called.

    Attributes:
        peer: what it keeps of rounds; None in a federation without them.
    """

    def __init__(
        self,
        context: PeerContext,
        link: PeerLink,
        contributor: Contributor[Any],
        catch_up: Callable[[], Awaitable[None]],
        *,
        phase_seconds: float = DEFAULT_PHASE_SECONDS,
    ) -> None:
        self._context: Final = context
        self._link: Final = link
        self._contributor: Final = contributor
        self._catch_up: Final = catch_up
        self.phase_seconds: Final = phase_seconds
        self._confirmations: Final = Confirmations(context)
        self._peer: Final = RoundPeer(context) if context.terms.uses_smpc else None
        #: One call or announcement after the other: each changes what the next one is judged by.
        self._answering: Final = asyncio.Lock()
        self._pending: _Pending | None = None
        self._playing: asyncio.Task[None] | None = None
        self._playing_round = 0
        self._protection = ""

    async def close(self) -> None:
        """Stop taking part."""
        await end_task(self._playing)

    @property
    def peer(self) -> RoundPeer:
        """What it keeps of rounds.

        Raises:
            FederationStateError: the federation has none.
        """
        if self._peer is None:
            raise FederationStateError("round: expected a federation with SMPC, got one without")
        return self._peer

    @property
    def is_playing(self) -> bool:
        """Whether this peer contributes to a round just now."""
        return self._playing is not None and not self._playing.done()

    # ---- the call -----------------------------------------------------------------------------------------------------

    async def answer_call(self, message: PeerMessage) -> dict[str, Any]:
        """Answer the admin's call of a round; one whose number was called before gets the number after which others are.

        Raises:
            FederationStateError: not now; says why.
        """
        context, number = self._context, message.number("round")
        if message.sender != context.admin().uuid:
            raise FederationStateError("round: expected a call of the admin")
        if message.fields.get("profile") != PROFILE:
            context.log_error("Sync refused: the admin's version of pet runs rounds that this one no longer takes part in")
            raise FederationStateError(f"round: expected one of {PROFILE}, got one of an earlier version")
        if not context.record.is_pulsing:
            raise FederationStateError("pulse: this peer does not pulse")
        if message.number("terms") > context.counters.terms_version:
            await self._catch_up()  # or members that joined meanwhile would be strangers in the announcement
        try:
            async with self._answering:
                if number <= self.peer.last_called:
                    return {"after": self.peer.last_called}
                answer = await self._answer(number)
        except NothingNewError:
            raise
        except FederationStateError as error:
            context.log_error(f"Sync refused: {error}")
            raise
        return {"answer": ANSWER.fields(answer), "confirmed": self._confirmations.to_field()}

    async def answer_as_leader(self, number: int) -> PeerAnswer | None:
        """Answer the call of a round that this peer leads; None if it has nothing to contribute."""
        try:
            async with self._answering:
                return await self._answer(number)
        except NothingNewError:
            return None
        except (FederationStateError, RemoteProtocolError) as error:
            self._context.log_error(f"Sync without this peer: {error}")
            return None

    async def _answer(self, number: int) -> PeerAnswer:
        """Offer what there is, and give up the round before: from now on its certificate is not answered (F4)."""
        context, offer = self._context, self._contributor.offer()
        self._pending = None
        await end_task(self._playing)
        called = await asyncio.to_thread(self.peer.call, number, offer.contribution.version)
        answer = PeerAnswer(
            peer=context.uuid, called=called, contribution=offer.contribution, schema=self._contributor.schema_digest
        ).sign(context.terms.federation_id, context.record.keys.signing)
        self._pending = _Pending(answer=answer, offer=offer)
        return answer

    # ---- the round ----------------------------------------------------------------------------------------------------

    async def answer_go(self, message: PeerMessage) -> dict[str, Any]:
        """Begin to contribute to an announced round, if all of it is as it should be.

        Raises:
            RemoteProtocolError, SharingError: it is not; says what.
        """
        context = self._context
        if message.sender != context.admin().uuid:
            raise RemoteProtocolError("bad_announcement", "announcement: expected one of the admin, got another")
        try:
            announcement = Announcement.from_fields(message.fields)
            async with self._answering:
                steps = await self.join(announcement)
                self.play(steps)
        except (FederationError, RemoteProtocolError) as error:
            context.count(receive_errors=1)
            context.log_error(f"Round refused: {error}")
            raise
        return {}

    async def join(self, announcement: Announcement) -> PeerSteps:
        """Join an announced round.

        Raises:
            SharingError: a rule of sharing forbids it.
            RemoteProtocolError: anything else is wrong with it.
            FederationStateError: this peer has more rows than such a round takes.
        """
        context, pending, contributor = self._context, self._pending, self._contributor
        if pending is None or pending.answer not in announcement.answers:
            raise RemoteProtocolError(
                "bad_announcement", "announcement: expected our answer as we signed it, got another or none"
            )
        announced = announcement.verify(context.terms.federation_id, context.members)
        self._confirmations.require_all(announcement.contributions, "announcement")
        require_rows(announcement.contributions, contributor.least_rows)
        count = len(announcement.answers)
        _require_record(announced, contributor, count)
        vector = await asyncio.to_thread(pending.offer.for_round, count)
        steps = await asyncio.to_thread(self.peer.join, announced, vector, self.peer.least_changed)
        if self._pending is not pending:
            raise FederationStateError("round: expected a peer that takes part, got one that was stopped")
        assert steps.record is not None, "it was announced"
        context.counters.round_id = steps.record.number
        context.save()
        return steps

    def play(self, steps: PeerSteps) -> None:
        """Take part, in a task; a peer that was stopped since it joined does not."""
        pending, record = self._pending, steps.record
        if pending is None:
            return
        assert record is not None, "it was announced"
        self._pending = None  # statistics that were called serve once
        if steps.protection != self._protection:
            self._protection = steps.protection
            self._context.log_sync(f"Round {record.number}: {steps.protection}")
        self._playing_round = record.number
        self._playing = asyncio.create_task(self._play(steps, record.number, pending.offer))

    def withdraw(self) -> None:
        """Take no further part: what has not left stays here."""
        self._pending = None
        if self._playing is not None:
            self._playing.cancel()

    def end(self, number: int) -> None:
        """Take no further part in a round that is over: its coordinator is gone, and confirms nothing."""
        if self._playing is not None and self._playing_round <= number:
            self._playing.cancel()

    async def _play(self, steps: PeerSteps, number: int, offer: Offer) -> None:
        transport = AsyncNatsTransport(self._link.connection, self._link.subjects, peer=self._context.uuid)
        before_update, note = partial(self._contributor.agree, offer), partial(self._note, number)
        try:
            # Each phase waits once; a peer that has not finished by then is in a round that is over.
            async with asyncio.timeout(_PHASES * self.phase_seconds):
                await play(steps, transport, before_update, note)
        except (PetError, TimeoutError) as error:
            self._note(number, str(error) or "it did not end in time")

    def _note(self, number: int, text: str) -> None:
        self._context.log_error(f"Round {number}: {text}")


def _require_record(announced: AnnouncedRound, contributor: Contributor[Any], peer_count: int) -> None:
    """Check that a round adds up what such peers contribute.

    Raises:
        RemoteProtocolError: "wrong_record".
        FederationStateError: more peers than a round may have.
    """
    record = RoundRecord.from_bytes(announced.record)
    config, length = contributor.round_config(peer_count), contributor.element_count
    if record.config != config or record.model_length != length:
        raise RemoteProtocolError(
            "wrong_record", f"round record: expected {length} of {config}, got {record.model_length} of {record.config}"
        )


def versions_by_uuid(context: PeerContext, versions: dict[bytes, int]) -> dict[str, int]:
    """Return versions by the uuids of their peers; of those that are no member any longer by their keys."""
    uuids = {peer.signing_key: peer.uuid for peer in context.record.peers}
    return {uuids.get(key, key.hex()): version for key, version in versions.items()}
