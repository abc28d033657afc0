"""The outcomes of docs/spec/profile.md 6.5 for peers that vanish in a round, or cheat in it, each over a real broker."""

import asyncio
import contextlib
import os
from dataclasses import replace

import numpy as np
import pytest
from nats_broker import run
from peer_driver import SCHEMA, entries_of, federation, pooled, pulse, some_rows, synchronise
from pet1_parties import spoil_box

import pet
from pet.crypto import seal
from pet.errors import SharingError
from pet.federation.peer import rounds
from pet.federation.statistics.statistics import Statistics
from pet.pet1.committee import Committee
from pet.pet1.leaves import build_update, derive_leaf_digests, derive_vector_digest
from pet.pet1.ledger import LedgerEntry
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_context
from pet.protocol import pet1_member
from pet.protocol.pet1_participant import UpdateParticipant


def learn(started, *counts):
    parts = [some_rows(count, seed) for seed, count in enumerate(counts)]
    for node, part in zip(started.nodes, parts, strict=True):
        node.peer.local_project.learn(part)
    return parts


def require_merged(nodes, *parts):
    expected = Statistics.of(pooled(*parts), SCHEMA)
    for node in nodes:
        np.testing.assert_allclose(node.peer.federated_project.snapshot().values, expected.values, rtol=1e-9, atol=1e-9)


@contextlib.contextmanager
def playing_as(decide, monkeypatch):
    """Let peers play their part in rounds through a transport that a test chooses, or None for not at all."""

    async def play_or_not(steps, transport, before_update, note):
        chosen = await decide(steps.record.number, steps._key.public_key, transport)
        if chosen is not None:
            await play(steps, chosen, before_update, note)

    play = rounds.play
    with monkeypatch.context() as patch:
        patch.setattr(rounds, "play", play_or_not)
        yield


class VanishingTransport:
    """A transport of a peer that goes silent in the middle of a round.

    Args:
        inner: to the coordinator.
        before: what no longer leaves: "Sum", "Update", "Check" or "Sum2".
    """

    def __init__(self, inner, before):
        self._inner, self._before, self._sent = inner, before, iter(("Sum", "Check", "Sum2"))

    async def send_message(self, body):
        await self._send(next(self._sent), self._inner.send_message, body)

    async def open_update(self, sealed):
        return await self._send("Update", self._inner.open_update, sealed)

    async def _send(self, what, send, body):
        if what == self._before:
            await asyncio.sleep(600)
        return await send(body)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def key_of(node):
    return node.peer.record.keys.signing.public_key


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        pytest.param("Sum", "too_few_members: did not begin", marks=pytest.mark.long),
        pytest.param("Update", "too_few_updates: sent no vector", marks=pytest.mark.long),
        ("Check", "no_quorum: did not sign"),
    ],
)
def test_a_peer_that_vanishes_before_it_answers_costs_nobody_the_aggregate(broker, tmp_path, monkeypatch, before, reason):
    """Nobody has answered, so the round is as if it had never been called: again without it, with the same statistics."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=4) as started:
            parts = learn(started, 40, 50, 60, 70)
            await pulse(started)
            *rest, gone = started.nodes

            async def decide(number, key, transport):
                return transport if key != key_of(gone) else VanishingTransport(transport, before)

            with playing_as(decide, monkeypatch):
                await synchronise(started, nodes=rest)
            for node in started.nodes:  # the one that is gone still listens
                assert f"Sync failed: round 1, attempt 1 of 3: {reason}" in node.log()
                assert gone.peer.record.keys.identity("peer3").name in node.log()
            require_merged(rest, *parts[:3])
            assert all(list(entries_of(node)) == [2] for node in rest), "the round that failed is struck out"

    run(work())


def test_a_peer_that_vanishes_after_it_has_signed_is_in_the_sum(broker, tmp_path, monkeypatch):
    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=20) as started:
            parts = learn(started, 40, 50, 60, 70)
            await pulse(started)

            async def decide(number, key, transport):
                return transport if key != key_of(started.nodes[3]) else VanishingTransport(transport, "Sum2")

            with playing_as(decide, monkeypatch):
                await synchronise(started)
            require_merged(started.nodes, *parts)
            assert started.admin.log() == ""

    run(work())


def test_two_peers_that_vanish_after_they_have_signed_are_called_again(broker, tmp_path, monkeypatch):
    """The others have answered, and their sum may be known to the leader: the same set comes together again, masked afresh."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=4) as started:
            parts = learn(started, 40, 50, 60, 70)
            await pulse(started)

            async def decide(number, key, transport):
                is_gone = number == 1 and key in map(key_of, started.nodes[2:])
                return VanishingTransport(transport, "Sum2") if is_gone else transport

            with playing_as(decide, monkeypatch):
                await synchronise(started)
            assert "attempt 1 of 3: too_few_answers: sent no share of the mask" in started.admin.log()
            assert "all are called again" in started.admin.log()
            require_merged(started.nodes, *parts)

    run(work())


def test_peers_that_only_pretend_to_take_part_or_refuse_are_left_out_of_the_next_attempts(broker, tmp_path, monkeypatch):
    async def work():
        async with federation(broker.url, tmp_path, 5, phase_seconds=3.0) as started:
            learn(started, 40, 50, 60, 70, 80)
            await pulse(started)
            *rest, idle, stubborn = started.nodes

            async def decide(number, key, transport):
                return transport if key != key_of(idle) else None

            # This one knows of an aggregate without it, so it refuses to be the only difference.
            known = dict.fromkeys([key_of(node) for node in started.nodes[:4]], 1)
            entry = LedgerEntry(number=0, versions=known, groups=1, members=frozenset(known), published=True)
            stubborn.peer._syncs.rounds.peer._peer.ledger.enter(entry)
            with playing_as(decide, monkeypatch):
                await synchronise(started, nodes=rest)
            assert started.admin.peer.federated_project.row_count == 150
            assert "round 1, attempt 1 of 3: expected all to take part, got peer4" in started.admin.log()
            assert "round 2, attempt 2 of 3: too_few_members: did not begin (peer3" in started.admin.log()
            assert "peers to change together" in stubborn.log()

    run(work())


def test_a_peer_that_is_stopped_withdraws_at_once(broker, tmp_path, monkeypatch):
    """What has not left it stays there, also in a round that has begun."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=4) as started:
            learn(started, 40, 50, 60, 70)
            await pulse(started)
            gone, left = started.nodes[3], []

            async def decide(number, key, transport):
                if key == key_of(gone):
                    await gone.peer.stop_pulse()
                    await asyncio.sleep(0)
                    left.append(number)
                return transport

            with playing_as(decide, monkeypatch):
                await started.admin.peer._syncs.leadership.lead()
            assert left == []
            assert not gone.peer.is_in_round
            assert entries_of(gone) == {}
            assert gone.storage.load_state("shared_last") is None

    run(work())


@contextlib.contextmanager
def cheating(monkeypatch, cheat, how):
    """Let one peer send another update, or another answer, than it should."""
    key = key_of(cheat)
    mask, build, build_sum2 = UpdateParticipant.mask, ShareHeader.build, pet1_member.build_sum2

    def build_with_bad_box(signing, committee, secrets, vector_digest):
        header = build(signing, committee, secrets, vector_digest)
        return header if signing.public_key != key else spoil_box(header, signing, 0)

    def mask_rubbish(self, committee, values, *arguments, **options):
        joined = self._joined
        update = mask(self, committee, values, *arguments, **options)
        if self._key.public_key != key:
            return update
        members = Committee.from_bytes(committee, joined.record, joined.enrolment)
        secrets = UpdateSecrets.from_random(os.urandom(96))
        vector = np.random.default_rng(5).integers(0, 2**63, len(update.vector) // 8, dtype=np.uint64).tobytes()
        leaves = derive_leaf_digests(vector, derive_context(members.digest, key, secrets.point))
        header = ShareHeader.build(self._key, members, secrets, derive_vector_digest(leaves, len(vector), secrets.salt))
        message = build_update(self._key, members, header, secrets.salt, leaves)
        sealed = seal(message, joined.record.coordinator_key)
        return replace(update, header=header, sealed=sealed, vector=memoryview(vector))

    def build_wrong_share(signing, record, certificate, share):
        if signing.public_key == key:
            share = pet.Mask.from_vector(record.config, bytes(len(share.to_vector())))
        return build_sum2(signing, record, certificate, share)

    with monkeypatch.context() as patch:
        match how:
            case "a bad box":
                patch.setattr(ShareHeader, "build", build_with_bad_box)
            case "rubbish":
                patch.setattr(UpdateParticipant, "mask", mask_rubbish)
            case "a wrong share":
                patch.setattr(pet1_member, "build_sum2", build_wrong_share)
        yield


def test_who_sends_a_bad_box_is_named_and_left_out(broker, tmp_path, monkeypatch):
    """The complaint proves who it is; nobody has answered."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=20) as started:
            parts = learn(started, 40, 50, 60, 70)
            await pulse(started)
            *rest, cheat = started.nodes
            with cheating(monkeypatch, cheat, "a bad box"):
                await synchronise(started, nodes=rest)
            for node in started.nodes:
                assert "attempt 1 of 3: too_few_updates: sent boxes that do not open (peer3" in node.log()
            require_merged(rest, *parts[:3])
            assert all(list(entries_of(node)) == [2] for node in rest), "the round that failed is struck out"

    run(work())


@pytest.mark.parametrize(
    ("how", "reason"), [("a wrong share", "wrong_share"), pytest.param("rubbish", "total_out_of_range", marks=pytest.mark.long)]
)
def test_a_wrong_share_or_rubbish_fails_a_round_without_a_name(broker, tmp_path, monkeypatch, how, reason):
    """All have answered: the same set comes together again until it is right, or who has new statistics."""

    async def work():
        async with federation(broker.url, tmp_path, 4, phase_seconds=20) as started:
            parts = learn(started, 40, 50, 60, 70)
            await pulse(started)
            with cheating(monkeypatch, started.nodes[3], how):
                await started.admin.peer._syncs.leadership.lead()
            for node in started.nodes:
                assert node.log().count(f": {reason}") == 3, "in each attempt"
                assert [entry.answered for entry in entries_of(node).values()] == [True] * 3
                assert {tuple(entry.versions.values()) for entry in entries_of(node).values()} == {(1, 1, 1, 1)}
            with pytest.raises(SharingError, match="expected that of round 1, or new statistics of this peer"):
                await started.admin.peer._syncs.leadership._attempt(frozenset({started.nodes[3].uuid}))
            await synchronise(started)
            require_merged(started.nodes, *parts)

    run(work())
