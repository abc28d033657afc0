"""Messages that come too late, over TLS and NATS: the coordinator takes and drops them, and their senders find out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asgi_server import serving
from nats_broker import FEDERATION, running_broker, serving_nats
from participant_driver import World, quick_settings, signing_key, wait_until, weights

from pet.coordinator.service import CoordinatorService
from pet.participant import AsyncParticipant, BackOff, Participant, Task, TickParticipant, spawn_participant, test_drive
from pet.participant.test_drive import DummyFleet
from pet.protocol.events import MessageAccepted, MessageRefused
from pet.protocol.phases import Phase
from pet.transports import asgi
from pet.transports.base import AsyncTransport, Transport
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.nats import AsyncNatsTransport, NatsSettings, NatsTransport, Subjects, connect

TLS = Path(__file__).parents[1] / "vectors" / "tls"
QUICK = BackOff(initial_seconds=0.005, max_seconds=0.02)


class Served(World):
    """A coordinator with a clock that is set, and the ways to it."""

    def __init__(self) -> None:
        super().__init__(quick_settings())
        self.outcomes: Counter[type] = Counter()
        self.engine.subscribe(lambda event: self.outcomes.update([type(event)]))
        self.open: Callable[[], Transport]
        self.open_async: Callable[[], contextlib.AbstractAsyncContextManager[AsyncTransport]]

    def pass_phase_if_ready(self) -> None:
        if self.engine.status()["accepted"] >= (3 if self.phase is Phase.UPDATE else 1):
            self.pass_phase()


class UpdateIsOver:
    """Participants who bring a round to sum2, and the identity of one whose update would have been taken before."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._transport = served.open()
        self._others = [TickParticipant(self._transport, signing_key=signing_key(number)) for number in range(12)]
        for participant in self._others:
            wait_until(lambda one=participant: one.tick() == [] or one.parameters is not None)
            participant.tick()
        late = self._others.pop(next(i for i, one in enumerate(self._others) if one.task is Task.UPDATE))
        self.key = late._machine._options.signing_key

    def go_to_sum2(self) -> None:
        def step() -> bool:
            for participant in self._others:
                participant.tick()
                if participant.should_set_model:
                    participant.set_model(weights(1))
            self._served.pass_phase_if_ready()
            return self._served.phase is Phase.SUM2

        wait_until(step, 60)

    def close(self) -> None:
        self._transport.close()


@pytest.fixture(params=["TLS", "NATS"])
def served(request, tmp_path, monkeypatch) -> Iterator[Served]:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "authority.pem"))
    served = Served()
    service = CoordinatorService(served.engine)
    if request.param == "TLS":
        pem = str(TLS / "server.pem")
        with serving(asgi.create_app(service), ssl_certfile=pem, ssl_keyfile=pem) as url:
            url = url.replace("http:", "https:")

            @contextlib.asynccontextmanager
            async def open_https():
                async with contextlib.aclosing(AsyncHttpTransport(url)) as transport:
                    yield transport

            served.open, served.open_async = lambda: HttpTransport(url), open_https
            yield served
    else:
        with running_broker(tmp_path / "broker") as broker:
            settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=30)

            @contextlib.asynccontextmanager
            async def open_nats():
                async with await connect(settings, "me") as connection:
                    yield AsyncNatsTransport(connection, Subjects(FEDERATION))

            served.open, served.open_async = lambda: NatsTransport(settings, FEDERATION), open_nats
            with serving_nats(service, settings):
                yield served


@pytest.fixture
def late(served) -> Iterator[UpdateIsOver]:
    with contextlib.closing(UpdateIsOver(served)) as others:
        yield others


def test_a_participant_that_is_ticked_says_that_its_update_is_late(served, late):
    with contextlib.closing(served.open()) as transport:
        participant = TickParticipant(transport, signing_key=late.key)

        def tick() -> bool:
            participant.tick()
            return participant.should_set_model

        wait_until(tick)
        late.go_to_sum2()
        participant.set_model(weights(1))
        wait_until(lambda: participant.tick() is None or participant.status.messages_late == 1)
    status = participant.status
    assert (status.phase, status.models_sent, served.outcomes[MessageRefused]) == ("awaiting", 0, 1)


def test_a_thread_says_that_its_update_is_late(served, late):
    begins, is_over = threading.Event(), threading.Event()

    class Slow(Participant):
        def train_round(self, _training_input):
            begins.set()
            assert is_over.wait(60)
            return weights(1)

    with contextlib.closing(served.open()) as transport:
        thread = spawn_participant(transport, Slow, signing_key=late.key, back_off=QUICK)
        assert begins.wait(60)
        late.go_to_sum2()
        is_over.set()
        wait_until(lambda: thread.status.messages_late == 1, 60)
        thread.stop()
    assert (thread.status.models_sent, served.outcomes[MessageRefused]) == (0, 1)
    assert thread.error is None


def test_an_asyncio_participant_says_that_its_update_is_late(served, late):
    async def take_part() -> tuple[int, int]:
        async with (
            asyncio.timeout(120),
            served.open_async() as transport,
            AsyncParticipant(transport, signing_key=late.key, back_off=QUICK) as participant,
        ):
            while not participant.is_model_wanted:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(late.go_to_sum2)
            participant.set_local_model(weights(1))
            while participant.status.messages_late == 0:
                await asyncio.sleep(0.005)
            return participant.status.models_sent, participant.status.messages_late

    assert asyncio.run(take_part()) == (0, 1)
    assert served.outcomes[MessageRefused] == 1


def test_a_fleet_counts_what_was_accepted_as_delivered_and_the_rest_as_late(monkeypatch, served):
    monkeypatch.setattr(test_drive, "_MAX_THREADS", 1)  # one after the other, so that the phase ends where it should

    class Closing:
        """Ends the update phase under the feet of the fourth update."""

        updates = 0

        def __getattr__(self, name):
            return getattr(transport, name)

        def send_message(self, body) -> None:
            if served.phase is Phase.UPDATE:
                self.updates += 1
                if self.updates == 4:
                    served.pass_phase()
            transport.send_message(body)

    def go_on(_) -> None:
        if served.phase is Phase.SUM2:
            fleet.stop()
        else:
            served.pass_phase_if_ready()

    with contextlib.closing(served.open()) as transport:
        fleet = DummyFleet(Closing(), 30, period_seconds=0)
        progress = fleet.run(None, go_on)
    assert progress.messages_delivered == served.outcomes[MessageAccepted]
    assert progress.messages_late == served.outcomes[MessageRefused] >= 1
