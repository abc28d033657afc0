"""The requests of a round, made before the clock runs, and a sender that costs little beside the coordinator it measures.

Used by beside_another_coordinator.py.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import time
from typing import Any

from pet.crypto import SUM_TASK, UPDATE_TASK, EncryptionKeyPair, SigningKeyPair, is_eligible, open_sealed, seal, sign_task
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model
from pet.messages import Message, RoundParameters, Sum2Payload, SumPayload, UpdatePayload, seal_message

#: How long an answer may take.
PATIENCE_SECONDS = 600


def draw_keys(parameters: RoundParameters, count: int, *, is_sum: bool) -> list[SigningKeyPair]:
    """Draw keys until there are enough that have a task in a round."""
    keys: list[SigningKeyPair] = []
    while len(keys) < count:
        key = SigningKeyPair.generate()
        if is_eligible(sign_task(key, parameters.seed, SUM_TASK), parameters.sum_probability) == is_sum:
            keys.append(key)
    return keys


def sealed(parameters: RoundParameters, key: SigningKeyPair, payload: SumPayload | UpdatePayload | Sum2Payload) -> bytes:
    """Return the whole request with a message."""
    message = Message(
        participant_public_key=key.public_key,
        coordinator_public_key=parameters.coordinator_public_key,
        payload=payload,
        tag=payload.tag,
    )
    body = seal_message(message, key)
    head = f"POST /message HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def sum_request(parameters: RoundParameters, key: SigningKeyPair, ephemeral: EncryptionKeyPair) -> bytes:
    """Return the request of a sum participant."""
    signature = sign_task(key, parameters.seed, SUM_TASK)
    payload = SumPayload(sum_signature=signature, ephemeral_public_key=ephemeral.public_key)
    return sealed(parameters, key, payload)


def update_request(parameters: RoundParameters, key: SigningKeyPair, weights: Any, sums: dict[bytes, bytes]) -> bytes:
    """Return the request of an update participant."""
    seed, model = mask_model(weights, parameters.mask_config, 1, MaskSeed.generate())
    payload = UpdatePayload(
        sum_signature=sign_task(key, parameters.seed, SUM_TASK),
        update_signature=sign_task(key, parameters.seed, UPDATE_TASK),
        masked_model=model,
        local_seed_dictionary={public_key: seal(seed.to_bytes(), ephemeral) for public_key, ephemeral in sums.items()},
    )
    return sealed(parameters, key, payload)


def mask_request(
    parameters: RoundParameters, key: SigningKeyPair, ephemeral: EncryptionKeyPair, boxes: dict[bytes, bytes]
) -> bytes:
    """Return the request of a sum participant with the sum of all masks, whose seeds are in these sealed boxes."""
    seeds = [MaskSeed(open_sealed(box, ephemeral)) for box in boxes.values()]
    mask = sum_masks(seeds, parameters.mask_config, parameters.model_length)
    return sealed(parameters, key, Sum2Payload(sum_signature=sign_task(key, parameters.seed, SUM_TASK), mask=mask))


class Sender:
    """Sends requests over a number of connections from one thread, each after the answer to the one before."""

    def __init__(self, port: int, requests: list[bytes], connections: int) -> None:
        self._port, self._requests = port, iter(requests)
        self._selector = selectors.DefaultSelector()
        self._open = 0
        self._later: list[tuple[float, int, bytes]] = []
        self._count = connections

    def run(self) -> None:
        """Send all, and return when all were answered with 200."""
        with self._selector:
            for _ in range(self._count):
                request = next(self._requests, None)
                if request is not None:
                    self._connect(request)
            while self._open or self._later:
                while self._later and self._later[0][0] <= time.monotonic():
                    self._connect(heapq.heappop(self._later)[2])
                wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else PATIENCE_SECONDS
                for key, events in self._selector.select(wait):
                    self._go_on(key, events)

    def _connect(self, request: bytes) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0)
        self._open += 1
        self._selector.register(connection, selectors.EVENT_WRITE, [request, memoryview(request), b""])

    def _go_on(self, key: selectors.SelectorKey, events: int) -> None:
        connection, state = key.fileobj, key.data
        assert isinstance(connection, socket.socket)
        try:
            if events & selectors.EVENT_WRITE:
                state[1] = state[1][connection.send(state[1]) :]
                if not state[1]:
                    self._selector.modify(connection, selectors.EVENT_READ, state)
                return
            received = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        state[2] += received
        head, is_whole, _ = state[2].partition(b"\r\n\r\n")
        if received and not is_whole:
            return
        if received and head.split(b" ", 2)[1] == b"200":
            self._send_next(connection, state)
        else:
            self._close(connection)
            heapq.heappush(self._later, (time.monotonic() + retry_seconds(head), id(state), state[0]))

    def _send_next(self, connection: socket.socket, state: list[Any]) -> None:
        request = next(self._requests, None)
        if request is None:
            self._close(connection)
            return
        state[:] = [request, memoryview(request), b""]
        with contextlib.suppress(BlockingIOError):
            state[1] = state[1][connection.send(request) :]
        if state[1]:
            self._selector.modify(connection, selectors.EVENT_WRITE, state)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
        self._open -= 1


def retry_seconds(head: bytes) -> float:
    """Return when a refused request may come again."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"retry-after:"):
            return float(line.split(b":")[1])
    return 0.05
