"""Answers to a call, the announcement of a round, and the ledger of earlier releases."""

import json
from dataclasses import replace

import pytest
from nats_broker import run
from peer_driver import entries_of, federation, pulse, some_rows, synchronise, until

from pet.errors import FederationError, RemoteProtocolError, SharingError, StateError
from pet.federation.peer.calling import (
    ANSWER,
    Announcement,
    Contribution,
    PeerAnswer,
    require_changed_rows,
    require_rows,
)
from pet.federation.peer.context import COUNTERS
from pet.federation.peer.round_peer import RoundPeer
from pet.federation.peer.rounds import CALL
from pet.federation.records import Confirm, PeerKeys
from pet.pet1.enrolment import split_signed
from pet.pet1.federation import Called, enrol_federation, read_calls

FID, SCHEMA_DIGEST = "a" * 16, bytes(range(32))
PEERS = [PeerKeys.generate() for _ in range(4)]
MEMBERS = {keys.uuid: keys.identity() for keys in PEERS}
CONTRIBUTION = Contribution(version=1, rows=8, changed_rows=8)


def answer(keys, number=7, *, by=None, **changes):
    called = Called(peer=keys.signing.public_key, number=number, version=1).sign(keys.signing)
    fields = {"peer": keys.uuid, "called": called, "contribution": CONTRIBUTION, "schema": SCHEMA_DIGEST} | changes
    return PeerAnswer(**fields).sign(FID, (by or keys).signing)


ENROLMENT = enrol_federation(7, 100, [keys.signing.public_key for keys in PEERS]).sign(PEERS[0].signing)
ANSWERS = [answer(keys) for keys in PEERS]
ANNOUNCEMENT = Announcement(record=bytes(192), enrolment=ENROLMENT, answers=tuple(ANSWERS))


def test_an_announcement_comes_back_and_its_calls_are_those_of_the_enrolment():
    again = Announcement.from_fields(json.loads(json.dumps(ANNOUNCEMENT.to_fields())))
    assert again == ANNOUNCEMENT
    announced = again.verify(FID, MEMBERS)
    calls = read_calls(announced.calls, split_signed(announced.enrolment)[0])
    assert {call.peer for call in calls} == {keys.signing.public_key for keys in PEERS}


#: Made when a test asks for it: keys are drawn, and parameters of tests must be the same in every process.
WRONG_ANSWERS = {
    "another round": lambda: answer(PEERS[3], number=6),
    "no member": lambda: answer(PeerKeys.generate()),
    "another's call": lambda: answer(PEERS[3], called=ANSWERS[2].called),
    "something behind the call": lambda: answer(PEERS[3], called=ANSWERS[3].called + b"x"),
    "another's signature": lambda: answer(PEERS[3], by=PEERS[2]),
    "another version than called": lambda: answer(PEERS[3], contribution=replace(CONTRIBUTION, version=2)),
    "another schema": lambda: answer(PEERS[3], schema=bytes(32)),
    "changed rows": lambda: replace(ANSWERS[3], contribution=replace(CONTRIBUTION, rows=7)),
    "one twice": lambda: ANSWERS[0],
    "more than there is room for": lambda: answer(
        PEERS[3],
        called=ANSWERS[3].called + bytes(4096),
    ),
}


@pytest.mark.parametrize("problem", WRONG_ANSWERS)
def test_an_announcement_with_a_wrong_answer_is_refused(problem):
    with pytest.raises(RemoteProtocolError):
        replace(ANNOUNCEMENT, answers=(*ANSWERS[:3], WRONG_ANSWERS[problem]())).verify(FID, MEMBERS)


def test_an_answer_belongs_to_one_federation():
    with pytest.raises(RemoteProtocolError):
        ANNOUNCEMENT.verify("b" * 16, MEMBERS)


@pytest.mark.parametrize(
    "change", [{"peer": 5}, {"called": 1}, {"contribution": [1, 2]}, {"schema": "AA"}, {"signature": "AA"}, {"signature": ""}]
)
def test_what_is_no_answer_is_refused(change):
    with pytest.raises(RemoteProtocolError):
        ANSWER.receive(ANSWER.fields(ANSWERS[1]) | change, "malformed_answer", "answer")
    for fields in ({}, [], {"record": "", "enrolment": "", "answers": {}}):
        with pytest.raises(RemoteProtocolError):
            Announcement.from_fields(fields)


def contributions(**rows):
    return {peer: Contribution(version=version, rows=count, changed_rows=more) for peer, (version, count, more) in rows.items()}


def test_rows_of_all_peers_together():
    require_rows(contributions(a=(1, 2, 2), b=(1, 3, 3), c=(1, 3, 3)), 8)
    with pytest.raises(SharingError, match="expected at least 3, got 2"):
        require_rows(contributions(a=(1, 8, 8), b=(1, 8, 8)), 0)
    with pytest.raises(SharingError, match="rows of all peers: expected at least 8"):
        require_rows(contributions(a=(1, 2, 2), b=(1, 2, 2), c=(1, 3, 3)), 8)


def test_rows_behind_the_change_since_the_last_aggregate():
    published, rows = {"a": 1, "b": 1, "c": 1}, {"a": 8, "b": 8, "c": 5}
    for now, is_enough in (
        (contributions(a=(2, 8, 4), b=(2, 8, 4), c=(1, 8, 0)), True),
        (contributions(a=(2, 8, 3), b=(2, 8, 4), c=(1, 8, 0)), False),
        (contributions(a=(1, 8, 0), b=(1, 8, 0), d=(1, 3, 0)), True),  # one came, one went
        (contributions(a=(1, 8, 0), b=(1, 8, 0), d=(1, 2, 0)), False),
    ):
        if is_enough:
            require_changed_rows(now, published, rows, 8)
            continue
        with pytest.raises(SharingError, match="changed rows"):
            require_changed_rows(now, published, rows, 8)
        require_changed_rows(now, {}, {}, 8)


def test_peers_and_leaders_of_earlier_versions_are_refused_by_name(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            for number, node in enumerate(started.nodes):
                node.peer.local_project.learn(some_rows(40, number))
            await pulse(started)
            admin, old = started.admin.peer, started.nodes[3]
            subject = admin._link.subjects.control(started.nodes[1].uuid)
            identity = admin._context.members[started.nodes[1].uuid]
            with pytest.raises(FederationError, match="expected one of pet/1, got one of an earlier version"):
                await admin._link.ask(subject, identity, CALL, {"round": 1, "terms": 0})
            assert "admin's version of pet runs rounds" in started.nodes[1].log()

            async def answer_as_before(message):
                return {"enrolment": {}, "confirmed": []}

            await old.peer._link.close()
            await old.peer._link.serve(old.peer._link.subjects.control(old.uuid), {CALL: answer_as_before})
            await synchronise(started, nodes=started.nodes[:3])
            assert "its version of pet runs rounds that this one no longer leads" in started.admin.log()

    run(work())


def test_more_peers_have_to_change_together_once_five_are_confirmed_and_it_stays_so(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 5, confirm=Confirm.PERSON) as started:
            peer = started.nodes[1]
            await until(lambda: len(peer.peer.record.peers) == 5)
            assert peer.peer._syncs.rounds.peer.least_changed == 2, "it has confirmed the admin alone"
            await peer.peer.confirm_list((await peer.peer.members()).code)
            assert peer.peer._syncs.rounds.peer.least_changed == 3
            await started.admin.peer.remove_peer(started.nodes[4].uuid)
            await until(lambda: len(peer.peer.record.peers) == 4)
            again = await started.restart(peer)
            assert again.peer._syncs.rounds.peer.least_changed == 3
            started.least_changed = 2  # its user says so
            again = await started.restart(again)
            assert again.peer._syncs.rounds.peer.least_changed == 2

    run(work())


def test_the_rounds_of_earlier_releases_are_in_the_ledger(broker, tmp_path):
    """Whichever profile a sum was made in, the difference of two sums is the same leak."""

    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            parts = [some_rows(40, number) for number in range(4)]
            for node, part in zip(started.nodes, parts, strict=True):
                node.peer.local_project.learn(part)
            uuids = [node.uuid for node in started.nodes]
            earlier = {
                "aggregates": [dict.fromkeys(uuids[:3], 1) | {"f" * 32: 2}, dict.fromkeys(uuids[:3], 1)],
                "rows": dict.fromkeys(uuids[:3], 8),
                "published": dict.fromkeys(uuids[:3], 1),
                "newest": dict.fromkeys(uuids[:3], 1),
            }
            for node in list(started.nodes):
                counters = json.loads(node.peer._context.counters.to_bytes()) | {"round_id": 9, "ledger": earlier}
                del counters["aggregate_rows"], counters["least_changed"]
                node.storage.save_state(COUNTERS, json.dumps(counters).encode())
                node.storage.save_state("pet1.ledger", None)
                again = await started.restart(node)
                entries = entries_of(again)
                assert [(entry.number, len(entry.versions), entry.published) for entry in entries.values()] == [
                    (8, 4, True),
                    (9, 3, True),
                ]
            await until(lambda: all(node.peer.is_running for node in started.nodes))
            await pulse(started)
            outcome = await started.admin.peer._syncs.leadership.lead()
            assert "peers to change together" in outcome.text, "the fourth one would be the difference"
            started.nodes[1].peer.local_project.learn(some_rows(20, 9))
            await synchronise(started)
            assert started.admin.peer._context.counters.aggregate_round > 9
            assert started.admin.peer.federated_project.row_count == 180

    run(work())


def test_a_damaged_ledger_is_refused(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            context = started.admin.peer._context
            for counters, ledger in ((None, b"{}"), (b'{"ledger": {"aggregates": 5}, "round_id": 1}', None)):
                context.store.save_state(COUNTERS, counters)
                context.store.save_state("pet1.ledger", ledger)
                with pytest.raises(StateError):
                    RoundPeer(context)

    run(work())
