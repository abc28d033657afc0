"""Attacks of an admin that a single round is enough for: schemas that differ, an accomplice, results of its own, waiting times.

Those over several rounds are in test_member_attacks.py. Each is played against unmodified peers.
"""

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from malicious import MaliciousAdmin
from nats_broker import run
from peer_driver import SCHEMA, federation, pulse, some_rows, synchronise

from pet.federation.peer.enrolment import Manifest
from pet.federation.peer.rounds import Rounds
from pet.federation.statistics.feature import Kind
from pet.federation.statistics.schema import Schema


def learn(started, *counts):
    for number, (node, count) in enumerate(zip(started.nodes, counts, strict=True)):
        node.peer.local_project.learn(some_rows(count, number))


def test_peers_that_were_shown_different_schemas_do_not_come_together(broker, tmp_path):
    """No invitation names the schema. With another scale the others' numbers are next to nothing, and the sum is one peer's."""
    wide = Schema(tuple(replace(one, scale=1e12) if one.kind is Kind.CONTINUOUS else one for one in SCHEMA.features))
    assert (wide.layout, wide.least_rows) == (SCHEMA.layout, SCHEMA.least_rows), "neither length nor minimum show it"

    async def work():
        async with federation(broker.url, tmp_path, 3, schema=wide.to_json()) as started:
            admin = MaliciousAdmin(started)
            with admin.answering_joins_with(schema=SCHEMA.to_json()):
                victim = await started.join()
            assert victim.peer.record.terms.schema == SCHEMA.to_json(), "its user sees this one"
            learn(started, 40, 40, 40, 40)
            places = wide.layout.sums
            others = sum(
                np.abs(node.peer.local_project.snapshot().values[places][wide.continuous]) for node in started.nodes[:3]
            )
            assert (others < 1e-6).all()
            await pulse(started)
            enrolments = tuple([await admin.call(node, 1) for node in started.nodes[1:]])
            manifest = Manifest(round_id=1, leader=started.admin.uuid, enrolments=enrolments)
            for node in started.nodes[1:]:
                assert "expected statistics of one schema, got several" in await admin.announce(manifest, node)
                assert not node.peer.is_in_round
            # An honest leader goes on without the one that differs, and says so.
            await synchronise(started, nodes=started.nodes[:3])
            assert (
                f"Sync without {victim.peer.record.keys.identity('peer3').name} (its statistics are of another schema)"
                in started.admin.log()
            )

    run(work())


@dataclass
class Work:
    """What a peer calls while it answers: names of pet's functions, in their order."""

    calls: list[str] = field(default_factory=list)

    @contextmanager
    def recorded(self):
        def note(frame, event, _):
            if event == "call" and "/pet/" in frame.f_code.co_filename:
                self.calls.append(frame.f_code.co_qualname)

        sys.setprofile(note)
        try:
            yield
        finally:
            sys.setprofile(None)


def test_what_a_refusal_waits_for_does_not_depend_on_rows(broker, tmp_path, monkeypatch):
    """Time is an answer too: with none, one or seven rows a peer does the same work, in the same order, before it answers."""
    answered = []

    def recording(name):
        answer = getattr(Rounds, name)

        async def answer_recorded(rounds, message):
            work = Work()
            answered.append((rounds._context.uuid, name, work.calls))
            with work.recorded():
                return await answer(rounds, message)

        monkeypatch.setattr(Rounds, name, answer_recorded)

    recording("answer_call")
    recording("answer_go")

    def work_of(peer, name):
        return [calls for uuid, what, calls in answered if (uuid, what) == (peer.uuid, name)]

    async def work():
        async with federation(broker.url, tmp_path, 5, confirm=None) as started:
            await pulse(started)
            admin, poor, shared = MaliciousAdmin(started), started.nodes[1:4], started.nodes[4]
            for peer, count in zip(poor, (0, 1, 7), strict=True):
                if count:
                    peer.peer.local_project.learn(some_rows(count, count))
                assert "expected some to share" in await admin.refusal_of(peer, 1)
            refusals = [work_of(peer, "answer_call")[0] for peer in poor]
            assert "RowGuard.offered" in refusals[0]
            assert refusals[0] == refusals[1] == refusals[2]
            # One whose rows others have seen: nothing new, one row held back, six held back; and nobody there is confirmed.
            shared.peer.local_project.learn(some_rows(20, 9))
            shared.peer.local_project.note_shared(shared.peer.local_project.offered())
            for number, more in enumerate((0, 0, 1, 6), 1):
                if more:
                    shared.peer.local_project.learn(some_rows(more, 30 + more))
                enrolment = await admin.call(shared, number)
                manifest = Manifest(round_id=number, leader=started.admin.uuid, enrolments=(enrolment,) * 3)
                assert "refused" not in await admin.announce(manifest, shared)
            for name in ("answer_call", "answer_go"):
                _, first, *rest = work_of(shared, name)  # with the very first one what a schema keeps is computed
                assert rest == [first, first]

    run(work())
