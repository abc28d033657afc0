"""A peer's own part in rounds: it enrols when it is called, and contributes to what is announced if all is as it should be.

The leader does so too; what else it does is in leading.py.

Source: docs/spec/federation.md 1.5, 1.7, 5.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pet.errors import FederationStateError, NothingNewError, PetError, RemoteProtocolError, SharingError
from pet.federation.peer.confirmation import Confirmations
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contributions import Contributor, Offer
from pet.federation.peer.enrolment import ENROLMENT, Manifest, PeerEnrolment, RoundKeys
from pet.federation.peer.link import PeerLink
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.round import RoundPart, end_task

CALL: Final = "call"
GO: Final = "go"
DEFAULT_PHASE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """What this peer enrolled with."""

    enrolment: PeerEnrolment
    keys: RoundKeys
    offer: Offer


class Rounds:
    """This peer's part in the rounds of its federation.

    Args:
        context: of this peer.
        link: to the others.
        contributor: its project.
        catch_up: asks the admin for what was missed.
        phase_seconds: how long each phase of a round waits for those who were announced.
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
        self._pending: _Pending | None = None
        self._playing: asyncio.Task[None] | None = None
        self._playing_round = 0

    async def close(self) -> None:
        """Stop taking part."""
        await end_task(self._playing)

    @property
    def is_playing(self) -> bool:
        """Whether this peer contributes to a round just now."""
        return self._playing is not None and not self._playing.done()

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

    def enrol_as_leader(self, round_id: int) -> PeerEnrolment | None:
        """Enrol for a round that this peer leads; None if it has nothing to contribute."""
        try:
            return self._enrol(round_id, is_leader=True)
        except NothingNewError:
            return None
        except FederationStateError as error:
            self._context.log_error(f"Sync without this peer: {error}")
            return None

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
            self.play(manifest, bytes.fromhex(message.text("parameters")))
        except (RemoteProtocolError, SharingError, ValueError) as error:
            context.count(receive_errors=1)
            context.log_error(f"Round {manifest.round_id} refused: {error}")
            raise RemoteProtocolError("bad_manifest", str(error)) from None
        return {}

    def _enrol(self, round_id: int, *, is_leader: bool) -> PeerEnrolment:
        context, offer = self._context, self._contributor.offer()
        keys = RoundKeys.generate(is_leader=is_leader)
        last_round, federation_id = context.counters.round_id, context.terms.federation_id
        schema = self._contributor.schema_digest
        enrolment = keys.enrol(context.record.keys, federation_id, round_id, offer.contribution, last_round, schema=schema)
        self._pending = _Pending(enrolment=enrolment, keys=keys, offer=offer)
        return enrolment

    def play(self, manifest: Manifest, parameters: bytes) -> None:
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
        limit = 4 * self.phase_seconds
        self._playing_round = manifest.round_id
        self._playing = asyncio.create_task(
            self._logged(asyncio.wait_for(part.run(self._link.connection, self._link.subjects), limit))
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

    def end(self, round_id: int) -> None:
        """Take no further part in a round whose aggregate is there: its coordinator is gone, and confirms nothing."""
        if self._playing is not None and self._playing_round <= round_id:
            self._playing.cancel()

    async def _logged(self, part: Awaitable[None]) -> None:
        try:
            await part
        except* (PetError, TimeoutError) as group:
            errors = "; ".join(str(error) or "it did not end in time" for error in group.exceptions)
            self._context.log_error(f"Round {self._context.counters.round_id}: {errors}")
