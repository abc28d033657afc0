"""A running member of a federation over NATS: implements `pet.federation.runtime.FederationPeer`.

This file is the frame: it listens, and hands everything to the parts that know it (broker_use.py, synchronising.py,
membership.py, projects.py). All of it runs in one event loop.

Source: docs/spec/federation.md 1.2, 1.4, 1.5, 1.10, 2.8 - 2.16.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import (
    FederationStateError,
    FederationUnavailableError,
    FederationValueError,
    NotAdministratorError,
    TransportError,
)
from pet.federation.formats.member_list import find_member
from pet.federation.formats.schedule import Schedule
from pet.federation.peer.broker_use import BrokerUse
from pet.federation.peer.confirmation import Confirmations
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contract_changes import ContractChanges
from pet.federation.peer.exploration import EXPLORE, Exploration
from pet.federation.peer.link import Handler, PeerLink
from pet.federation.peer.local_project import LocalProject
from pet.federation.peer.membership import HELLO, LEAVE, REMOVED, TERMS, AdminRole, MemberRole
from pet.federation.peer.outcome import OUTCOME, OutcomeLog
from pet.federation.peer.project import FederatedProject
from pet.federation.peer.projects import PeerProjects
from pet.federation.peer.rounds import CALL, DEFAULT_PHASE_SECONDS, GO
from pet.federation.peer.synchronising import Synchronisation
from pet.federation.records import ContractRecord, FederationRecord, MemberList, ProjectKind, ScheduleRecord, SyncStatistics
from pet.federation.statistics.contract import Contract
from pet.federation.statistics.schema import Schema
from pet.transports.nats import NatsConnection


class NatsPeer:
    """One running member.

    Args:
        context: record, store, clock.
        connection: to the broker; closed with the peer.
        phase_seconds: how long each phase of a round waits.
    """

    def __init__(
        self, context: PeerContext, connection: NatsConnection, *, phase_seconds: float = DEFAULT_PHASE_SECONDS
    ) -> None:
        self._context: Final = context
        self._connection: Final = connection
        self._loop: Final = asyncio.get_running_loop()
        self._link: Final = PeerLink(context, connection)
        self._admin: Final = AdminRole(context, self._link) if context.record.is_admin else None
        self._contracts: Final = ContractChanges(context)
        self._member: Final = MemberRole(context, self._link, self._contracts, self._terms_changed)
        self._projects: Final = PeerProjects(context, self._publish_schema_from_any_thread)
        self._syncs: Final = Synchronisation(
            context, self._link, self._projects, self._member, self._contracts, phase_seconds=phase_seconds
        )
        self._confirmations: Final = Confirmations(context)
        self._exploration: Final = Exploration(context, self._link, self._projects)
        self._is_started = False
        self._broker: Final = BrokerUse(context, connection, self._use_connection)

    # ---- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make the streams (the admin), listen, and go on pulsing if the record says so.

        Raises:
            TransportError: the broker cannot be used; nothing is left there.
        """
        await self._begin()
        self._broker.follow()

    def start_in_background(self) -> None:
        """Connect as soon as the broker can be reached and lets us, and start then."""
        self._broker.follow()
        self._connection.open_in_background()

    async def _begin(self) -> None:
        await self._listen()
        self._syncs.pulse.start()
        self._is_started = True
        self._syncs.catch_up()

    async def _listen(self) -> None:
        """Serve all subjects, or none."""
        context = self._context
        async with AsyncExitStack() as undo:
            if self._admin is not None:
                self._admin.require_room(context.record)
                undo.push_async_callback(self._link.broadcasts.delete_streams, await self._link.broadcasts.create_streams())
                undo.push_async_callback(self._connection.unsubscribe, await self._admin.serve())
            undo.push_async_callback(self._link.close)
            control: dict[str, Handler] = {CALL: self._syncs.rounds.answer_call, GO: self._syncs.rounds.answer_go}
            control |= {TERMS: self._member.take_terms, REMOVED: self._member.take_removal}
            control[OUTCOME] = OutcomeLog(context, self._syncs.rounds.end).take
            await self._link.serve(self._link.subjects.control(context.uuid), control)
            await self._link.serve(self._link.subjects.want(context.uuid), self._request_handlers())
            await self._link.serve(self._link.subjects.explore(context.uuid), {EXPLORE: self._exploration.answer})
            await self._link.broadcasts.watch_events(self._syncs.take_event)
            undo.pop_all()

    async def _use_connection(self) -> None:
        if not self._is_started:
            await self._begin()
        elif self._admin is not None:
            await self._link.broadcasts.create_streams()
        else:
            self._syncs.catch_up()

    @property
    def broker_state(self) -> str:
        """Whether the broker can be used: "connected", or why not."""
        trouble = self._broker.trouble
        if trouble is None and self.is_running:
            return "connected"
        return f"not connected, trying again: {trouble or 'no answer yet'}"

    @property
    def waits_for_admin(self) -> str | None:
        """That rounds wait for the admin, for people; None while it answers, or where everybody sends its own statistics."""
        since = self._syncs.waits_since
        if since is None:
            return None
        time = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M UTC")
        return f"the federation waits for its admin, {self._context.admin().name}, which has not answered since {time}"

    async def close(self) -> None:
        """Disconnect; what is stored stays."""
        await self._syncs.close()
        if self._admin is not None:
            await self._admin.close()
        await self._link.close()
        await self._connection.aclose()

    @property
    def is_running(self) -> bool:
        """Whether it listens: it was started, and its connection stands."""
        return self._is_started and self._connection.is_connected

    @property
    def is_in_round(self) -> bool:
        """Whether it contributes to a round just now."""
        return self._syncs.rounds.is_playing

    def _request_handlers(self) -> dict[str, Handler]:
        members = {} if self._admin is None else {HELLO: self._admin.answer_hello, LEAVE: self._admin.answer_leave}
        return members | self._syncs.request_handlers()

    # ---- FederationPeer -----------------------------------------------------------------------------------------------

    @property
    def record(self) -> FederationRecord:
        """What this peer knows now."""
        return self._context.record

    @property
    def statistics(self) -> SyncStatistics:
        """Counts since the federation was created or joined."""
        return self._context.counters.statistics

    @property
    def local_project(self) -> LocalProject:
        """This peer's rows."""
        return self._projects.local

    @property
    def shared_rows(self) -> int:
        """How many rows the statistics had that the others hold of this peer."""
        return self._context.counters.shared_rows

    @property
    def federated_project(self) -> FederatedProject:
        """The merge over the peers."""
        project = self._projects.federated
        project.snapshot()
        return project

    async def start_pulse(self) -> None:
        """Begin to pulse; ticks that passed before do not count."""
        context = self._context
        if context.uuid not in context.members:
            raise FederationStateError("this peer is no longer a member of the federation")
        if context.record.is_pulsing:
            return
        context.counters.done_until_seconds = context.clock.now_seconds()
        context.save()
        context.set_record(replace(context.record, is_pulsing=True))
        self._syncs.pulse.wake()
        self._syncs.catch_up()

    async def stop_pulse(self) -> None:
        """End pulsing, and withdraw: what has not left this peer yet stays here, and it is in no later aggregate."""
        self._syncs.rounds.withdraw()
        if self.record.is_pulsing:
            self._context.set_record(replace(self.record, is_pulsing=False))
            self._syncs.pulse.wake()

    async def new_schedule(self, text: str) -> None:
        """Change the schedule for all peers."""
        admin, terms = self._require_admin(), self._context.terms
        schedule = ScheduleRecord(text=Schedule.parse(text).text, counter=terms.schedule.counter + 1)
        admin.change(replace(self.record, terms=replace(terms, schedule=schedule)))
        await self._terms_changed()

    async def request_full_sync(self) -> None:
        """Ask for a synchronisation now: a round of the admin, or the statistics of each other peer."""
        if not self.record.is_pulsing:
            raise FederationStateError("sync: expected a peer that pulses, got one that does not")
        await self._syncs.request()

    async def set_contract(self, lines: Sequence[str]) -> None:
        """Replace the contract of all peers."""
        admin = self._require_admin()
        await self.validate_contract(lines)
        self._contracts.require_turn()
        terms = self._context.terms
        contract = ContractRecord(lines=tuple(lines), counter=terms.contract.counter + 1)
        admin.change(replace(self.record, terms=replace(terms, contract=contract)))
        self._contracts.count_turn()

    @property
    def proposed_contract(self) -> ContractRecord | None:
        """A change of the contract that waits for the consent of this peer's user."""
        return self._contracts.proposed

    async def accept_contract(self, number: int) -> None:
        """Let the proposed change of the contract count at this peer."""
        self._contracts.accept(number)

    async def set_least_rows(self, rows: int) -> None:
        """Set this peer's own limit of the rule of minimum rows; 0 for attributes + 5."""
        self._context.set_record(replace(self.record, least_rows=rows))

    async def validate_contract(self, lines: Sequence[str]) -> None:
        """Check names, types and syntax against the schema, not the data."""
        contract, schema = Contract.parse(lines), self._context.terms.schema
        if self._context.terms.kind is ProjectKind.MODEL:
            raise FederationValueError("contract: expected a project with statistics, got a model")
        if schema is not None:
            contract.validate(Schema.from_json(schema))

    async def allow_explore(self, allowed: bool) -> None:
        """Let the other peers explore this one's local project, or not."""
        self._context.set_record(replace(self.record, allows_explore=allowed))

    async def explore(self, peer_uuid: str, function: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Have a function computed on another peer's local project; returns the entities of an answer."""
        return await self._exploration.ask(peer_uuid, function, arguments)

    async def leave(self) -> None:
        """Tell the admin, and end."""
        if self._admin is not None:
            raise FederationStateError("leave: the admin cannot leave; delete the federation instead")
        await self._member.leave()
        self._context.set_record(replace(self.record, peers=(), is_pulsing=False))
        self._syncs.pulse.wake()

    async def remove_peer(self, member: str) -> None:
        """Remove another peer, by name, fingerprint or uuid, and give the rest a new federation key."""
        admin = self._require_admin()
        await admin.remove(find_member(self.record.peers, member).uuid)
        await self._terms_changed()

    async def members(self) -> MemberList:
        """Return all members with the code of the list."""
        return await self._confirmations.members()

    async def confirm_member(self, member: str) -> None:
        """Confirm one member, by name or fingerprint."""
        self._confirmations.confirm(member)

    async def confirm_list(self, code: str) -> None:
        """Confirm all members, if their list has this code; a change that is on its way to this peer is waited for."""
        try:
            await self._confirmations.confirm_list(code)
        except FederationStateError:
            if self._admin is not None or not await self._member.ask_for_members():
                raise
            await self._confirmations.confirm_list(code)

    async def delete(self) -> None:
        """End the federation for everybody and remove its streams."""
        admin = self._require_admin()
        await self.stop_pulse()
        await admin.dissolve()
        try:
            await self._link.broadcasts.delete_streams()
        except TransportError as error:
            raise FederationUnavailableError(
                f"delete: expected a broker to remove the streams from, got none: {error}"
            ) from None

    async def set_model(self, model: NDArray[np.float64], weight: float) -> None:
        """Give this peer's model vector for the next round."""
        await asyncio.to_thread(self._projects.model.set_model, model, weight)

    def global_model(self) -> tuple[NDArray[np.float64], int]:
        """Return the last averaged model and the number of rounds so far."""
        average = self._projects.model.average
        if average is None:
            raise FederationStateError("global model: expected a finished round, got none yet")
        return average.model, average.rounds

    # ---- inside -------------------------------------------------------------------------------------------------------

    def _require_admin(self) -> AdminRole:
        if self._admin is None:
            raise NotAdministratorError
        return self._admin

    async def _terms_changed(self) -> None:
        """Take over what new terms mean here."""
        self._projects.follow_terms()
        if self._syncs.exchange is not None:
            self._syncs.exchange.drop_former_members()
        self._syncs.pulse.wake()

    def _publish_schema_from_any_thread(self, schema: Schema) -> None:
        self._loop.call_soon_threadsafe(self._publish_schema, schema)

    def _publish_schema(self, schema: Schema) -> None:
        terms = self._context.terms
        if terms.schema is None:
            try:
                self._require_admin().change(replace(self.record, terms=replace(terms, schema=schema.to_json())))
            except FederationValueError as error:
                self._context.log_error(str(error))
