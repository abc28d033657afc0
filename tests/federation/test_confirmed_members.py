"""Members that a peer's user has confirmed, and what an admin that invents or swaps members gets from it.

Source: docs/spec/federation.md 10.
"""

import os
from dataclasses import replace

import pytest
from malicious import MaliciousAdmin
from nats_broker import run
from peer_driver import federation, pulse, some_rows, synchronise, until

from pet.errors import FederationStateError, FederationUnavailableError, FederationValueError
from pet.federation.formats.member_list import (
    begins_with_digest,
    find_member,
    have_distinct_names,
    is_digest,
    is_same_code,
    list_code,
    list_digest,
    shown_fingerprint,
)
from pet.federation.formats.record_codec import decode_record, encode_record
from pet.federation.peer.confirmation import confirmed_together
from pet.federation.records import Confirm, LogKind, Mode, PeerKeys

PERSON = Confirm.PERSON


def learn(started):
    for number, node in enumerate(started.nodes):
        node.peer.local_project.learn(some_rows(40 + number, number))


async def confirm_each_other(nodes):
    """What their users do: wait for the list, compare its code, confirm."""
    await until(lambda: all(node.peer.record.peers == nodes[0].peer.record.peers for node in nodes))
    codes = {(await node.peer.members()).code for node in nodes}
    assert len(codes) == 1
    for node in nodes:
        await node.peer.confirm_list(next(iter(codes)))


def unconfirmed(found):
    return [member.name for member in found.members if not member.is_confirmed]


def identities(*names):
    return [PeerKeys.generate().identity(name) for name in names]


# ---- rounds


def test_joining_confirms_the_admin_alone_and_rounds_begin_when_all_have_confirmed_each_other(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, confirm=PERSON) as started:
            admin, first, second = started.nodes
            await until(lambda: len(first.peer.record.peers) == 3)
            assert unconfirmed(await admin.peer.members()) == []
            assert unconfirmed(await first.peer.members()) == ["peer2"]
            assert unconfirmed(await second.peer.members()) == ["peer1"]
            assert "New members: peer2" in first.log(LogKind.SYNC)
            learn(started)
            await pulse(started)
            await admin.peer.request_full_sync()
            await until(lambda: "Sync refused" in admin.log())
            assert "Sync without peer2" in admin.log()
            assert "not confirmed by peer1" in admin.log()
            await first.peer.confirm_member("PEER2")
            await second.peer.confirm_member(shown_fingerprint(first.peer.record.keys.identity().fingerprint))
            await synchronise(started)
            assert second.peer.federated_project.row_count == 123

    run(work(), 90)


def test_a_newcomer_is_left_out_until_all_have_confirmed_it(broker, tmp_path):
    """Nobody waits for it, and a peer that is started again knows whom it has confirmed."""

    async def work():
        async with federation(broker.url, tmp_path, confirm=PERSON) as started:
            await confirm_each_other(started.nodes)
            learn(started)
            await pulse(started)
            await synchronise(started)
            old = list(started.nodes)
            late = await started.join()
            late.peer.local_project.learn(some_rows(60, 9))
            await late.peer.start_pulse()
            await late.peer.confirm_list((await late.peer.members()).code)
            more = [some_rows(20, 21), some_rows(20, 22)]
            for node, rows in zip(old[1:], more, strict=True):
                node.peer.local_project.learn(rows)
            await synchronise(started, nodes=old)
            assert started.admin.peer.federated_project.row_count == 123 + 40
            assert "Sync without peer3" in started.admin.log()
            again = await started.restart(old[1])
            await until(lambda: again.peer.is_running)
            await confirm_each_other(started.nodes)
            started.nodes[2].peer.local_project.learn(some_rows(20, 23))
            await synchronise(started)
            assert late.peer.federated_project.row_count == 123 + 40 + 20 + 60

    run(work(), 90)


@pytest.mark.parametrize("is_early", [True, False], ids=["before the victim", "after the victim"])
def test_an_invented_member_reads_nobody(broker, tmp_path, is_early):
    """Attack A2: the admin invites itself once more, and forms rounds of everybody."""

    async def work():
        async with federation(broker.url, tmp_path, 1, confirm=PERSON) as started:
            admin = MaliciousAdmin(started)
            if is_early:
                await admin.invent_member("sybil")
            victim, other = await started.join(), await started.join()
            if not is_early:
                await admin.invent_member("sybil")
            await until(lambda: all(len(node.peer.record.peers) == 4 for node in started.nodes))
            for one, another in ((victim, other), (other, victim)):
                await one.peer.confirm_member(another.uuid)
            learn(started)
            await pulse(started)
            admin.lead_with_everybody()
            await started.admin.peer.request_full_sync()
            for node in (victim, other):
                await until(lambda node=node: "that this peer's user has confirmed, got sybil" in node.log())
                await until(lambda node=node: node.peer.statistics.receive_errors >= 1 and not node.peer.is_in_round)
                assert node.rounds() == 0

    run(work(), 90)


def test_a_member_whose_key_changes_is_a_new_one(broker, tmp_path):
    """The admin shows the victim another key of a member that it has confirmed: its own, or one for encryption alone."""

    async def work():
        async with federation(broker.url, tmp_path, confirm=PERSON) as started:
            await confirm_each_other(started.nodes)
            learn(started)
            await pulse(started)
            admin, victim, swapped = MaliciousAdmin(started), started.nodes[1], started.nodes[2]
            before = await victim.peer.members()
            honest = started.admin.peer.record.peers
            for changed in (
                replace(honest[2], signing_key=PeerKeys.generate().signing.public_key),
                replace(honest[2], encryption_key=PeerKeys.generate().encryption.public_key),
            ):
                await admin.show_members(victim, (*honest[:2], changed))
                found = await victim.peer.members()
                assert unconfirmed(found) == [swapped.peer.record.project_id]
                assert found.code != before.code
                with pytest.raises(FederationStateError, match="got another"):
                    await victim.peer.confirm_list(before.code)
            # And back: who was away is new.
            await admin.show_members(victim, honest)
            assert unconfirmed(await victim.peer.members()) == [swapped.peer.record.project_id]

    run(work())


def test_a_list_in_which_somebody_stands_twice_is_refused(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, confirm=PERSON) as started:
            victim, admin = started.nodes[1], MaliciousAdmin(started)
            honest = started.admin.peer.record.peers
            await until(lambda: victim.peer.record.peers == honest)
            twin = PeerKeys.generate().identity("twin")
            for changed in (
                replace(twin, uuid=honest[2].uuid),
                replace(twin, signing_key=honest[2].signing_key),
                replace(twin, encryption_key=honest[2].encryption_key),
                replace(twin, label="PEER2"),
                replace(twin, label="x" * 65),
                replace(twin, label=" twin"),
            ):
                await admin.show_members(victim, (*honest, changed))
                assert victim.peer.record.peers == honest

    run(work())


def test_the_plain_exchange_waits_for_confirmation_too(broker, tmp_path):
    """All members can read what is sent there, so nothing is sent before all are confirmed."""

    async def work():
        async with federation(broker.url, tmp_path, 2, confirm=PERSON, uses_smpc=False) as started:
            admin, peer = started.nodes
            learn(started)
            sybil = await MaliciousAdmin(started).invent_member("sybil")
            await until(lambda: len(peer.peer.record.peers) == 3)
            await pulse(started)
            await peer.peer._syncs.exchange.publish(whole=True)
            assert "held back until all members are confirmed: sybil" in peer.log()
            assert peer.peer.statistics.send_count == 0
            assert peer.peer.shared_rows == 0
            await peer.peer.allow_explore(True)
            with pytest.raises(Exception, match="confirmed"):
                await sybil.peer.explore(peer.uuid, "univariate", {"feature": "age"})
            await peer.peer.confirm_list((await peer.peer.members()).code)
            await peer.peer._syncs.exchange.publish(whole=True)  # unless another peer's request was faster
            await until(lambda: peer.uuid in admin.peer._context.counters.applied)
            await until(lambda: admin.peer.federated_project.row_count == 81)

    run(work())


# ---- joining


def test_a_join_answer_with_other_members_than_the_invitation_is_refused(broker, tmp_path):
    """Who forges or changes the list on its way into the answer is found out by the invitation's digest."""

    async def work():
        async with federation(broker.url, tmp_path, 2, confirm=PERSON) as started:
            terms, peers = started.admin.peer.record.terms, started.admin.peer.record.peers
            digest = list_digest(terms.federation_id, peers)
            await started.join()  # lists may grow
            joined = await started.join(members_digest=digest)
            assert len(joined.peer.record.peers) == 4
            other = list_digest(terms.federation_id, [peers[0], *identities("peer1")])
            with pytest.raises(FederationUnavailableError, match="the invitation's digest covers"):
                await started.join(members_digest=other)
            # The admin's own key is part of it: messages to the admin are sealed to that.
            context, other = started.admin.peer._context, PeerKeys.generate().encryption.public_key
            admin = replace(terms.admin, encryption_key=other)
            peers = (admin, *context.record.peers[1:])
            context.record = replace(context.record, terms=replace(context.terms, admin=admin), peers=peers)
            with pytest.raises(FederationUnavailableError, match="the admin that the invitation names"):
                await started.join(terms=terms)

    run(work())


def test_names_are_unique_and_their_peers_own(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 2) as started:
            token = started.invite()
            keys = PeerKeys.generate()
            with pytest.raises(FederationValueError, match="fed_peer_name: expected a name that no member has, got 'Peer1'"):
                await started.join(token, project_id="clinic", keys=keys, peers=(keys.identity("Peer1"),))
            assert started.admin.log() == "", "a name that is taken is no failed join"
            keys = PeerKeys.generate()
            named = await started.join(token, project_id="clinic", keys=keys, peers=(keys.identity("St. Anna 2"),))
            # A name that nobody chose, as the project has it, gets a suffix.
            started.folder = tmp_path / "elsewhere"
            twin = await started.join(project_id="peer1")
            labels = [peer.label for peer in named.peer._context.members.values()]
            assert labels[:3] == ["admin", "peer1", "St. Anna 2"]
            own = twin.peer._context.members[twin.uuid]
            assert own.label == f"peer1-{own.fingerprint[:6]}"
            await started.admin.peer.remove_peer("st. anna 2")
            assert named.uuid not in started.admin.peer._context.members
            with pytest.raises(FederationValueError, match="expected the name or fingerprint"):
                await started.admin.peer.remove_peer("St. Anna 2")

    run(work())


def test_a_key_that_a_member_has_is_no_key_of_a_newcomer(broker, tmp_path):
    """It would make the list useless for everybody, as peers refuse one in which a key stands twice."""

    async def work():
        async with federation(broker.url, tmp_path, 2) as started:
            before, keys = started.admin.peer.record.peers, PeerKeys.generate()
            copied = replace(keys.identity("copy"), encryption_key=before[1].encryption_key)
            with pytest.raises(PermissionError):
                await started.join(keys=keys, peers=(copied,))
            assert started.admin.peer.record.peers == before
            assert "another member's" in started.admin.log()

    run(work())


# ---- records, defaults


def test_members_stored_before_are_unconfirmed(broker, tmp_path, caplog):
    async def work():
        async with federation(broker.url, tmp_path, confirm=PERSON) as started:
            record = started.nodes[1].peer.record
            assert decode_record(encode_record(record)) == record
            fields = encode_record(record).replace(f'"confirmed":["{record.confirmed[0]}"],', "")
            fields = fields.replace('"members_digest":null,', "")
            assert "confirmed" not in fields
            assert "members_digest" not in fields
            old = decode_record(fields)
            assert old == replace(record, confirmed=())
            started.nodes[1].storage.save_record(old)
            again = await started.restart(started.nodes[1])
            assert unconfirmed(await again.peer.members()) == ["admin", "peer2"]
            assert "2 members are unconfirmed" in caplog.text

    run(work())


def test_compatibility_mode_takes_the_admins_word(broker, tmp_path, caplog):
    async def work():
        async with federation(broker.url, tmp_path, confirm=None, mode=Mode.COMPAT) as started:
            found = await started.nodes[1].peer.members()
            assert (found.confirm, unconfirmed(found)) == (Confirm.ADMIN, [])
            assert caplog.text.count("can invent all other members, and read the statistics of this peer") == 3
            caplog.clear()
            await started.restart(started.nodes[1])
            assert "can invent all other members" in caplog.text
        async with federation(broker.url, tmp_path / "native", confirm=None) as started:
            assert (await started.nodes[1].peer.members()).confirm is PERSON

    run(work())


# ---- the list as people compare it


def test_the_code_is_that_of_one_list():
    members = identities("admin", "anna", "bert")
    code = list_code("f" * 16, members)
    assert len(code) == 24
    assert is_same_code(code, code.lower().replace("-", " "))
    assert list_code("f" * 16, members[::-1]) == code
    first, second, third = members
    for other in (
        members[:2],
        [*members, *identities("sybil")],
        [first, replace(second, label="bert"), replace(third, label="anna")],
        [first, second, replace(third, label="Bert")],
        [first, second, replace(third, signing_key=os.urandom(32))],
        [first, second, replace(third, encryption_key=os.urandom(32))],
        [first, second, replace(third, uuid="0" * 32)],
    ):
        assert not is_same_code(list_code("f" * 16, other), code)
    assert list_code("g" * 16, members) != code


def test_a_digest_covers_how_a_list_begins():
    members = identities("admin", "anna", "bert")
    digest = list_digest("f" * 16, members[:2])
    assert is_digest(digest)
    assert begins_with_digest("f" * 16, members, digest)
    assert begins_with_digest("f" * 16, members[:2], digest)
    for other in (members[:1], [members[0], members[2], members[1]], [replace(members[0], label="x"), *members[1:]]):
        assert not begins_with_digest("f" * 16, other, digest)
    assert not begins_with_digest("g" * 16, members, digest)
    for text in ("", "2", "0:" + "0" * 64, "2:" + "0" * 63, digest.upper(), f"{digest} "):
        assert not begins_with_digest("f" * 16, members, text)


def test_members_are_found_by_name_fingerprint_and_uuid():
    members = identities("Änna", "bert", "")
    anna = members[0]
    for text in ("änna", "a\u0308NNA", anna.fingerprint, shown_fingerprint(anna.fingerprint).upper(), anna.uuid):
        assert find_member(members, text) == anna
    for text in ("", "carl", "bert ", "0" * 32, anna.fingerprint[:31]):
        with pytest.raises(FederationValueError):
            find_member(members, text)
    assert have_distinct_names(members)
    assert have_distinct_names([*members, *identities("")])
    assert not have_distinct_names([*members, *identities("BERT")])


def test_the_leader_chooses_those_who_have_confirmed_each_other():
    def known(*names):
        return frozenset(peers[name].fingerprint for name in names)

    peers = {peer.label: peer for peer in identities(*"abcde")}
    everybody = known(*"abcde")

    def choose(**exceptions):
        confirmed = {peer.uuid: exceptions.get(name, everybody) for name, peer in peers.items()}
        chosen, reasons = confirmed_together(list(peers.values()), confirmed)
        assert reasons.keys() == {peer.uuid for peer in peers.values()} - {peer.uuid for peer in chosen}
        return "".join(peer.label for peer in chosen)

    assert choose() == "abcde"
    assert choose(b=known(*"abcd")) == "abcd", "the newcomer waits"
    assert choose(a=known(*"abcd"), c=known(*"abcd")) == "abcd"
    assert choose(b=known("a", "b")) == "acde", "who confirms nobody keeps itself out"
    assert choose(e=known("e")) == "abcd"
    assert choose(a=known("a"), b=known("b"), c=known("c"), d=known("d"), e=known("e")) == "a"
    assert choose(a=frozenset(), b=frozenset({"nonsense"})) == "cde"

    many = identities(*map(str, range(200)))
    chosen, reasons = confirmed_together(many, {peer.uuid: frozenset() for peer in many})
    assert chosen == many[:1]
    assert reasons[many[-1].uuid].endswith("and 194 more"), "a line of a log has an end"
