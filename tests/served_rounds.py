"""A real coordinator with a clock that is set, served over HTTP, TLS or NATS, and participants who bring its round on."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asgi_server import serving
from nats_broker import FEDERATION, running_broker, serving_nats
from participant_driver import World, quick_settings, signing_key, wait_until, weights

from pet.coordinator.service import CoordinatorService
from pet.crypto import SigningKeyPair
from pet.participant import Task, TickParticipant
from pet.protocol.phases import Phase
from pet.transports import asgi
from pet.transports.base import AsyncTransport, Transport
from pet.transports.http import AsyncHttpTransport, HttpTransport
from pet.transports.http_options import TlsOptions
from pet.transports.nats import AsyncNatsTransport, NatsSettings, NatsTransport, Subjects, connect

TLS = Path(__file__).parent / "vectors" / "tls"
WAYS = ["HTTP", "TLS", "NATS"]


class Served(World):
    """The coordinator, the outcome of messages, and how a way to it is opened."""

    def __init__(self, length: int = 4) -> None:
        super().__init__(quick_settings(length=length))
        self.outcomes: Counter[type] = Counter()
        self.engine.subscribe(lambda event: self.outcomes.update([type(event)]))
        self.open: Callable[[], Transport]
        self.open_async: Callable[[], contextlib.AbstractAsyncContextManager[AsyncTransport]]

    def pass_phase_if_ready(self) -> None:
        if self.engine.status()["accepted"] >= (3 if self.phase is Phase.UPDATE else 1):
            self.pass_phase()


@contextlib.contextmanager
def served_over(way: str, folder: Path, length: int = 4) -> Iterator[Served]:
    served = Served(length)
    service = CoordinatorService(served.engine)
    with contextlib.ExitStack() as stack:
        if way == "NATS":
            broker = stack.enter_context(running_broker(folder / "broker"))
            settings = NatsSettings(hosts=(broker.url,), request_timeout_seconds=30)
            served.open = lambda: NatsTransport(settings, FEDERATION)
            served.open_async = lambda: _open_nats(settings)
            stack.enter_context(serving_nats(service, settings))
        else:
            pem = str(TLS / "server.pem")
            options: dict[str, Any] = {"ssl_certfile": pem, "ssl_keyfile": pem} if way == "TLS" else {}
            trusted = TlsOptions(trusted_certificate=TLS / "authority.pem") if way == "TLS" else None
            url = stack.enter_context(serving(asgi.create_app(service), **options))
            url = url.replace("http:", "https:") if way == "TLS" else url
            served.open = lambda: HttpTransport(url, tls=trusted)
            served.open_async = lambda: contextlib.aclosing(AsyncHttpTransport(url, tls=trusted))
        yield served


@contextlib.asynccontextmanager
async def _open_nats(settings: NatsSettings):
    async with await connect(settings, "me") as connection:
        yield AsyncNatsTransport(connection, Subjects(FEDERATION))


class Others:
    """Participants who bring a round on, and the identity of one more who has an update task in it."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._transport = served.open()
        self._participants = [TickParticipant(self._transport, signing_key=signing_key(number)) for number in range(12)]
        for participant in self._participants:
            wait_until(lambda one=participant: one.tick() == [] or one.parameters is not None)
            participant.tick()
        chosen = next(number for number, one in enumerate(self._participants) if one.task is Task.UPDATE)
        self._participants.pop(chosen)
        self.update_key: SigningKeyPair = signing_key(chosen)

    def go_to(self, phase: Phase) -> None:
        def step() -> bool:
            if self._served.phase is phase:
                return True
            for participant in self._participants:
                participant.tick()
                if participant.should_set_model:
                    participant.set_model(weights(1, participant.local_model_config.length))
            self._served.pass_phase_if_ready()
            return False

        wait_until(step, 60)

    def close(self) -> None:
        self._transport.close()
