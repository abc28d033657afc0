"""Brokers that let little through: everything works, or the error names the broker's `max_payload` and what it has to be."""

import re

import pytest
from nats_broker import run, running_broker
from nats_uploads import Keeper, receiving, send, some_bytes
from peer_driver import federation, pulse, synchronise, until

from pet.errors import FederationValueError, TransportConfigError
from pet.transports.nats import Broadcasts, NatsSettings, Subjects, connect, generate_federation_id
from pet.transports.nats.kept_session import MIN_PAYLOAD_BYTES

NEEDED = re.compile(r"max_payload is (\d+) or more, got ")


def settings_for(broker, **options):
    return NatsSettings(hosts=(broker.url,), request_timeout_seconds=5, **options)


@pytest.mark.parametrize("max_payload", [512, 4096, MIN_PAYLOAD_BYTES - 1])
def test_a_broker_without_room_for_a_chunk_is_refused_by_name(tmp_path, max_payload):
    async def work():
        with pytest.raises(TransportConfigError, match=rf"max_payload is {MIN_PAYLOAD_BYTES} bytes or more, got {max_payload}"):
            await connect(settings_for(broker), "alice")

    with running_broker(tmp_path, f"max_payload: {max_payload}", jetstream=False) as broker:
        run(work())


@pytest.mark.parametrize(("max_payload", "chunk_bytes"), [(MIN_PAYLOAD_BYTES, 2**20), (8192, 2**20), (2**20, 1024)])
def test_large_messages_go_through_in_small_chunks(tmp_path, max_payload, chunk_bytes):
    body = some_bytes(50_000)

    async def work():
        settings, subjects = settings_for(broker, chunk_bytes=chunk_bytes), Subjects(generate_federation_id())
        async with await connect(settings, "alice") as connection:
            assert 1024 <= connection.max_chunk_bytes <= max_payload - 4096
            broadcasts = Broadcasts(connection, subjects)
            await broadcasts.create_streams()
            reference = await broadcasts.publish_blob(subjects.model("1"), body)
            assert bytes(await broadcasts.fetch_blob(reference, len(body))) == body
            async with receiving(broker, keeper := Keeper(), settings=settings) as place:
                await send(connection, place, body)
            assert keeper.bodies == [body]
            with pytest.raises(TransportConfigError, match=f"{max_payload} bytes, which is the broker's max_payload"):
                await connection.request("place", bytes(max_payload))

    with running_broker(tmp_path, f"max_payload: {max_payload}") as broker:
        run(work())


@pytest.mark.parametrize(("max_payload", "uses_smpc"), [(5200, False), (2**14, True)])
def test_a_federation_works_with_what_its_error_asks_for(tmp_path, max_payload, uses_smpc):
    """With SMPC a leaf of a vector goes through in one message, else what all peers know."""

    async def create(url, folder):
        async with federation(url, tmp_path / folder, 1, uses_smpc=uses_smpc):
            pass

    async def use(url):
        async with federation(url, tmp_path / "all", 3, uses_smpc=uses_smpc) as started:
            for node in started.nodes:
                node.peer.local_project.learn({"age": [50.0] * 9, "ill": [1.0] * 9, "weight": [70.0] * 9})
            await pulse(started)
            if uses_smpc:
                await synchronise(started)
                return
            for node in started.nodes:
                await node.peer._syncs.exchange.publish(whole=True)
            await until(lambda: all(node.peer.federated_project.row_count == 27 for node in started.nodes))

    needed = max_payload
    with running_broker(tmp_path / "small", f"max_payload: {max_payload}") as broker:
        try:
            run(create(broker.url, "first"))
        except FederationValueError as error:
            needed = int(NEEDED.search(str(error))[1])
    with running_broker(tmp_path / "exact", f"max_payload: {needed}") as broker:
        run(create(broker.url, "second"))
    with running_broker(tmp_path / "enough", f"max_payload: {needed + 2000}") as broker:  # three peers have longer terms
        run(use(broker.url))
