"""A broker that is killed, full, or refuses for a while: peers go on by themselves when it can be used again, and say why not.

Source: docs/spec/federation.md 5.1, 5.5.
"""

import asyncio

import pytest
from federation_rest_server import KEY, federation_server
from nats_broker import run, running_broker
from peer_driver import federation, pulse, some_rows, synchronise, until

from pet.errors import FederationError, FederationRefusedError, FederationUnavailableError
from pet.federation import Client
from pet.federation.peer.nats_runtime import NatsFederationRuntime
from pet.federation.records import Mode
from pet.secret import Secret
from pet.transports.nats import NatsSettings, connect
from pet.transports.nats.storage import ask_storage

MIB = 2**20


def with_password(password):
    return f'authorization {{ user: "federation", password: "{password}" }}\n'


def restart(broker, old="", new=""):
    """Kill a broker and start it again with a changed configuration."""
    broker.kill()
    broker.config.write_text(broker.config.read_text().replace(old, new))
    broker.start()


async def require_synchronised(started, rows):
    """Let everybody learn, and see the result spread."""
    for number, node in enumerate(started.nodes):
        node.peer.local_project.learn(some_rows(rows, rows + number))
    await synchronise(started)


def states(started):
    return [node.peer.broker_state for node in started.nodes]


def test_a_broker_that_refuses_for_a_while_delays_peers_that_run_and_peers_that_start(tmp_path):
    async def work(broker):
        options = {"user": "federation", "password": Secret("right-secret")}
        async with federation(broker.url, tmp_path / "peers", broker_options=options) as started:
            await pulse(started)
            assert states(started) == ["connected"] * 3
            await require_synchronised(started, 40)
            stopped = started.nodes[2]
            await stopped.peer.close()
            await asyncio.to_thread(restart, broker, "right-", "other-")
            again = await started.restart(stopped)
            await until(lambda: all("Authorization Violation" in state for state in states(started)), 60)
            assert all("trying again" in state for state in states(started))
            with pytest.raises(FederationUnavailableError, match="Authorization Violation"):
                await again.peer.request_full_sync()
            for node in started.nodes:
                assert node.log().count("The broker cannot be used, trying again") == 1
                assert "secret" not in node.log()
            await asyncio.to_thread(restart, broker, "other-", "right-")
            await until(lambda: states(started) == ["connected"] * 3, 60)
            await require_synchronised(started, 50)

    with running_broker(tmp_path / "broker", with_password("right-secret")) as broker:
        run(work(broker), 150)


@pytest.mark.parametrize("is_restarted", [False, True], ids=["the peers run", "the admin starts"])
def test_a_broker_without_room_for_the_streams_delays_the_federation(tmp_path, is_restarted):
    """Streams in memory are gone when the broker was killed; meanwhile something else has taken their room."""

    async def work(broker):
        options = {"stream_max_bytes": 32 * MIB}
        async with federation(broker.url, tmp_path / "peers", mode=Mode.COMPAT, broker_options=options) as started:
            await pulse(started)
            await require_synchronised(started, 40)
            if is_restarted:
                await started.admin.peer.close()
            broker.kill()
            settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=5)
            hog = {"name": "HOG", "subjects": ["hog"], "storage": "memory", "max_bytes": 40 * MIB}
            await asyncio.to_thread(broker.start)
            async with await connect(settings, "hog") as connection:
                while "error" in await create_hog(connection, hog):
                    await asyncio.sleep(0.05)
                if is_restarted:
                    await started.restart(started.admin)
                await until(lambda: "insufficient" in started.admin.peer.broker_state, 60)
                assert "insufficient" in started.admin.log()
                await ask_storage(connection, "STREAM.DELETE.HOG")
            await until(lambda: states(started) == ["connected"] * 3, 60)
            await require_synchronised(started, 50)

    async def create_hog(connection, config):
        """Take the room, before or after the streams of the federation: those are deleted then."""
        names = (await ask_storage(connection, "STREAM.NAMES")).get("streams") or []
        for name in names:
            await ask_storage(connection, f"STREAM.DELETE.{name}")
        try:
            return await ask_storage(connection, "STREAM.CREATE.HOG", config)
        except OSError:
            return {"error": "the federation was faster"}

    storage = f'jetstream {{ store_dir: "{tmp_path}/jetstream", max_mem: 48M, max_file: 1M }}'
    with running_broker(tmp_path / "broker", storage) as broker:
        run(work(broker), 150)


def test_a_nearly_full_broker_has_room_for_those_who_return_and_nothing_of_who_is_refused(tmp_path):
    """Room for one federation of the default size, and a half: calls over REST, and the server is started again."""
    storage = f'jetstream {{ store_dir: "{tmp_path}/jetstream", max_file: 1500M, max_mem: 1M }}'
    with running_broker(tmp_path / "broker", storage) as broker:
        for is_first in (True, False):
            with (
                federation_server(tmp_path / "state", runtime=NatsFederationRuntime()) as url,
                Client(url, "c1", KEY) as client,
            ):
                if is_first:
                    client.create("first", "f", nats_hosts=broker.url)
                run(until_connected(client, "first"))
                for number in range(3):
                    with pytest.raises(FederationError, match="insufficient storage resources"):
                        client.create(f"second{number}", "f", nats_hosts=broker.url)
                assert client.projects() == ["first"]
                assert run(stream_count(broker)) == 3
        with (
            federation_server(tmp_path / "state", runtime=NatsFederationRuntime()) as url,
            Client(url, "c1", KEY) as client,
        ):
            run(until_connected(client, "first"))
            client.delete("first")
            client.create("second", "f", nats_hosts=broker.url)


async def until_connected(client, project):
    while (await asyncio.to_thread(client.info, project))["nats_state"] != "connected":
        await asyncio.sleep(0.05)


async def stream_count(broker):
    async with await connect(NatsSettings(hosts=(broker.url,), request_timeout_seconds=5), "look") as connection:
        return (await ask_storage(connection, "STREAM.NAMES"))["total"]


def test_the_stored_credential_of_the_broker_is_changed(tmp_path):
    """One that the broker refuses changes nothing; the right one is used at once, and by everybody who is invited later."""
    with (
        running_broker(tmp_path / "broker", with_password("first-secret")) as broker,
        federation_server(tmp_path / "state", runtime=NatsFederationRuntime()) as url,
        Client(url, "c1", KEY) as client,
    ):
        client.create("mine", "f", nats_hosts=broker.url, nats_sec_user="federation", nats_sec_passwd="first-secret")
        client.start_pulse("mine")
        restart(broker, "first", "second")
        run(until_refused(client))
        for wrong in ({"nats_sec_passwd": "wrong-secret"}, {"nats_sec_token": "wrong-secret"}, {}, {"nats_max": "1"}):
            user = {"nats_sec_user": "federation"} if "nats_sec_passwd" in wrong else {}
            with pytest.raises(FederationRefusedError) as refused:
                client.set_credentials("mine", **wrong, **user)
            assert "secret" not in str(refused.value)
        assert "Authorization Violation" in client.info("mine")["nats_state"]
        client.set_credentials("mine", nats_sec_user="federation", nats_sec_passwd="second-secret")
        run(until_connected(client, "mine"))
        assert client.info("mine")["is_pulsing"] is True
        client.join("other", *client.invite("mine"))
        client.set_credentials("other", nats_hosts=f"{broker.url},nats://127.0.0.1:1")
        run(until_connected(client, "other"))
        assert client.info("other")["nats_hosts"] == f"{broker.url},nats://127.0.0.1:1"


async def until_refused(client):
    while "Authorization Violation" not in (await asyncio.to_thread(client.info, "mine"))["nats_state"]:
        await asyncio.sleep(0.05)
