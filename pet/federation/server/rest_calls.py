"""What each path of the REST interface does: parameters in, service and peer called, entities out.

No signature is checked and no envelope is written here; a `Call` comes from somebody who proved who they are.

Source: docs/spec/federation.md 2.4 - 2.17.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from pet.errors import FederationValueError, NotAdministratorError
from pet.federation.formats.encoding import canonical_json, parse_json_object
from pet.federation.formats.learning_records import Change
from pet.federation.records import LogKind
from pet.federation.runtime import ProjectView
from pet.federation.server.answers import Answer, refuse
from pet.federation.server.call import Call
from pet.federation.server.federation_info import (
    contract_state,
    federation_info,
    member_list,
    project_info,
    row_counts,
    sync_statistics,
)
from pet.federation.server.parameters import flag, invalid_key, required
from pet.federation.server.request_maps import check_schedule
from pet.federation.server.row_requests import piece_of, table_of
from pet.federation.server.service import FederationService, RunningPeer
from pet.federation.statistics.figures import Figure, Figures


class RestCalls:
    """One method per path."""

    def __init__(self, service: FederationService) -> None:
        self._service = service

    async def create(self, call: Call) -> Answer:
        """Begin a federation (2.4)."""
        project_id, persist = call.new_project_id(), flag(call.query, "persist", default=True)
        await self._service.create(
            call.customer_id, project_id, call.entries(), mode=call.caller.mode, persist=persist, choices=call.own_choices()
        )
        return Answer(HTTPStatus.CREATED, f"Project Created with id:{project_id}")

    async def create_join(self, call: Call) -> Answer:
        """Join a federation (2.7)."""
        project_id, persist = call.new_project_id(), flag(call.query, "persist", default=True)
        await self._service.join(
            call.customer_id,
            project_id,
            call.entries(),
            mode=call.caller.mode,
            persist=persist,
            source=call.source,
            choices=call.own_choices(),
        )
        return Answer(HTTPStatus.CREATED, "Fed Project created with join")

    async def get_invitation(self, call: Call) -> Answer:
        """Make an invitation; under both names that readers look for (2.6)."""
        text = await self._service.invite(call.customer_id, call.project_id, call.entries())
        return Answer(values={"fedInfoEncrypted": text, "encryptedGroupInfo": text})

    async def info(self, call: Call) -> Answer:
        """Show the federation, under the user's key (2.5)."""
        info = canonical_json(federation_info(self._peer(call).peer))
        return Answer(values={"fedInfoEncrypted": call.caller.encrypt_answer(info.encode())})

    async def project_info(self, call: Call) -> Answer:
        """Show the flags of the project (2.5)."""
        running = self._peer(call)
        return Answer(values={"smlInfo": project_info(running.peer, running.storage)})

    async def start_pulse(self, call: Call) -> Answer:
        """Begin to pulse (2.8)."""
        await self._peer(call).peer.start_pulse()
        return Answer()

    async def stop_pulse(self, call: Call) -> Answer:
        """End pulsing (2.9)."""
        await self._peer(call).peer.stop_pulse()
        return Answer()

    async def new_schedule(self, call: Call) -> Answer:
        """Change the schedule for all (2.10)."""
        peer = self._admin(call).peer
        await peer.new_schedule(check_schedule(required(call.query, "newSchedule"), "newSchedule"))
        return Answer()

    async def full_sync_request(self, call: Call) -> Answer:
        """Synchronise outside the schedule (2.11)."""
        await self._peer(call).peer.request_full_sync()
        return Answer()

    async def add_contract(self, call: Call) -> Answer:
        """Replace the contract of all (2.12); an invalid one is refused, and the entity says why."""
        peer = self._admin(call).peer
        try:
            await peer.set_contract(call.string_list())
        except FederationValueError as error:
            raise refuse(HTTPStatus.BAD_REQUEST, str(error), status=str(error)) from None
        return Answer()

    async def contract_validate(self, call: Call) -> Answer:
        """Say what is wrong with a contract, if anything (2.13)."""
        try:
            await self._peer(call).peer.validate_contract(call.string_list())
        except FederationValueError as error:
            return Answer(values={"status": str(error)})
        return Answer()

    async def contract(self, call: Call) -> Answer:
        """Show the contract that counts at this peer, and a change that waits for its user's consent (1.6)."""
        return Answer(values=contract_state(self._peer(call).peer))

    async def accept_contract(self, call: Call) -> Answer:
        """Let a change of the contract count at this peer."""
        await self._peer(call).peer.accept_contract(call.number("number"))
        return Answer()

    async def set_least_rows(self, call: Call) -> Answer:
        """Set this peer's own limit of the rule of minimum rows (1.7)."""
        await self._peer(call).peer.set_least_rows(call.number("rows"))
        return Answer()

    async def set_explore_peers(self, call: Call) -> Answer:
        """Allow or forbid the others to explore (2.14)."""
        await self._peer(call).peer.allow_explore(flag(call.query, "allowExplore"))
        return Answer()

    async def error_log(self, call: Call) -> Answer:
        """Return the error log (2.15)."""
        return Answer(values={"stringList": call.strings(self._peer(call).storage.log_lines(LogKind.ERROR))})

    async def sync_log(self, call: Call) -> Answer:
        """Return the sync log (2.15)."""
        return Answer(values={"stringList": call.strings(self._peer(call).storage.log_lines(LogKind.SYNC))})

    async def clear_error_log(self, call: Call) -> Answer:
        """Empty the error log (2.15b)."""
        self._peer(call).storage.clear_log(LogKind.ERROR)
        return Answer()

    async def sync_stats(self, call: Call) -> Answer:
        """Return the counts (2.16)."""
        running = self._peer(call)
        return Answer(values={"fedSyncStats": sync_statistics(running.peer, running.storage)})

    async def aws_info(self, _: Call) -> Answer:
        """Refuse: every federation here is carried by NATS (2.17)."""
        raise refuse(HTTPStatus.BAD_REQUEST, "awsinfo: expected a federation over AWS, this server carries them over NATS")

    async def projects(self, call: Call) -> Answer:
        """List the user's projects."""
        return Answer(values={"stringList": call.strings(self._service.projects(call.customer_id))})

    async def join_key(self, _: Call) -> Answer:
        """Return the key that an invitation without a password is made for."""
        return Answer(values={"joinKey": self._service.server_key()})

    async def leave(self, call: Call) -> Answer:
        """Leave the federation; the project is gone afterwards."""
        await self._service.leave(call.customer_id, call.project_id)
        return Answer()

    async def delete(self, call: Call) -> Answer:
        """End the federation; the project is gone afterwards."""
        await self._service.delete(call.customer_id, call.project_id)
        return Answer()

    async def remove_peer(self, call: Call) -> Answer:
        """Remove another peer."""
        await self._admin(call).peer.remove_peer(required(call.query, "peer"))
        return Answer()

    async def credentials(self, call: Call) -> Answer:
        """Use another credential of the broker from now on; body: an encrypted map of `nats_...` keys."""
        await self._service.set_credentials(call.customer_id, call.project_id, call.entries())
        return Answer()

    async def members(self, call: Call) -> Answer:
        """Show all members with their fingerprints, and the code of the list (10)."""
        return Answer(values={"members": member_list(await self._peer(call).peer.members())})

    async def confirm(self, call: Call) -> Answer:
        """Confirm one member, or all by the code of the list; returns the list as it is then (10)."""
        peer, member, code = self._peer(call).peer, call.query.get("member"), call.query.get("list")
        if (member is None) == (code is None):
            raise invalid_key("member", "expected one of member and list")
        if member is not None:
            await peer.confirm_member(member)
        elif code is not None:
            await peer.confirm_list(code)
        return Answer(values={"members": member_list(await peer.members())})

    async def learn(self, call: Call) -> Answer:
        """Learn a table, or a piece of one (9.2, 9.3)."""
        return await self._take(call, Change.LEARN)

    async def forget(self, call: Call) -> Answer:
        """Forget a table that was learned, or a piece of one."""
        return await self._take(call, Change.FORGET)

    async def rows(self, call: Call) -> Answer:
        """Show how many rows were learned and shared, and which tables are unfinished."""
        peer = self._peer(call).peer
        return Answer(values={"rows": await asyncio.to_thread(row_counts, peer)})

    async def cancel_rows(self, call: Call) -> Answer:
        """Drop a table of which only some pieces came."""
        return Answer(values={"cancelled": self._peer(call).peer.local_project.cancel(required(call.query, "request"))})

    async def _take(self, call: Call, change: Change) -> Answer:
        project, piece = self._peer(call).peer.local_project, piece_of(call.query, change)
        taken = await asyncio.to_thread(lambda: project.take(table_of(call.headers, call.query, call.body), piece))
        return Answer(values={"rows": taken.rows, "done": taken.is_done})

    async def univariate(self, call: Call) -> Answer:
        """Describe one feature."""
        feature = required(call.query, "feature")
        return await self._explored(call, "univariate", {"feature": feature}, lambda project: project.univariate(feature))

    async def covariance(self, call: Call) -> Answer:
        """Return the covariance of two features."""
        return await self._of_a_pair(call, "covariance", lambda project, first, second: project.covariance(first, second))

    async def correlation(self, call: Call) -> Answer:
        """Return the linear correlation of two features."""
        return await self._of_a_pair(call, "correlation", lambda project, first, second: project.correlation(first, second))

    async def regression(self, call: Call) -> Answer:
        """Fit one feature on others: JSON `{"target": name, "features": [names]}`; without features, on all others."""
        wanted = parse_json_object(call.body) or {}
        target, features = wanted.get("target"), wanted.get("features")
        is_list = isinstance(features, list) and all(isinstance(name, str) for name in features)
        if not isinstance(target, str) or not (is_list or features is None):
            raise FederationValueError("Bad Request Body")
        project = self._project(call)
        found = await asyncio.to_thread(project.linear_regression, target, features)
        entity = {
            "target": found.target,
            "rows": found.row_count,
            "coefficients": _numbers(found.coefficients),
            "standardErrors": _numbers(found.standard_errors),
            "bounds": _numbers(found.bounds),
            "reasons": dict(found.reasons),
        }
        scalars = {
            "intercept": found.intercept,
            "interceptStandardError": found.intercept_standard_error,
            "rSquared": found.r_squared,
        }
        return Answer(values={"linearRegression": entity | _numbers(scalars)})

    async def get_model(self, call: Call) -> Answer:
        """Return the averaged model as JSON numbers, which keep every bit of a double."""
        model, rounds = self._peer(call).peer.global_model()
        return Answer(values={"model": {"rounds": rounds, "weights": model.tolist()}})

    async def set_model(self, call: Call) -> Answer:
        """Take this peer's model vector, and its weight."""
        model, weight = call.model()
        await self._peer(call).peer.set_model(model, weight)
        return Answer()

    def _peer(self, call: Call) -> RunningPeer:
        return self._service.find(call.customer_id, call.project_id)

    def _admin(self, call: Call) -> RunningPeer:
        running = self._peer(call)
        if not running.peer.record.is_admin:
            raise NotAdministratorError
        return running

    def _project(self, call: Call) -> ProjectView:
        peer = self._peer(call).peer
        return peer.local_project if flag(call.query, "useLocal", default=False) else peer.federated_project

    async def _of_a_pair(self, call: Call, function: str, compute: Callable[[ProjectView, str, str], Figure]) -> Answer:
        first, second = required(call.query, "first"), required(call.query, "second")
        arguments = {"first": first, "second": second}
        return await self._explored(call, function, arguments, lambda project: compute(project, first, second))

    async def _explored(
        self,
        call: Call,
        function: str,
        arguments: Mapping[str, str],
        compute: Callable[[ProjectView], Figure | Figures],
    ) -> Answer:
        """Compute on a project of this peer, or have another peer compute (1.10)."""
        other = call.query.get("fed_peer_uuid_for_explore")
        if other:
            return Answer(values=dict(await self._peer(call).peer.explore(other, function, arguments)))
        found = await asyncio.to_thread(compute, self._project(call))
        return Answer(values=found.entities(function))


Handler = Callable[[Call], Awaitable[Answer]]


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what JSON has no number for by null."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in found.items()}
