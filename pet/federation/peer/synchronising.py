"""When a peer synchronises, and what it does then: its rounds or its exchange, at each tick and on demand, and what it missed.

The admin leads rounds; without SMPC every peer sends what is new. A peer that was away asks for what it missed.

Source: docs/spec/federation.md 1.4, 1.5, 2.11.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from pet.errors import PeerRefusedError, PetError, TooSoonError
from pet.federation.peer.aggregates import AGGREGATE, Aggregates
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contract_changes import ContractChanges
from pet.federation.peer.exchange import WANT, PlainExchange
from pet.federation.peer.leading import Leadership
from pet.federation.peer.link import MINUTE_SECONDS, Handler, PeerLink, RequestLimit, Turns
from pet.federation.peer.membership import MemberRole
from pet.federation.peer.messages import PeerMessage
from pet.federation.peer.playing import end_task
from pet.federation.peer.projects import PeerProjects
from pet.federation.peer.pulse import Pulse
from pet.federation.peer.rounds import Rounds

_logger: Final = logging.getLogger(__name__)

SYNC: Final = "sync"


class Synchronisation:
    """One peer's synchronisation with the others.

    Args:
        context: of this peer.
        link: to the others.
        projects: what is synchronised.
        member: asks the admin.
        contracts: decide when a changed contract counts.
        phase_seconds: how long each phase of a round waits.

    Attributes:
        rounds: its part in them.
        aggregates: what comes of them.
        leadership: what it does beside where it leads them.
        exchange: where there are no rounds.
        pulse: when it is due.
    """

    def __init__(
        self,
        context: PeerContext,
        link: PeerLink,
        projects: PeerProjects,
        member: MemberRole,
        contracts: ContractChanges,
        *,
        phase_seconds: float,
    ) -> None:
        self._context: Final = context
        self._link: Final = link
        self._member: Final = member
        self._contracts: Final = contracts
        contributor = projects.contributor
        self.rounds: Final = Rounds(context, link, contributor, self._catch_up_at_tick, phase_seconds=phase_seconds)
        self.aggregates: Final = Aggregates(context, link, contributor, self.rounds)
        self.leadership: Final = Leadership(context, link, contributor, self.rounds, self.aggregates)
        self.exchange: Final = (
            None if context.terms.uses_smpc else PlainExchange(context, link, projects.local, projects.federated)
        )
        self.pulse: Final = Pulse(context, self._synchronise)
        self._manual_syncs: Final = Turns(context.clock.now_seconds, "sync")
        self._tasks: Final[set[asyncio.Task[Any]]] = set()
        self._waits_since: float | None = None

    async def close(self) -> None:
        """End all of it."""
        await self.pulse.close()
        for task in list(self._tasks):
            await end_task(task)
        await self.rounds.close()

    @property
    def waits_since(self) -> float | None:
        """Since when rounds wait for an admin that does not answer, Unix seconds; None while it does."""
        return None if self.exchange is not None else self._waits_since

    @property
    def _is_admin(self) -> bool:
        return self._context.record.is_admin

    # ---- on demand ----------------------------------------------------------------------------------------------------

    async def request(self) -> None:
        """Ask for a synchronisation now: a round of the admin, or the statistics of each other peer.

        Raises:
            TooSoonError: the last one was less than a minute ago.
            FederationError: the admin refuses it, or does not answer.
        """
        with self._manual_syncs.turn():
            if self.exchange is not None:
                for peer in self._context.others:
                    self._start_task(self.exchange.ask_for_whole(peer))
            elif self._is_admin:
                self.pulse.beat_now()
            else:
                await self._ask_admin_to_sync()

    async def _ask_admin_to_sync(self) -> None:
        try:
            await self._ask_admin(SYNC)
        except PeerRefusedError as error:
            if error.reason != TooSoonError.__name__:
                raise
            raise TooSoonError(str(error), MINUTE_SECONDS) from None

    def request_handlers(self) -> dict[str, Handler]:
        """Return what answers the requests of others: for statistics, a round, or the last aggregate."""
        once_a_minute = RequestLimit(self._context)
        if self.exchange is not None:
            return {WANT: once_a_minute(self.exchange.answer_want)}
        if self._is_admin:
            return {SYNC: once_a_minute(self._answer_sync), AGGREGATE: once_a_minute(self._answer_aggregate)}
        return {}

    async def _answer_sync(self, _message: PeerMessage) -> dict[str, Any]:
        self.pulse.beat_now()
        return {}

    async def _answer_aggregate(self, _message: PeerMessage) -> dict[str, Any]:
        self._start_task(self.aggregates.publish_again())
        return {}

    # ---- at ticks -----------------------------------------------------------------------------------------------------

    async def _synchronise(self, is_manual: bool) -> None:
        """Do what a tick asks for; whatever goes wrong is a line in the log, and the next tick comes."""
        try:
            self._contracts.settle()
            if not self._is_admin:
                await self._catch_up_at_tick()
            if self.exchange is not None:
                await self.exchange.close_gaps()
                await self.exchange.publish()
            elif self._is_admin:
                await self.leadership.lead(is_manual=is_manual)
        except PetError as error:
            self._context.log_error(f"Sync failed: {error}")
        except Exception:
            _logger.exception("a synchronisation failed")
            self._context.log_error("Sync failed for a reason that is in the server's log")

    async def take_event(self, name: str, payload: bytes) -> None:
        """Take what was published for all: an aggregate, or statistics."""
        if not self._context.record.is_pulsing:
            return
        if self.exchange is not None:
            await self.exchange.take_event(name, payload)
        elif name == AGGREGATE and not self._is_admin:
            await self.aggregates.take_event(payload)
            self.rounds.end(self._context.counters.aggregate_round)

    # ---- what was missed ----------------------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Begin to ask for what was missed; the admin misses nothing."""
        if not self._is_admin:
            self._start_task(self._catch_up())

    async def _catch_up(self) -> None:
        with suppress(PetError):
            await self._ask_what_was_missed()
            if self.exchange is not None:
                await asyncio.gather(*(self.exchange.ask_for_whole(peer) for peer in self._context.others))

    async def _catch_up_at_tick(self) -> None:
        try:
            await self._ask_what_was_missed()
        except PetError as error:
            self._context.log_error(f"The admin did not answer: {error}")
            if self._waits_since is None:
                self._waits_since = self._context.clock.now_seconds()

    async def _ask_what_was_missed(self) -> None:
        is_behind = await self._member.say_hello()
        self._waits_since = None
        if is_behind:
            await self._ask_admin(AGGREGATE)

    async def _ask_admin(self, kind: str) -> None:
        admin = self._context.admin()
        await self._link.ask(self._link.subjects.want(admin.uuid), admin, kind, {})

    def _start_task(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
