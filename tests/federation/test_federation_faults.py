"""What goes wrong between peers, and what comes of it: each trouble with its stated outcome, and nothing lost."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from nats_broker import run, running_broker
from peer_driver import SCHEMA, entries_of, federation, pooled, pulse, some_rows, synchronise, until

from pet.errors import FederationStateError, FederationUnavailableError, FederationValueError, TokenRefusedError
from pet.federation.peer.messages import MessageCodec
from pet.federation.records import LogKind, PeerKeys
from pet.federation.server.federation_info import federation_info
from pet.federation.statistics.statistics import Statistics
from pet.secret import Secret
from pet.transports.nats import Subjects


def learn(started, *counts):
    parts = [some_rows(count, seed) for seed, count in enumerate(counts)]
    for node, part in zip(started.nodes, parts, strict=True):
        node.peer.local_project.learn(part)
    return parts


def require_merged(started, *parts):
    expected = Statistics.of(pooled(*parts), SCHEMA)
    for node in started.nodes:
        np.testing.assert_allclose(node.peer.federated_project.snapshot().values, expected.values, rtol=1e-9, atol=1e-9)


def test_a_peer_that_dies_and_returns_goes_on_where_it_was(broker, tmp_path):
    """Rounds go on without it; it finds the aggregate it missed, and its rows are in the next one."""

    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            parts = learn(started, 40, 50, 60, 70)
            await pulse(started)
            await synchronise(started)
            lost = started.nodes[3]
            await lost.peer.close()
            more = [some_rows(20, 8), some_rows(30, 9)]
            started.nodes[1].peer.local_project.learn(more[0])
            await synchronise(started, nodes=started.nodes[:3])
            assert started.admin.peer.federated_project.row_count == 170
            back = await started.restart(lost)
            assert back.peer.record.is_pulsing
            assert back.peer.local_project.row_count == 70
            await until(lambda: back.peer.federated_project.row_count == 170)
            back.peer.local_project.learn(more[1])
            started.nodes[2].peer.local_project.learn(some_rows(8, 10))
            await synchronise(started)
            require_merged(started, *parts, *more, some_rows(8, 10))

    run(work())


def test_the_admin_may_die_and_return_too(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            parts = learn(started, 40, 50, 60)
            await pulse(started)
            await synchronise(started)
            admin = await started.restart(started.admin)
            await until(lambda: admin.peer.is_running)
            assert admin.peer.federated_project.row_count == 150
            more = [some_rows(20, 8), some_rows(30, 9)]
            for node, rows in zip(started.nodes[1:], more, strict=True):
                node.peer.local_project.learn(rows)
            await synchronise(started)
            require_merged(started, *parts, *more)
            joined = await started.join()
            assert len(joined.peer.record.peers) == 4

    run(work())


def test_a_peer_that_missed_a_newcomer_asks_before_it_enrols(broker, tmp_path, monkeypatch):
    async def work():
        async with federation(broker.url, tmp_path, 2) as started:
            away = started.nodes[1]
            admin = started.admin.peer._admin
            monkeypatch.setattr(admin._admission, "_announce", lambda **_: bump(admin))
            await started.join()
            monkeypatch.undo()
            assert len(away.peer.record.peers) == 2
            learn(started, 40, 50, 60)
            await pulse(started)
            await synchronise(started)
            assert len(away.peer.record.peers) == 3
            assert started.admin.log() == ""

    def bump(desk):
        """A change that is announced to nobody."""
        desk._context.counters.terms_version += 1
        desk._context.save()

    run(work())


def test_a_broker_killed_in_the_middle_of_a_round_delays_it(tmp_path):
    """What was on its way is sent again when the broker is back; the peers reconnect by themselves."""

    async def work(broker):
        async with federation(broker.url, tmp_path / "peers", phase_seconds=20) as started:
            parts = learn(started, 40, 50, 60)
            await pulse(started)
            await started.admin.peer.request_full_sync()
            await until(lambda: started.nodes[1].peer.is_in_round)
            broker.kill()
            await asyncio.sleep(0.5)
            broker.start()
            await until(lambda: all(node.rounds() for node in started.nodes), 40)
            require_merged(started, *parts)
            more = [some_rows(20, 8), some_rows(30, 9)]
            for node, rows in zip(started.nodes[1:], more, strict=True):
                node.peer.local_project.learn(rows)
            await synchronise(started)
            require_merged(started, *parts, *more)

    with running_broker(tmp_path / "broker") as broker:
        run(work(broker), 90)


def test_a_peer_whose_clock_is_wrong_is_left_out_until_it_is_right(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            learn(started, 40, 50, 60, 70)
            await pulse(started)
            late = started.nodes[3]
            late.clock.offset_seconds = -120
            await synchronise(started, nodes=started.nodes[:3])
            assert started.admin.peer.federated_project.row_count == 150
            assert "the clocks are out of step" in late.log()
            assert late.peer.statistics.receive_errors >= 1
            late.clock.offset_seconds = 0
            started.nodes[1].peer.local_project.learn(some_rows(20, 8))
            await synchronise(started)
            assert late.peer.federated_project.row_count == 240

    run(work())


def test_a_message_sent_again_is_refused_and_changes_nothing(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 40, 50, 60)
            await pulse(started)
            subjects = Subjects(started.admin.peer.record.terms.federation_id)
            heard, spy = [], started.admin.peer._connection

            async def listen(message):
                heard.append((message.subject, bytes(message.data)))

            await spy.subscribe(subjects.prefix + "ctl.*", listen)
            await synchronise(started)
            peer = started.nodes[1]
            before = peer.peer.record, peer.peer.federated_project.snapshot()
            mine = [data for subject, data in heard if subject.endswith(peer.uuid)]
            assert len(mine) == 2, "one call and one announcement"
            for data in mine:
                await spy.request(subjects.control(peer.uuid), data)
            assert peer.log().count("expected a new one, got one again") == 2
            assert (peer.peer.record, peer.peer.federated_project.snapshot()) == before
            # A bit that is changed on the way, and something that is no message at all, stay without an answer.
            for bad in (mine[0][:-1] + bytes([mine[0][-1] ^ 1]), b"", b"hello"):
                assert await spy.request(subjects.control(peer.uuid), bad) == b""

    run(work())


def test_a_removed_peer_is_refused_and_the_rest_has_a_new_key(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            used = started.invite()
            await started.join(used)
            learn(started, 40, 50, 60, 70, 80)
            await pulse(started)
            await synchronise(started)
            gone, rest = started.nodes[4], started.nodes[:4]
            pending = started.invite()
            with pytest.raises(FederationValueError):
                await started.admin.peer.remove_peer("0" * 32)
            await started.admin.peer.remove_peer(gone.uuid)
            await until(lambda: all(node.peer.record.terms.key_epoch == 1 for node in rest))
            assert len({node.peer.record.terms.secret_key.reveal() for node in rest}) == 1
            assert gone.peer.record.terms.secret_key != rest[0].peer.record.terms.secret_key
            assert not gone.peer.record.is_pulsing
            with pytest.raises(FederationStateError, match="no longer a member"):
                await gone.peer.start_pulse()
            with pytest.raises(FederationUnavailableError):
                await gone.peer._member.say_hello()
            assert "expected a member" in started.admin.log()
            with pytest.raises(TokenRefusedError):
                await started.join(pending)
            started.folder = tmp_path / "again"
            with pytest.raises(TokenRefusedError):
                await started.join(used, keys=gone.peer.record.keys, project_id="back")
            assert "token used" in started.admin.log()
            assert gone.uuid not in started.admin.peer._context.members
            # Of five members three have to change together, and it stays so when one is gone, which is a change as well.
            for node in rest[1:3]:
                node.peer.local_project.learn(some_rows(20, 8))
            await synchronise(started, nodes=rest)
            assert rest[2].peer.federated_project.row_count == 260
            assert gone.peer.federated_project.row_count == 300, "what it knew it keeps; nothing is added"

    run(work())


def test_a_peer_that_was_away_learns_of_everything_when_it_returns(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            away = started.nodes[3]
            await away.peer.close()
            await started.admin.peer.remove_peer(started.nodes[2].uuid)
            await started.admin.peer.new_schedule("h5")
            back = await started.restart(away)
            await until(lambda: back.peer.record.terms.key_epoch == 1)
            assert back.peer.record.terms.schedule.text == "h5"
            assert len(back.peer.record.peers) == 3

    run(work())


def test_a_peer_may_leave_and_the_admin_may_end_it_all(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path) as started:
            await pulse(started)
            await started.nodes[2].peer.leave()
            await until(lambda: len(started.nodes[1].peer.record.peers) == 2)
            with pytest.raises(FederationStateError, match="delete"):
                await started.admin.peer.leave()
            await started.admin.peer.delete()
            await until(lambda: not started.nodes[1].peer.record.is_pulsing)
            assert "no longer a member" in started.nodes[1].log()

    run(work())


def test_tokens_open_the_federation_once(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            token = started.invite()
            await started.join(token)
            for bad, reason in (
                (token, "token used"),
                (Secret("0" * 64), "token unknown"),
                (started.invite(-1), "token expired"),
            ):
                with pytest.raises(TokenRefusedError, match="Invalid federation token"):
                    await started.join(bad)
                assert reason in started.admin.log()
            wrong_key = replace(started.admin.peer.record.terms, admin=PeerKeys.generate().identity())
            with pytest.raises(FederationUnavailableError):
                await started.join(terms=wrong_key)
            assert len(started.admin.peer.record.peers) == 2
            assert all(token.reveal() not in node.log() + node.log(LogKind.SYNC) for node in started.nodes)

    run(work())


def test_a_broker_or_an_admin_that_is_away_is_said_so(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            token = started.invite()
            await started.admin.peer.close()
            with pytest.raises(FederationUnavailableError, match="nobody"):
                await started.join(token)
            nowhere = replace(started.access(), hosts=("nats://127.0.0.1:1",), request_timeout_seconds=1)
            with pytest.raises(FederationUnavailableError, match=r"127\.0\.0\.1:1"):
                await started.join(token, nats=nowhere)

    run(work())


def test_a_peer_that_missed_the_result_of_a_round_that_it_answered_takes_part_again(broker, tmp_path, monkeypatch):
    """Else it would wait for the very set of that round, while the others have new statistics; the next result says of it."""

    async def work():
        async with federation(broker.url, tmp_path, 4) as started:
            learn(started, 40, 50, 60, 70)
            await pulse(started)
            *rest, away = started.nodes
            with monkeypatch.context() as patch:
                patch.setattr(away.peer._syncs.aggregates, "take_event", lambda _payload: asyncio.sleep(0))
                await synchronise(started, nodes=rest)
                await until(lambda: entries_of(away)[1].answered)
                await away.peer.stop_pulse()
                for node in rest:
                    node.peer.local_project.learn(some_rows(20, 9))
                await synchronise(started, nodes=rest)
            assert not entries_of(away)[1].published
            await away.peer.start_pulse()
            await until(lambda: away.peer._context.counters.aggregate_round == 2)
            assert not any(entry.answered and not entry.published for entry in entries_of(away).values())
            for node in rest[:2]:
                node.peer.local_project.learn(some_rows(20, 10))
            await synchronise(started)
            assert away.peer.federated_project.row_count == 220 + 60 + 40

    run(work())


def test_a_federation_whose_admin_is_away_says_that_it_waits(broker, tmp_path):
    """Nobody else leads: docs/decisions/0009-the-admin-leads.md."""

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 40, 50, 60)
            await pulse(started)
            peer = started.nodes[1]
            await peer.peer._syncs._synchronise(is_manual=False)
            assert peer.peer.waits_for_admin is None
            await started.admin.peer.close()
            with pytest.raises(FederationUnavailableError):
                await peer.peer.request_full_sync()
            await peer.peer._syncs._synchronise(is_manual=False)
            (warning,) = federation_info(peer.peer)["fed_warnings"]
            assert warning.startswith("the federation waits for its admin, admin (")
            again = await started.restart(started.admin)
            await until(lambda: again.peer.is_running)
            await peer.peer._syncs._synchronise(is_manual=False)
            assert "fed_warnings" not in federation_info(peer.peer)
            await synchronise(started)

    run(work())


def test_a_restored_peer_waits_for_its_broker(tmp_path):
    async def work(broker):
        async with federation(broker.url, tmp_path / "peers") as started:
            learn(started, 40, 50, 60)
            await pulse(started)
            for node in list(started.nodes):
                await node.peer.close()
            broker.kill()
            for node in list(started.nodes):
                await started.restart(node)
            await asyncio.sleep(0.3)
            broker.start()
            await until(lambda: all(node.peer.is_running for node in started.nodes))
            await synchronise(started)
            assert started.nodes[2].peer.federated_project.row_count == 150

    with running_broker(tmp_path / "broker") as broker:
        run(work(broker), 90)


def test_nothing_secret_is_logged(broker, tmp_path, caplog):
    caplog.set_level("DEBUG")

    async def work():
        async with federation(broker.url, tmp_path) as started:
            learn(started, 40, 50, 60)
            await pulse(started)
            await synchronise(started)
            await started.admin.peer.remove_peer(started.nodes[2].uuid)
            printed = caplog.text + "".join(
                node.log() + node.log(LogKind.SYNC) + repr(node.peer.record) for node in started.nodes
            )
            for node in started.nodes:
                record = node.peer.record
                for secret in (
                    record.terms.secret_key.reveal(),
                    record.keys.signing.secret_key.hex(),
                    repr(record.keys.signing.secret_key),
                ):
                    assert secret not in printed

    run(work())


def test_bad_joins_keep_nobody_else_out(broker, tmp_path):
    """Failures count for the key that signed them; what nobody signed is not even answered after a while, nor logged."""

    async def work():
        async with federation(broker.url, tmp_path, 2) as started:
            keys = PeerKeys.generate()
            for _ in range(5):
                with pytest.raises(TokenRefusedError):
                    await started.join(Secret("0" * 64), keys=keys)
            with pytest.raises(FederationUnavailableError):
                await started.join(started.invite(), keys=keys)
            subjects, spy = Subjects(started.admin.peer.record.terms.federation_id), started.nodes[1].peer._connection
            answers = [await spy.request(subjects.join, b"junk") for _ in range(8)]
            assert [bool(answer) for answer in answers] == [True] * 5 + [False] * 3
            for _ in range(6):
                with pytest.raises(TokenRefusedError):
                    await started.join(Secret("0" * 64))
            assert started.admin.log().count("Join refused") == 5
            await started.join()
            started.admin.clock.offset_seconds = 50  # a later minute, within what clocks may differ
            started.admin.peer._admin._admission._failures._failures[keys.signing.public_key.hex()][0] -= 11
            started.admin.peer._admin._admission._refusals._times[0] -= 11
            await started.join(keys=keys)
            with pytest.raises(TokenRefusedError):
                await started.join(Secret("0" * 64))
            assert "Join refused, and 11 before it: token unknown" in started.admin.log()

    run(work())


def test_forged_announcements_change_nothing(broker, tmp_path):
    """Anybody with the broker's credential may announce things; nothing of it is taken."""

    async def work(started, name):
        learn(started, 40, 50, 60)
        await pulse(started)
        peer, forger = started.nodes[1], started.nodes[2]
        before = peer.peer.statistics.receive_errors
        broadcasts, context = forger.peer._link.broadcasts, forger.peer._context
        subject = forger.peer._link.subjects.model("forged")
        fields = {"round": 99, "contributors": {}, "sequence": 99, "from": 0}
        attachment = Statistics.of(some_rows(500, 5), SCHEMA).to_bytes()

        def forge(codec):
            now = context.clock.now_seconds()
            return codec.make(context.terms, "aggregate", subject, now, fields, attachment=attachment)[0]

        forged = [
            forge(MessageCodec(PeerKeys.generate())),
            forge(context.codec),
            b"no message at all",
        ]
        for number, data in enumerate(forged, 1):
            reference = (await broadcasts.publish_blob(subject, data)).to_bytes()
            event = reference if name == "aggregate" else json.dumps({"sequence": 99, "reference": reference.decode()}).encode()
            await broadcasts.publish_event(name.replace("someone", forger.uuid), event)
            await until(lambda wanted=before + number: peer.peer.statistics.receive_errors == wanted)
        await broadcasts.publish_event(name.replace("someone", forger.uuid), b"{}" if name != "aggregate" else b"nonsense")
        assert "Message refused" in peer.log()
        if name == "aggregate":
            with pytest.raises(FederationStateError):
                assert peer.peer.federated_project
        else:
            await until(lambda: peer.peer.federated_project.row_count == 150)

    async def both():
        async with federation(broker.url, tmp_path / "masked") as started:
            await work(started, "aggregate")
        async with federation(broker.url, tmp_path / "plain", uses_smpc=False) as started:
            await work(started, "sync-someone")

    run(both())
