"""A coordinator whose key is pinned, over a real nats-server: a forger with the shared credential learns nothing.

Without the key it reads models: that is shown too, so that the refusals prove something.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace

import nats
import numpy as np
import pytest
from hostile_coordinators import BrokerForger, FalseRound
from nats_broker import run, running_broker
from participant_driver import SetClock, live_settings, quick_settings

from pet import cli
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.service import CoordinatorService
from pet.crypto import SigningKeyPair
from pet.errors import CoordinatorKeyError, MissingError, OtherRoundError, TransportError
from pet.participant import AsyncTickParticipant
from pet.participant.test_drive import DummyFleet
from pet.transports.nats import AsyncNatsTransport, NatsServer, NatsSettings, NatsTransport, Subjects, connect
from pet.transports.nats.answers import encode_answer
from pet.transports.nats.frames import decode_chunk
from pet.transports.signed_answers import SIGNATURE_HEADER, AnswerSigner

KEY = SigningKeyPair.from_seed(bytes(range(32)))
FEDERATION, OTHER_FEDERATION = "abcdefghij012345", "zyxwvutsrq012345"
SECRET = np.array([0.125, -0.5, 0.75, 0.25], np.float32)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with running_broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@dataclass
class Served:
    """A coordinator at the broker, and somebody who has the credential that all share."""

    engine: CoordinatorEngine
    server: NatsServer
    connection: object
    subjects: Subjects
    client: nats.NATS
    forger: BrokerForger

    def transport(self, key: bytes | None) -> AsyncNatsTransport:
        return AsyncNatsTransport(self.connection, self.subjects, coordinator_key=key)


@contextlib.asynccontextmanager
async def served(broker, settings, *, federation=FEDERATION, signer=True, clock=None):
    subjects = Subjects(federation)
    nats_settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=10)
    engine = CoordinatorEngine(settings, **({} if clock is None else {"clock": clock}))
    service = CoordinatorService(engine)
    client = await nats.connect(broker.url)
    try:
        async with (
            service,
            await connect(nats_settings, "coordinator") as own,
            NatsServer(service, own, subjects, signer=AnswerSigner(KEY) if signer else None) as server,
            await connect(nats_settings, "victim") as connection,
        ):
            yield Served(engine, server, connection, subjects, client, BrokerForger(client, subjects))
    finally:
        await client.close()


async def eventually(attempt, seconds=30):
    """Repeat something until it raises no TransportError; what is published follows what happens a moment later."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await attempt()
            except TransportError:
                await asyncio.sleep(0.02)


async def overhear_updates(served: Served, false: FalseRound) -> None:
    """Read every chunk that passes the broker, as its operator can."""

    async def hear(message) -> None:
        if ".rx." in message.subject:
            false.read(bytes(decode_chunk(message.data)[1]))

    await served.client.subscribe(f"{served.subjects.prefix}>", cb=hear)
    await served.client.flush()


@pytest.mark.parametrize("keeps_signature", [True, False])
def test_a_forger_reads_who_pins_no_key_and_nobody_else(broker, keeps_signature):
    settings = quick_settings()
    false = FalseRound(settings.mask_config, 4)

    async def play() -> None:
        async with served(broker, settings) as here:
            await overhear_updates(here, false)
            await here.forger.forge(false, keeps_signature=keeps_signature)
            pinned = AsyncTickParticipant(here.transport(None), coordinator_key=KEY.public_key)
            for _ in range(6):
                await pinned.tick()
            assert isinstance(pinned.last_error, CoordinatorKeyError)
            assert pinned.parameters is None
            assert not false.stolen
            victim = AsyncTickParticipant(here.transport(None))
            async with asyncio.timeout(30):
                while not false.stolen:
                    await victim.tick()
                    if victim.should_set_model:
                        victim.set_model(SECRET)
            assert np.allclose(false.stolen[0], SECRET, atol=1e-6)

    run(play())


def test_only_events_of_this_federation_question_and_round_are_taken(broker):
    settings = quick_settings()
    settings = replace(settings, sum=replace(settings.sum, max_seconds=500.0))
    clock = SetClock()

    async def play() -> None:
        async with (
            served(broker, settings, clock=clock) as here,
            served(broker, settings, federation=OTHER_FEDERATION) as elsewhere,
        ):
            transport, forger = here.transport(KEY.public_key), here.forger
            first = await transport.get_parameters()
            assert await transport.get_sums() is None
            assert await transport.get_model() is None
            assert await transport.get_seeds(bytes(32)) is None
            old = {name: await forger.stored(name) for name in ("parameters", "sums", "model")}

            async def refuse(name: str, error: type[Exception], data: bytes, headers: dict[str, str] | None) -> None:
                before = await forger.stored(name)
                await forger.replay(name, data, headers)
                with pytest.raises(error):
                    await getattr(transport, f"get_{name}")()
                await forger.replay(name, *before)

            for name in ("parameters", "sums", "model"):
                await refuse(name, CoordinatorKeyError, *await elsewhere.forger.stored(name))
                await refuse(name, CoordinatorKeyError, old[name][0], None)
            await refuse("sums", CoordinatorKeyError, *old["model"])  # the same bytes: "there is none"

            clock.now_seconds += 1000  # nobody joined: the next round takes its place
            here.engine.tick()

            async def next_round() -> bytes:
                if (parameters := await transport.get_parameters()) == first:
                    raise MissingError
                return parameters

            await eventually(next_round)
            assert await eventually(transport.get_sums) is None
            assert await transport.get_model() is None  # signed for this round, too
            for name in ("parameters", "sums", "model"):
                await refuse(name, OtherRoundError, *old[name])

    run(play())


def test_the_answer_to_one_participant_is_signed_too(broker):
    """Who answers faster than the coordinator, or in its place, is not believed."""

    async def play() -> None:
        async with served(broker, quick_settings()) as here:
            transport = here.transport(KEY.public_key)
            await transport.get_parameters()
            answer = await here.client.request(here.subjects.ask("other"), b"seeds:" + bytes(32), timeout=30)
            signed = answer.headers[SIGNATURE_HEADER]
            await here.server._connection.unsubscribe(here.server._asking)  # the adversary is faster each time
            header = {SIGNATURE_HEADER: signed}
            answers = [(b"\x00", None), (encode_answer(b"seeds"), header), (b"\x00", header)]
            given = []

            async def answer_first(message) -> None:
                data, headers = answers[len(given)]
                given.append(message.data)
                await here.client.publish(message.reply, data, headers=headers)
                await here.client.flush()

            await here.client.subscribe(here.subjects.ask_all, cb=answer_first)
            for _ in range(2):  # the library's first ping may overtake the subscription
                await here.client.flush()
            for key in (bytes(32), bytes(32), bytes([1]) * 32):  # the last gets what is true for another
                with pytest.raises(CoordinatorKeyError):
                    await transport.get_seeds(key)
            assert len(given) == 3

    run(play())


def test_dummies_that_pin_the_key_finish_rounds_and_commands_take_it(broker, tmp_path, capsys):
    """Whole rounds, each with a model that is signed once more in the next one, and with large answers by reference."""

    async def play() -> None:
        async with served(broker, live_settings(sum_probability=0.4, length=40_000)):
            await asyncio.to_thread(take_part)

    def take_part() -> None:
        settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=10)
        with contextlib.closing(NatsTransport(settings, FEDERATION, coordinator_key=KEY.public_key.hex())) as transport:
            assert DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(2).rounds_finished == 2
        other = SigningKeyPair.generate().public_key.hex()
        arguments = ["model", "get", "-o", str(tmp_path / "m.npy"), "-u", f"{broker.url}/{FEDERATION}", "--coordinator-key"]
        assert cli.run([*arguments, KEY.public_key.hex()]) == 0
        assert cli.run([*arguments, other]) == 1
        assert "expected a signature of this answer by the coordinator key" in capsys.readouterr().err

    run(play(), 120)


def test_a_model_is_stored_once_and_signed_in_each_round(broker):
    settings = live_settings(sum_probability=0.4)

    async def play() -> None:
        async with served(broker, settings) as here:
            settings_there = NatsSettings(hosts=(broker.url,), request_timeout_seconds=10)
            transport = NatsTransport(settings_there, FEDERATION, coordinator_key=KEY.public_key)
            await asyncio.to_thread(lambda: DummyFleet(transport, 8, weight=0.25, period_seconds=0.02).run(1))
            await asyncio.to_thread(transport.close)
            own = here.transport(KEY.public_key)

            async def model_of_round() -> tuple[bytes, tuple[bytes, dict[str, str]]]:
                parameters = await own.get_parameters()
                assert await own.get_model() is not None
                return parameters, await here.forger.stored("model")

            first, (reference, headers) = await eventually(model_of_round)

            async def in_the_next_round() -> tuple[bytes, dict[str, str]]:
                parameters, stored = await model_of_round()
                if parameters == first:
                    raise MissingError
                return stored

            later_reference, later_headers = await eventually(in_the_next_round, 60)
            assert headers[SIGNATURE_HEADER] != later_headers[SIGNATURE_HEADER]
            assert later_reference == reference

    run(play(), 120)


def test_a_coordinator_without_a_key_is_refused_by_who_pins_one(broker):
    async def play() -> None:
        async with served(broker, quick_settings(), signer=False) as here:
            transport = here.transport(KEY.public_key)
            for ask in (transport.get_parameters, transport.get_sums, transport.get_model):
                with pytest.raises(CoordinatorKeyError, match="in the header Pet-Signature, got none"):
                    await ask()
            with pytest.raises(CoordinatorKeyError, match="got none"):
                await transport.get_seeds(bytes(32))
            assert await here.transport(None).get_parameters()

    run(play())
