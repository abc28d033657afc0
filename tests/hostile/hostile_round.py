"""Honest participants with an address, or a user of the broker, each: they play rounds while others attack the coordinator."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import numpy as np
from hostile_servers import FEDERATION_ID, Server
from sealed_rounds import SealedRound, seeds_path

from pet.errors import TransportError
from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.model_formats import NPY
from pet.transports.nats import NatsSettings, NatsTransport

#: How long an honest participant goes on asking.
_PATIENCE_SECONDS: Final = 120.0


class Participant(Protocol):
    """What sends the messages of one key."""

    def sums(self) -> bytes:
        """Return the encoded sum dictionary, once there is one."""
        ...

    def seeds(self, public_key: bytes) -> bytes:
        """Return the encoded seed dictionary of a sum participant, once there is one."""
        ...

    def send(self, body: bytes | bytearray) -> None:
        """Deliver a message."""
        ...


class HttpParticipant:
    """One address, and patience.

    Attributes:
        refused: how many of its requests were refused, or got no answer.
    """

    def __init__(self, server: Server, source: str) -> None:
        self._server, self._source = server, source
        self.refused = 0

    def sums(self) -> bytes:
        """See `Participant`."""
        return self.get("/sums")

    def seeds(self, public_key: bytes) -> bytes:
        """See `Participant`."""
        return self.get(seeds_path(public_key))

    def send(self, body: bytes | bytearray) -> None:
        """See `Participant`."""
        self._ask("POST", "/message", body, {})

    def get(self, path: str, **headers: str) -> bytes:
        """Return the body of an answer, once there is one."""
        return self._ask("GET", path, None, headers)

    def figures(self) -> dict[str, float]:
        """Return the metrics of the server, by name and labels."""
        text = self.get("/metrics").decode()
        return {name: float(value) for name, value in re.findall(r"^(\w[^#\n]*?) ([-+.\w]+)$", text, re.MULTILINE)}

    def _ask(self, method: str, path: str, body: bytes | bytearray | None, headers: dict[str, str]) -> bytes:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(self._connect()) as connection:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                data = answer.read()
                if answer.status == 200:
                    return data
                if answer.status == 204:
                    time.sleep(0.05)
                    continue
            self.refused += 1
            time.sleep(0.2)
        raise AssertionError(f"{self._source}: expected an answer to {method} {path} within two minutes")

    def _connect(self) -> http.client.HTTPConnection:
        options: dict[str, Any] = {"timeout": 30, "source_address": (self._source, 0)}
        if self._server.context is None:
            return http.client.HTTPConnection(*self._server.address, **options)
        return http.client.HTTPSConnection(*self._server.address, context=self._server.context, **options)


class NatsParticipant:
    """One user of the broker.

    Attributes:
        refused: how many of its calls failed and were repeated.
    """

    def __init__(self, transport: NatsTransport) -> None:
        self._transport = transport
        self.refused = 0

    def sums(self) -> bytes:
        """See `Participant`."""
        return self._until_there(self._transport.get_sums)

    def seeds(self, public_key: bytes) -> bytes:
        """See `Participant`."""
        return self._until_there(lambda: self._transport.get_seeds(public_key))

    def send(self, body: bytes | bytearray) -> None:
        """See `Participant`."""
        self._until_there(lambda: self._transport.send_message(body) or b"delivered")

    def _until_there(self, call: Any) -> bytes:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = call()
            except TransportError:
                self.refused += 1
                time.sleep(0.2)
                continue
            if answer is not None:
                return bytes(answer)
            time.sleep(0.05)
        raise AssertionError("expected an answer over NATS within two minutes")


@contextlib.contextmanager
def participants(server: Server, over_http: int, over_nats: int = 0) -> Iterator[list[Participant]]:
    """Yield honest participants: the first ones have loopback addresses, the others users of the broker."""
    with contextlib.ExitStack() as stack:
        found: list[Participant] = [HttpParticipant(server, f"127.0.1.{number + 1}") for number in range(over_http)]
        for number in range(over_nats):
            name = f"participant{number + 1}"
            assert server.broker is not None
            settings = NatsSettings(hosts=(server.broker.url,), user=name, password=name, request_timeout_seconds=30)
            found.append(
                NatsParticipant(stack.enter_context(contextlib.closing(NatsTransport(settings, FEDERATION_ID, peer=name))))
            )
        yield found


def play_round(server: Server, senders: Sequence[Participant], length: int) -> int:
    """Play one round with an update of each participant; returns how many of their requests were refused.

    Raises:
        AssertionError: the model is not the mean of them, or a participant gets nowhere.
    """
    before, observer = sum(sender.refused for sender in senders), HttpParticipant(server, "127.0.2.1")
    completed = json.loads(observer.get("/status"))["rounds_completed"]
    round_ = SealedRound(observer.get("/params"))
    sum_keys = round_.keys("sum", 2)
    for sender, key in zip(senders, sum_keys, strict=False):
        sender.send(round_.sum(key))
    base = np.linspace(-1, 1, length, dtype=np.float32)

    def update(place: int, sender: Participant, key: Any) -> None:
        sums = decode_sum_dictionary(sender.sums())
        while set(sums) != {key.public_key for key in sum_keys}:  # a broker shows those of the last round for a moment
            time.sleep(0.05)
            sums = decode_sum_dictionary(sender.sums())
        sender.send(round_.update(key, sums, base * np.float32((place + 1) / 32)))

    with ThreadPoolExecutor(4) as threads:
        keys = round_.keys("update", len(senders))
        updates = [threads.submit(update, place, *pair) for place, pair in enumerate(zip(senders, keys, strict=True))]
        for one in updates:
            one.result()
    for sender, key in zip(senders, sum_keys, strict=False):
        seeds = decode_seed_dictionary(sender.seeds(key.public_key))
        assert len(seeds) == len(senders)
        sender.send(round_.sum2(key, list(seeds.values())))
    while json.loads(observer.get("/status"))["rounds_completed"] == completed:
        time.sleep(0.05)
    model = np.load(io.BytesIO(observer.get("/model", Accept=NPY)), allow_pickle=False)
    mean = base.astype(np.float64) * (sum(range(1, len(senders) + 1)) / len(senders) / 32)
    assert float(np.abs(model - mean).max()) < 1e-6
    return sum(sender.refused for sender in senders) - before
