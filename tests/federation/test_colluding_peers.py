"""What colluding peers have of the others, the admin among them, and what leaders gain who show several rounds at a time."""

import asyncio
import shutil
from dataclasses import dataclass, field

import numpy as np
from malicious import MaliciousAdmin
from nats_broker import run
from peer_driver import SCHEMA, FixedClock, entries_of, federation, pulse, some_rows, synchronise, until

import pet
from pet.federation.server.store import FederationStore
from pet.federation.statistics.statistics import Statistics
from pet.pet1.share_header import derive_mask_seed
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import UpdateParticipant


def learn(started, *counts):
    for number, (node, count) in enumerate(zip(started.nodes, counts, strict=True)):
        node.peer.local_project.learn(some_rows(count, number))


def key_of(node):
    return node.peer.record.keys.signing.public_key


@dataclass
class Seen:
    """What peers send and open in a round, by who they are.

    Attributes:
        vectors: masked, as the leader gets them.
        numbers: what each masked; nobody else sees it.
        opened: the seeds of parts in the boxes of each member, by sender.
        contexts: of each sender's header.
        config: of the round.
    """

    vectors: dict = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)
    opened: dict = field(default_factory=dict)
    contexts: dict = field(default_factory=dict)
    config: object = None

    def record(self, monkeypatch):
        mask, answer = UpdateParticipant.mask, MemberMachine.answer

        def noted_mask(participant, committee, values, *arguments, **options):
            self.config = participant._joined.record.config
            update = mask(participant, committee, values, *arguments, **options)
            key = participant._key.public_key
            self.vectors[key], self.numbers[key], self.contexts[key] = bytes(update.vector), values, update.header.context
            return update

        def noted_answer(member, certificate):
            self.opened[member._key.public_key] = dict(member._opened.seeds)
            return answer(member, certificate)

        monkeypatch.setattr(UpdateParticipant, "mask", noted_mask)
        monkeypatch.setattr(MemberMachine, "answer", noted_answer)

    def parts_of(self, sender, members):
        """Return the seeds that some members have of one sender's mask, by part."""
        return {part: seed for member in members for part, seed in self.opened[member][sender].items()}

    def without_parts(self, sender, parts):
        """Return what is left of a masked vector without the parts of its mask of which somebody has the seeds."""
        seeds = [derive_mask_seed(seed, self.contexts[sender], part) for part, seed in parts.items()]
        mask = pet.sum_masks(seeds, self.config, len(self.numbers[sender])).to_vector()
        pairs = zip(np.frombuffer(self.vectors[sender], np.uint64), np.frombuffer(mask, np.uint64), strict=True)
        return [(int(masked) - int(part)) % self.config.order for masked, part in pairs][:-1]


def test_all_but_two_peers_that_collude_lack_one_part_of_each_mask_and_know_the_sum(broker, tmp_path, monkeypatch):
    """They have all vectors, and the seeds of all parts but one, which the two others alone have."""
    seen = Seen()

    async def work():
        async with federation(broker.url, tmp_path, 5, phase_seconds=20) as started:
            learn(started, 50, 60, 70, 80, 90)
            await pulse(started)
            seen.record(monkeypatch)
            await synchronise(started)
            await until(lambda: not any(node.peer.is_in_round for node in started.nodes))
            total = started.admin.peer.federated_project.snapshot()
            colluding, honest = [started.admin, *started.nodes[3:]], started.nodes[1:3]
            known = sum((node.peer.local_project.snapshot() for node in colluding), start=Statistics(SCHEMA))
            both = sum((node.peer.local_project.snapshot() for node in honest), start=Statistics(SCHEMA))
            np.testing.assert_allclose((total - known).values, both.values, atol=1e-6)
            return [[key_of(node) for node in nodes] for nodes in (colluding, honest)]

    colluding, honest = run(work())
    for sender in honest:
        theirs, whole = seen.parts_of(sender, colluding), seen.parts_of(sender, [*colluding, *honest])
        (missing,) = whole.keys() - theirs.keys()
        assert all(missing in seen.opened[member][sender] for member in honest)
        numbers = [int(number) for number in seen.numbers[sender]]
        assert seen.without_parts(sender, whole) == numbers, "that part is all that hides them"
        left = seen.without_parts(sender, theirs)
        assert not any(number in (other, -other % seen.config.order) for number, other in zip(left, numbers, strict=True))
    masked = [seen.without_parts(sender, seen.parts_of(sender, colluding)) for sender in honest]
    assert masked[0] != masked[1]


def test_one_call_is_answered_for_one_set(broker, tmp_path):
    """A leader that announces several rounds under one number gets each peer into one of them, also over a restart."""

    async def work():
        async with federation(broker.url, tmp_path, 5, phase_seconds=20) as started:
            learn(started, 50, 60, 70, 80, 90)
            await pulse(started)
            admin, (_, a, b, c, d) = MaliciousAdmin(started), started.nodes
            answers = {node.uuid: await admin.call(node, 7) for node in (a, b, c, d)}
            sets = [
                admin.announcement([answers[node.uuid] for node in nodes], 7) for nodes in ((a, b, c), (a, b, d), (b, c, d))
            ]
            assert await admin.announce(sets[0], a) == ""
            for other in (sets[1], sets[0], admin.announcement(sets[0].answers, 7, seed=bytes(31) + b"1")):
                assert "expected our answer as we signed it, got another or none" in await admin.announce(other, a)
            assert "expected our answer" in await admin.announce(sets[2], a), "in a set without it"
            again = await started.restart(b)
            await until(lambda: again.peer.is_running)
            for shown in sets:
                assert "expected our answer" in await admin.announce(shown, again)
            for node in (a, again, c, d):
                assert await admin.call(node, 7) is None
            assert [entries_of(node) for node in started.nodes] == [{}] * 5, "nobody has sent an update"

    run(work())


def test_two_leaders_in_a_race_get_one_sum_or_none(broker, tmp_path):
    """An admin's server that runs twice: each call ends the other's round, and no peer answers for two sets."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=1) as started:
            learn(started, 50, 60, 70, 80)
            await pulse(started)
            copied = tmp_path / "copy"
            shutil.copytree(started.admin.folder, copied)
            store = FederationStore(copied)
            ((record, storage),) = store.peers()
            second = await started.runtime(FixedClock()).restore(record, storage)
            try:
                await until(lambda: second.is_running and not second._syncs._tasks)
                leaders = [started.admin.peer._syncs.leadership, second._syncs.leadership]
                await asyncio.gather(*(leader.lead() for leader in leaders))
            finally:
                await second.close()
                store.close()
            await until(lambda: not any(node.peer.is_in_round for node in started.nodes))
            for node in started.nodes[1:]:
                answered = [entry for entry in entries_of(node).values() if entry.answered]
                assert len({frozenset(entry.versions.items()) for entry in answered}) <= 1
            if not started.nodes[1].rounds():
                assert all("Sync failed" in node.log() for node in started.nodes[1:])
                await synchronise(started)
            assert started.nodes[1].peer.federated_project.row_count == 260

    run(work(), 120)
