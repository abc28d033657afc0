"""The broker's configuration of docs/nats.md, as it stands there: a round works, and nobody can do more than take part."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import nkeys
import pytest
from nats_broker import run, running_broker
from participant_driver import live_settings

from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.errors import CredentialsError, ForbiddenSubjectError
from pet.model_formats import decode_npy
from pet.participant.test_drive import DummyFleet
from pet.transports.nats import (
    AsyncNatsTransport,
    Broadcasts,
    NatsServer,
    NatsSettings,
    NatsTransport,
    Subjects,
    connect,
    store_upload,
)
from pet.transports.nats.storage import ask_storage

PAGE = (Path(__file__).parents[2] / "docs" / "nats.md").read_text()
CONFIG = re.search(r"```\n(jetstream \{.*?)```", PAGE, re.DOTALL)[1]
FEDERATION = "abcdefghij012345"
NAMES = {3: "coordinator", 4: "participant1", 5: "participant2"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broker")
    with running_broker(folder, CONFIG.replace("/var/lib/nats", str(folder))) as broker:
        yield broker


def settings_of(broker, number, **options):
    """Settings with the seed that belongs to a public key of the page."""
    seed = nkeys.encode_seed(bytes([number]) * 32, nkeys.PREFIX_BYTE_USER).decode()
    return NatsSettings(hosts=(broker.url,), request_timeout_seconds=5, nkey_seed=seed, **options)


@pytest.mark.parametrize("mode", ["direct", pytest.param("stream", marks=pytest.mark.long)])
def test_rounds_work_with_these_rights(broker, mode):
    async def use():
        service = CoordinatorService(CoordinatorEngine(live_settings(sum_probability=0.4)))
        settings = settings_of(broker, 3, mode=mode)
        async with (
            service,
            await connect(settings, NAMES[3]) as connection,
            NatsServer(service, connection, Subjects(FEDERATION)),
        ):
            progress = await asyncio.to_thread(play)
            assert progress.rounds_finished == 1

    def play():
        transport = NatsTransport(settings_of(broker, 4, mode=mode), FEDERATION, peer=NAMES[4])
        try:
            progress = DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(1)
            assert abs(decode_npy(transport.get_model()[1]) - 0.25).max() < 1e-6
        finally:
            transport.close()
        return progress

    run(use())


def test_a_participant_can_do_nothing_else(broker):
    async def use():
        subjects = Subjects(FEDERATION)
        async with (
            await connect(settings_of(broker, 3), NAMES[3]) as admin,
            await connect(settings_of(broker, 4), NAMES[4]) as peer,
        ):
            await Broadcasts(admin, subjects).create_streams()
            stream = subjects.broadcast_stream
            for forbidden in (
                subjects.open("participant2"),
                subjects.ask("participant2"),
                subjects.upload("participant2", "00") + ".0",
                subjects.event("parameters"),
                subjects.model("1") + ".0",
                subjects.control("participant2"),
                f"$JS.API.STREAM.DELETE.{stream}",
                f"$JS.API.STREAM.MSG.GET.{subjects.upload_stream}",
                f"$JS.API.CONSUMER.CREATE.{stream}",
                "$JS.API.INFO",
                "_INBOX_participant2.1",
                "pet.v1.another000000000.open.participant1",
            ):
                with pytest.raises(ForbiddenSubjectError):
                    await peer.request(forbidden)
            for forbidden in (
                subjects.prefix + "rx.*",
                subjects.prefix + "up.>",
                "_INBOX_participant2.>",
                subjects.prefix + ">",
            ):
                with pytest.raises(ForbiddenSubjectError):
                    await peer.subscribe(forbidden, None)

    run(use())


def test_an_answer_goes_to_inboxes_only(broker):
    """Who asks chooses where the answer goes; the coordinator's rights must not be lent to that."""

    async def use():
        subjects = Subjects(FEDERATION)
        service = CoordinatorService(CoordinatorEngine(live_settings()))
        async with (
            service,
            await connect(settings_of(broker, 3), NAMES[3]) as connection,
            NatsServer(service, connection, subjects),
            await connect(settings_of(broker, 4), NAMES[4]) as peer,
        ):
            before = await AsyncNatsTransport(peer, subjects).get_parameters()
            client = peer._session.client
            for reply in (f"$JS.API.STREAM.DELETE.{subjects.event_stream}", subjects.event("parameters")):
                await client.publish(subjects.ask(NAMES[4]), b"nonsense", reply=reply)
                await client.publish(subjects.open(NAMES[4]), b"nonsense", reply=reply)
            await asyncio.sleep(0.2)
            assert await AsyncNatsTransport(peer, subjects).get_parameters() == before
            record = await ask_storage(connection, f"STREAM.INFO.{subjects.event_stream}")
            assert record["config"]["name"] == subjects.event_stream

    run(use())


def test_other_keys_are_refused(broker):
    async def use():
        with pytest.raises(CredentialsError):
            await connect(settings_of(broker, 6), NAMES[4])

    run(use())


def test_a_participant_cannot_read_what_another_stored(broker):
    async def use():
        subjects = Subjects(FEDERATION)
        async with (
            await connect(settings_of(broker, 3), NAMES[3]) as admin,
            await connect(settings_of(broker, 4), NAMES[4]) as peer,
            await connect(settings_of(broker, 5), NAMES[5]) as other,
        ):
            await Broadcasts(admin, subjects).create_streams()
            await store_upload(peer, subjects, NAMES[4], b"sealed", kind="pet", patience_seconds=1)
            for call in (f"STREAM.MSG.GET.{subjects.upload_stream}", f"CONSUMER.CREATE.{subjects.upload_stream}"):
                with pytest.raises(ForbiddenSubjectError):
                    await ask_storage(other, call, {"seq": 1})

    run(use())


def test_the_example_of_the_page(broker, tmp_path):
    with running_broker(tmp_path) as plain:
        (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        names = {}
        exec(compile(code.replace("nats://127.0.0.1:4222", plain.url), "docs/nats.md", "exec"), names)

        async def use():
            service = CoordinatorService(CoordinatorEngine(live_settings()))
            assert await names["serve_and_look"](service) == service.engine.parameters()

        run(use())
