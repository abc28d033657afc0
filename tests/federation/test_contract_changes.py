"""When a contract that the admin changed counts at a peer: with consent, and at most five times a day."""

from dataclasses import replace

import pytest

from pet.errors import FederationStateError, StateError, TooSoonError
from pet.federation.peer.context import PeerContext
from pet.federation.peer.contract_changes import ContractChanges
from pet.federation.records import Confirm, ContractRecord, LogKind, Mode
from pet.federation.server.request_maps import MapContext, created_record


class Clock:
    now = 1_000_000.0

    def now_seconds(self):
        return self.now


class Peer:
    """The contract of one peer as the admin's messages come in."""

    def __init__(self, storage, mode=Mode.NATIVE, *, accepts=False):
        entries = {"fed_name": "f", "sync_sched": "m1", "nats_hosts": "nats://127.0.0.1:1"}
        record = created_record(entries, MapContext(customer_id="c", project_id="p", mode=mode, allows_compat=True))
        self.clock, self.storage = Clock(), storage
        self.context = PeerContext(replace(record, accepts_contracts=accepts), storage, self.clock, Confirm.ADMIN)
        self.changes = ContractChanges(self.context)

    def is_shown(self, number, *lines):
        contract = self.changes.take(ContractRecord(lines=lines or (f"COUNT(a) > {number}",), counter=number))
        record = self.context.record
        self.context.set_record(replace(record, terms=replace(record.terms, contract=contract)))
        return contract.counter

    @property
    def number(self):
        return self.context.terms.contract.counter


def test_a_change_counts_with_consent_to_that_change(storage):
    peer = Peer(storage)
    assert peer.is_shown(1) == 0
    assert peer.changes.proposed.counter == 1
    assert peer.is_shown(2) == 0
    assert peer.changes.proposed.counter == 2, "the newest"
    with pytest.raises(FederationStateError, match="expected consent to change 2, got it to 1"):
        peer.changes.accept(1)
    assert peer.number == 0
    peer.changes = ContractChanges(peer.context)  # after a restart
    peer.changes.accept(2)
    assert (peer.number, peer.changes.proposed) == (2, None)
    with pytest.raises(FederationStateError, match="waits for consent, got none"):
        peer.changes.accept(2)
    assert peer.is_shown(1) == 2, "older news"
    assert peer.is_shown(3, "COUNT(a) > 2") == 3, "the same lines under another number ask nobody"


@pytest.mark.parametrize(("mode", "accepts"), [(Mode.NATIVE, True), (Mode.COMPAT, False)])
def test_without_consent_five_changes_a_day_count_and_then_the_newest(storage, mode, accepts):
    peer = Peer(storage, mode, accepts=accepts)
    for number in range(1, 6):
        assert peer.is_shown(number) == number
    assert [peer.is_shown(6), peer.is_shown(7)] == [5, 5]
    assert "Contract change 6 waits: 5 a day are taken" in "\n".join(storage.log_lines(LogKind.SYNC))
    peer.changes = ContractChanges(peer.context)
    peer.changes.settle()
    assert peer.number == 5
    peer.clock.now += 86_401
    peer.changes.settle()
    assert peer.number == 7, "the one between never counted"


def test_no_more_than_five_changes_a_day_are_put_to_a_user(storage):
    peer = Peer(storage)
    for number in range(1, 8):
        peer.is_shown(number)
    assert peer.changes.proposed.counter == 5
    peer.clock.now += 86_401
    peer.changes.settle()
    assert peer.changes.proposed.counter == 7


def test_an_admin_changes_a_native_contract_five_times_a_day(storage):
    peer = Peer(storage)
    for _ in range(5):
        peer.changes.require_turn()
        peer.changes.count_turn()
        peer.clock.now += 3600
    with pytest.raises(TooSoonError, match="at most 5 changes a day") as refused:
        peer.changes.require_turn()
    assert refused.value.retry_seconds == 86_400 - 5 * 3600
    compat = Peer(storage, Mode.COMPAT)
    compat.changes.require_turn()  # as its clients expect


def test_a_damaged_state_is_refused(storage):
    storage.save_state("contract_changes", b"[]")
    with pytest.raises(StateError, match="changes of the contract"):
        Peer(storage)
