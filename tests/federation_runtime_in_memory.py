"""A runtime whose peers find each other in one process: everything of the interface except the broker.

The REST interface is held against it; that real peers do the same over a real broker is shown in the tests of the runtime.
"""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np

from pet.errors import FederationStateError, FederationUnavailableError, FederationValueError, NotAdministratorError
from pet.federation.formats.learning_records import Change, Taken
from pet.federation.formats.member_list import find_member
from pet.federation.formats.tables import read_columns
from pet.federation.peer.confirmation import Confirmations
from pet.federation.peer.local_project import LocalProject
from pet.federation.records import Confirm, ContractRecord, LogKind, ProjectKind, ScheduleRecord, SyncStatistics
from pet.federation.runtime import Regression
from pet.federation.statistics.figures import Figure, Figures
from pet.federation.statistics.schema import Schema


class InMemoryProject:
    """Keeps the rows themselves: the obvious thing to compare with."""

    def __init__(self, storage=None, rows=None):
        saved = storage.load_state("rows") if storage else None
        self.rows = rows if rows is not None else pickle.loads(saved) if saved else []
        self._storage = storage

    @property
    def features(self):
        return ("x", "y")

    @property
    def row_count(self):
        return len(self.rows)

    held_back = None

    @property
    def pending(self):
        return []

    @property
    def table_count(self):
        return 0

    def cancel(self, request):
        return False

    def take(self, source, piece):
        names, values = read_columns(source)
        if set(names) != set(self.features):
            raise FederationValueError(f"rows: expected columns {self.features}, got {names}")
        new = [tuple(row) for row in values[:, [names.index(name) for name in self.features]].tolist()]
        if piece.change is Change.LEARN:
            self._save(self.rows + new)
        else:
            self._save([row for row in self.rows if row not in new])
        return Taken(rows=len(new), is_done=piece.is_last)

    def _save(self, rows):
        self.rows = rows
        self._storage.save_state("rows", pickle.dumps(rows))

    def _column(self, name):
        if name not in self.features:
            raise FederationValueError(f"feature: expected one of {self.features}, got {name}")
        return np.array([row[self.features.index(name)] for row in self.rows])

    def univariate(self, feature):
        column = self._column(feature)
        mean = float(column.mean()) if len(column) else float("nan")
        return Figures(
            {"count": float(len(column)), "mean": mean, "skewness": float("nan")},
            bounds={"mean": 0.5},
            reasons={"skewness": "not computed here"},
        )

    def covariance(self, first, second):
        return Figure(np.cov(self._column(first), self._column(second), bias=True)[0, 1], bound=0.25, peers_left_out=2)

    def correlation(self, first, second):
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.corrcoef(self._column(first), self._column(second))[0, 1]
        return Figure(found, reason="a feature does not vary" if np.isnan(found) else None)

    def linear_regression(self, target, features):
        design = np.column_stack([np.ones(self.row_count), *(self._column(name) for name in features)])
        intercept, *slopes = np.linalg.lstsq(design, self._column(target), rcond=None)[0].tolist()
        return Regression(
            target=target,
            intercept=intercept,
            coefficients=dict(zip(features, slopes, strict=True)),
            row_count=self.row_count,
        )


class InMemoryPeer:
    def __init__(self, runtime, record, storage):
        self._runtime, self.record, self._storage = runtime, record, storage
        self.statistics = SyncStatistics()
        self.is_closed = False
        self.shared_rows = 0
        self._model = None

    def save(self, **changes):
        self.record = dataclasses.replace(self.record, **changes)
        self._storage.save_record(self.record)

    def _others(self):
        return [
            peer
            for peer in self._runtime.peers
            if peer.record.terms.federation_id == self.record.terms.federation_id and not peer.is_closed
        ]

    def _require_admin(self):
        if not self.record.is_admin:
            raise NotAdministratorError

    @property
    def local_project(self):
        if self.record.terms.kind is ProjectKind.MODEL:
            raise FederationStateError("project: expected statistics, this one carries a model")
        return InMemoryProject(self._storage)

    @property
    def federated_project(self):
        saved = self._storage.load_state("merged")
        if saved is None:
            raise FederationStateError("federated project: nothing was merged yet")
        return InMemoryProject(rows=pickle.loads(saved))

    async def start_pulse(self):
        self.save(is_pulsing=True)

    async def stop_pulse(self):
        self.save(is_pulsing=False)

    async def new_schedule(self, text):
        self._require_admin()
        self._change_terms(schedule=ScheduleRecord(text=text, counter=self.record.terms.schedule.counter + 1))

    def _change_terms(self, **changes):
        for peer in self._others():
            peer.save(terms=dataclasses.replace(peer.record.terms, **changes))

    async def request_full_sync(self):
        pulsing = [peer for peer in self._others() if peer.record.is_pulsing]
        merged = pickle.dumps([row for peer in pulsing for row in peer.local_project.rows])
        for peer in pulsing:
            peer._storage.save_state("merged", merged)
            peer._storage.append_log(LogKind.SYNC, f"Sync completed with {len(pulsing)} peers")
            peer.statistics = dataclasses.replace(peer.statistics, send_count=peer.statistics.send_count + 1)

    async def set_contract(self, lines):
        await self.validate_contract(lines)
        self._change_terms(contract=ContractRecord(lines=tuple(lines), counter=1))

    proposed_contract = None

    async def accept_contract(self, number):
        raise FederationStateError("contract: expected a change that waits for consent, got none")

    async def set_least_rows(self, rows):
        self.save(least_rows=rows)

    async def validate_contract(self, lines):
        for number, line in enumerate(lines, 1):
            if not line.startswith(("#", "COUNT")):
                raise FederationValueError(f"line {number}: expected the name of a function")

    async def allow_explore(self, allowed):
        self.save(allows_explore=allowed)

    async def explore(self, peer_uuid, function, arguments):
        peer = next(peer for peer in self._others() if peer.record.keys.uuid == peer_uuid)
        if not peer.record.allows_explore:
            raise FederationStateError("explore: that peer does not allow it")
        return getattr(peer.local_project, function)(*arguments.values()).entities(function)

    async def leave(self):
        if self.record.is_admin:
            raise FederationStateError("leave: expected another peer than the admin, who can only delete")

    async def remove_peer(self, member):
        gone = find_member(self.record.peers, member)
        self._change_terms(key_epoch=self.record.terms.key_epoch + 1)
        self.save(peers=tuple(peer for peer in self.record.peers if peer != gone))

    async def members(self):
        return await Confirmations(self).members()

    async def confirm_member(self, member):
        Confirmations(self).confirm(member)

    async def confirm_list(self, code):
        await Confirmations(self).confirm_list(code)

    # What the real list of members needs of a context.

    confirm = Confirm.PERSON

    broker_state = "connected"

    waits_for_admin = None

    @property
    def terms(self):
        return self.record.terms

    @property
    def uuid(self):
        return self.record.keys.uuid

    def is_confirmed(self, member):
        return member.fingerprint in self.record.confirmed or member.uuid == self.uuid

    def set_record(self, record):
        self.save(confirmed=record.confirmed)

    def log_sync(self, text):
        self._storage.append_log(LogKind.SYNC, text)

    async def delete(self):
        self._require_admin()

    async def set_model(self, model, weight):
        self._model = model * weight

    def global_model(self):
        if self._model is None:
            raise FederationStateError("model: there is none yet")
        return self._model, 1

    async def close(self):
        self.is_closed = True


class InMemoryRuntime:
    def __init__(self):
        self.peers = []
        self.is_reachable = True

    def _add(self, record, store):
        peer = InMemoryPeer(self, record, store)
        self.peers.append(peer)
        return peer

    async def create(self, record, store):
        if not self.is_reachable:
            raise FederationUnavailableError("no broker")
        return self._add(record, store)

    async def join(self, record, token, store):
        if not self.is_reachable:
            raise FederationUnavailableError("no broker")
        for admin in self.peers:
            terms = admin.record.terms
            if admin.record.is_admin and not admin.is_closed and terms.federation_id == record.terms.federation_id:
                joined = next(peer for peer in record.peers if peer.uuid == record.keys.uuid)
                after = dataclasses.replace(admin.record, peers=(*admin.record.peers, joined))
                admin._storage.redeem_token(token.reveal(), joined, after)
                admin.record = after
                record = dataclasses.replace(record, terms=terms, peers=after.peers)
                store.save_record(record)
                return self._add(record, store)
        raise FederationUnavailableError("the admin does not answer")

    async def require_accepted(self, record):
        if not self.is_reachable:
            raise FederationStateError("no broker")

    async def restore(self, record, store):
        return self._add(record, store)


class StatisticsPeer(InMemoryPeer):
    """A peer in memory whose local project is the real one."""

    def __init__(self, runtime, record, storage):
        super().__init__(runtime, record, storage)
        schema = None if record.terms.schema is None else Schema.from_json(record.terms.schema)
        self._project = LocalProject(storage, schema, self._propose if record.is_admin else None)

    def _propose(self, source):
        names, values = read_columns(source)
        schema = Schema.propose(names, values)
        self._change_terms(schema=schema.to_json())
        return schema

    @property
    def local_project(self):
        return self._project


class StatisticsRuntime(InMemoryRuntime):
    def _add(self, record, store):
        peer = StatisticsPeer(self, record, store)
        self.peers.append(peer)
        return peer
