"""What else a federation may be: compatible, so with little said in the invitation, or something that is refused at once."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from nats_broker import run, running_broker
from peer_driver import Federation, federation, pulse, some_rows, synchronise, until

from pet.errors import (
    FederationUnavailableError,
    FederationValueError,
    ForbiddenSubjectError,
    TokenRefusedError,
)
from pet.federation.peer.clock import SystemClock
from pet.federation.peer.nats_runtime import NatsFederationRuntime, require_usable
from pet.federation.records import LocalType, Mode, ProjectKind
from pet.federation.server.request_maps import MapContext, created_record
from pet.secret import Secret
from pet.transports.nats import NatsSettings
from pet.transports.nats.storage import ask_storage, store_message

PAGE = Path(__file__).parents[2] / "docs" / "federation.md"
COMPAT = {"mode": Mode.COMPAT, "encrypts": False}


def as_invited(terms):
    """What an invitation in the vendor's format says: nothing of our keys, of SMPC, or of the schema."""
    return replace(terms, admin=None, schema=None, uses_smpc=False)


def test_a_peer_may_join_without_knowing_the_admins_key(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1, uses_smpc=False, **COMPAT) as started:
            terms = as_invited(started.admin.peer.record.terms)
            joined = [await started.join(terms=terms) for _ in range(2)]
            for node in joined:
                record = node.peer.record
                assert record.terms.admin == started.admin.peer.record.keys.identity("admin")
                assert not record.terms.uses_smpc
                assert record.terms.schema == started.admin.peer.record.terms.schema
            with pytest.raises(TokenRefusedError):
                await started.join(Secret("0" * 32), terms=terms)
            # To know all but the federation's key is not enough.
            stranger = replace(terms, secret_key=Secret("AAAAAAAAAAAAAAAAAAAAAA=="))
            with pytest.raises(FederationUnavailableError):
                await started.join(terms=stranger)
            started.admin.peer.local_project.learn(some_rows(40, 1))
            await pulse(started)
            started.admin.peer._syncs.pulse.beat_now()
            await until(lambda: all(node.rounds() for node in joined))

    run(work())


def test_streams_in_memory_are_made_again_when_the_broker_lost_them(tmp_path):
    async def work(broker):
        async with federation(broker.url, tmp_path / "peers", phase_seconds=20, **COMPAT) as started:
            for node in started.nodes:
                node.peer.local_project.learn(some_rows(30, 1))
            await pulse(started)
            await started.admin.peer.request_full_sync()
            await until(lambda: started.nodes[1].peer.is_in_round)
            broker.kill()
            await asyncio.sleep(0.5)
            broker.start()
            await until(lambda: all(node.rounds() for node in started.nodes), 50)
            for node in started.nodes[1:]:
                node.peer.local_project.learn(some_rows(10, 2))
            await synchronise(started)
            assert started.nodes[2].peer.federated_project.row_count == 110

    with running_broker(tmp_path / "broker") as broker:
        run(work(broker), 100)


def test_what_cannot_run_is_refused_at_once(broker, tmp_path, monkeypatch):
    monkeypatch.setenv("PET_FORCE_DEVICE", "cuda:999")  # whether torch is here or not, there is no such GPU

    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            record = started.admin.peer.record
            missing = r"^fed_local_type: expected cpu, or a GPU to compute on: (torch is not installed|device cuda:999: )"
            with pytest.raises(FederationValueError, match=missing) as refusal:
                require_usable(replace(record, local_type=LocalType.GPU))
            assert refusal.value.key == "fed_local_type"
            token = started.invite()
            with pytest.raises(FederationValueError, match=missing):
                await started.join(token, local_type=LocalType.GPU)
            assert len((await started.join(token)).peer.record.peers) == 2  # the refusal did not use it up
            model = replace(record.terms, kind=ProjectKind.MODEL)
            with pytest.raises(FederationValueError, match="expected cpu for a project of the model kind, got gpu"):
                require_usable(replace(record, terms=model, local_type=LocalType.GPU))
            plain_model = replace(record.terms, kind=ProjectKind.MODEL, uses_smpc=False)
            with pytest.raises(FederationValueError, match="fed_use_smpc"):
                require_usable(replace(record, terms=plain_model))

    run(work())


def test_what_all_have_to_know_fits_into_one_message(broker, tmp_path):
    async def work():
        async with federation(broker.url, tmp_path, 1) as started:
            peer, long = started.admin.peer, "# " + "x" * 4090
            with pytest.raises(FederationValueError, match="bytes together"):
                await peer.set_contract([long] * 256)
            assert peer.record.terms.contract.counter == 0
            await peer.set_contract([long] * 200)
            joined = await started.join()
            assert len(joined.peer.record.terms.contract.lines) == 200

    run(work())


def test_credentials_that_the_broker_refuses_are_said_so(tmp_path):
    async def work(broker):
        async with federation(broker.url, tmp_path / "peers", 1):
            pass

    with running_broker(tmp_path / "broker", 'authorization { token: "right" }') as broker:
        with pytest.raises(FederationValueError, match=r"\[nats_sec_user\].*credentials") as refusal:
            run(work(broker))
        assert "right" not in str(refusal.value)


def test_the_documented_broker_lets_peers_do_what_they_need_and_no_more(tmp_path, monkeypatch):
    (config,) = re.findall(r"<!-- broker -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for user in ("ADMIN", "PEER1", "PEER2"):
        monkeypatch.setenv(f"PET_{user}_PASSWORD", f"hush-{user}")

    def access(broker, user):
        return NatsSettings(hosts=(broker.url,), user=user, password=Secret(f"hush-{user.upper()}"), request_timeout_seconds=5)

    async def work(broker):
        started = Federation(broker.url, tmp_path / "peers", terms={"federation_id": "abcdefghij012345"})
        try:
            started.access = lambda: access(broker, "admin")
            await started.create()
            for user in ("peer1", "peer2"):
                await started.join(nats=access(broker, user))
            for node in started.nodes:
                node.peer.local_project.learn(some_rows(30, 1))
            await pulse(started)
            await synchronise(started)
            connection, subjects = started.nodes[1].peer._connection, started.nodes[1].peer._link.subjects
            for subject in (subjects.event("aggregate"), subjects.model("aggregate-1") + ".0"):
                with pytest.raises(ForbiddenSubjectError):
                    await store_message(connection, subject, b"forged")
            with pytest.raises(ForbiddenSubjectError):
                await ask_storage(connection, f"STREAM.DELETE.{subjects.event_stream}")
        finally:
            await started.close()

    folder = tmp_path / "broker"
    with running_broker(folder, config.replace("store_dir: jetstream", f'store_dir: "{folder}/jetstream"')) as broker:
        run(work(broker))


def test_a_broker_elsewhere_is_talked_to_without_tls_where_record_and_server_allow_it():
    entries = {"fed_name": "a", "sync_sched": "m1", "nats_hosts": "nats://192.0.2.1:4222", "fed_mode": "compat"}
    record = created_record(entries, MapContext(customer_id="c", project_id="p", allows_compat=True))
    settings = NatsFederationRuntime(allows_plaintext=True)._settings(record)
    assert (settings.hosts, settings.storage) == (("nats://192.0.2.1:4222",), "memory")
    native = replace(record, terms=replace(record.terms, mode=Mode.NATIVE))
    for refused, allows in ((record, False), (native, True)):
        with pytest.raises(FederationValueError, match="expected TLS"):
            NatsFederationRuntime(allows_plaintext=allows)._settings(refused)


def test_clocks_can_be_quick():
    async def work():
        clock = SystemClock(started_seconds=1000.0, speed=100.0)
        assert 1000 <= clock.now_seconds() < 1100
        await clock.sleep_until(1020.0)
        assert clock.now_seconds() >= 1020

    run(work())
