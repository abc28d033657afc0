"""Attacks of an admin that a single round is enough for: schemas that differ, an accomplice, results of its own, waiting times.

Those over several rounds are in test_member_attacks.py. Each is played against unmodified peers.
"""

from dataclasses import replace

import numpy as np
from malicious import MaliciousAdmin
from nats_broker import run
from peer_driver import SCHEMA, federation, pulse, some_rows, synchronise

from pet.federation.peer.enrolment import Manifest
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
