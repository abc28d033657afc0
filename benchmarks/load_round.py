"""One whole round of many participants against a real `pet coordinator` process: what load_many.py and load_large.py run.

Every participant masks a model of its own, signs and seals it, and sends it as its own request; what is refused with 429 or 503
is sent again when the answer says so. At the end the global model must be the mean of all models: one that was lost or counted
twice would show.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import itertools
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet import kernels
from pet.crypto import SUM_TASK, UPDATE_TASK, EncryptionKeyPair, SigningKeyPair, is_eligible, open_sealed, seal, sign_task
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model
from pet.messages import (
    Message,
    Payload,
    RoundParameters,
    Sum2Payload,
    SumPayload,
    UpdatePayload,
    decode_seed_dictionary,
    decode_sum_dictionary,
    seal_message,
)
from pet.model_formats import NPY

SETTINGS = """
[api]
bind_address = "127.0.0.1:0"
[pet.sum]
prob = 0.5
count = {{ min = {sums}, max = {sums} }}
time = {{ min = 0, max = 3600 }}
[pet.update]
prob = 1.0
count = {{ min = {updates}, max = {updates} }}
time = {{ min = 0, max = 3600 }}
[mask]
model_type = "M6"
[model]
length = {length}
"""
PIECE_BYTES = 1 << 18


class CoordinatorProcess:
    """`pet coordinator`, with its state in a folder of its own."""

    def __init__(self, settings: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "load.toml")
        path.write_text(settings)
        command = [sys.executable, "-c", "from pet.cli import main; main()", "coordinator", "-c", str(path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://([\d.]+):(\d+)", line):
                self.address = found[1], int(found[2])
                return
        raise SystemExit("the coordinator did not start")

    def peak_megabytes(self) -> float:
        """Return VmHWM: the most memory the process ever had."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1000

    def megabytes(self) -> float:
        """Return the memory that the process has now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1000

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._folder.cleanup()


@dataclass
class Client:
    """Requests of one thread after the other over connections that are kept; counts what was refused."""

    address: tuple[str, int]
    refused: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    _local: threading.local = field(default_factory=threading.local)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        """Return status and body."""
        while True:
            try:
                answer, body = self._exchange("GET", path, None, headers)
            except (OSError, http.client.HTTPException):  # a connection that rested for a minute is closed
                self._local.connection.close()
            else:
                return answer.status, body

    def post(self, body: bytearray) -> None:
        """Deliver a message, however often that has to be tried."""
        while True:
            try:
                answer, _ = self._exchange("POST", "/message", body, {"Content-Length": str(len(body))})
            except (OSError, http.client.HTTPException) as error:
                self._count_refusal(type(error).__name__)
                self._local.connection.close()
                time.sleep(1)
                continue
            if answer.status == 200:
                return
            self._count_refusal(str(answer.status))
            time.sleep(float(answer.getheader("Retry-After", "1")))

    def status(self) -> dict[str, Any]:
        """Return `GET /status`."""
        record: dict[str, Any] = json.loads(self.get("/status")[1])
        return record

    def _exchange(
        self, method: str, path: str, body: bytearray | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(*self.address, timeout=300)
        connection = self._local.connection
        connection.request(method, path, body=None if body is None else _pieces(body), headers=headers)
        answer = connection.getresponse()
        with self._lock:
            self.requests += 1
        return answer, answer.read()

    def _count_refusal(self, reason: str) -> None:
        with self._lock:
            self.refused[reason] += 1


@dataclass(frozen=True)
class Load:
    """A round that is sent at a coordinator.

    Attributes:
        participants: how many updates.
        length: weights of each.
        sums: how many sum participants.
        senders: how many participants are busy at the same time.
    """

    participants: int
    length: int
    sums: int
    senders: int

    def weights(self, number: int) -> NDArray[np.float32]:
        """Return the model of one participant: no two neighbours have the same."""
        return self._base() * np.float32((number % 7 + 1) / 8)

    def mean(self) -> NDArray[np.float64]:
        """Return what the global model has to be."""
        factor = sum((number % 7 + 1) / 8 for number in range(self.participants)) / self.participants
        return self._base().astype(np.float64) * factor

    def _base(self) -> NDArray[np.float32]:
        return np.linspace(-1, 1, self.length, dtype=np.float32)


class Round:
    """The participants of one round."""

    def __init__(self, client: Client, load: Load) -> None:
        self._client, self._load = client, load
        self.parameters = RoundParameters.from_bytes(client.get("/params")[1])

    def run_sum(self) -> dict[SigningKeyPair, EncryptionKeyPair]:
        participants = {key: EncryptionKeyPair.generate() for key in self._keys(is_sum=True, count=self._load.sums)}
        for key, ephemeral in participants.items():
            payload = SumPayload(sum_signature=self._sign(key, SUM_TASK), ephemeral_public_key=ephemeral.public_key)
            self._client.post(self._seal(key, payload))
        return participants

    def run_update(self) -> None:
        sums = decode_sum_dictionary(self._wait_for("/sums"))
        keys = list(self._keys(is_sum=False, count=self._load.participants))

        def update(number: int) -> None:
            key = keys[number]
            seed, masked_model = mask_model(self._load.weights(number), self.parameters.mask_config, 1, MaskSeed.generate())
            payload = UpdatePayload(
                sum_signature=self._sign(key, SUM_TASK),
                update_signature=self._sign(key, UPDATE_TASK),
                masked_model=masked_model,
                local_seed_dictionary={public_key: seal(seed.to_bytes(), sums[public_key]) for public_key in sums},
            )
            body = self._seal(key, payload)
            del payload, masked_model
            self._client.post(body)

        with ThreadPoolExecutor(self._load.senders) as threads:
            list(threads.map(update, range(self._load.participants)))

    def run_sum2(self, participants: dict[SigningKeyPair, EncryptionKeyPair]) -> None:
        for key, ephemeral in participants.items():
            query = urllib.parse.quote(base64.b64encode(key.public_key), safe="")
            seeds = decode_seed_dictionary(self._wait_for(f"/seeds?pk={query}"))
            opened = [MaskSeed(open_sealed(seed, ephemeral)) for seed in seeds.values()]
            mask = sum_masks(opened, self.parameters.mask_config, self.parameters.model_length)
            self._client.post(self._seal(key, Sum2Payload(sum_signature=self._sign(key, SUM_TASK), mask=mask)))

    def read_model(self) -> NDArray[np.float32]:
        model: NDArray[np.float32] = np.load(io.BytesIO(self._wait_for("/model", Accept=NPY)), allow_pickle=False)
        return model

    def _wait_for(self, path: str, **headers: str) -> bytes:
        while True:
            status, body = self._client.get(path, **headers)
            if status == 200:
                return body
            assert status == 204, (path, status)
            time.sleep(0.05)

    def _keys(self, *, is_sum: bool, count: int) -> Iterator[SigningKeyPair]:
        while count:
            key = SigningKeyPair.generate()
            if is_eligible(self._sign(key, SUM_TASK), self.parameters.sum_probability) == is_sum:
                count -= 1
                yield key

    def _sign(self, key: SigningKeyPair, task: bytes) -> bytes:
        return sign_task(key, self.parameters.seed, task)

    def _seal(self, key: SigningKeyPair, payload: Payload) -> bytearray:
        message = Message(
            participant_public_key=key.public_key,
            coordinator_public_key=self.parameters.coordinator_public_key,
            payload=payload,
            tag=payload.tag,
        )
        return seal_message(message, key)


def run(load: Load) -> None:
    """Run the round and print its figures.

    Raises:
        AssertionError: a message was lost, counted twice or refused.
    """
    settings = SETTINGS.format(sums=load.sums, updates=load.participants, length=load.length)
    coordinator = CoordinatorProcess(settings)
    try:
        client = Client(coordinator.address)
        round_ = Round(client, load)
        times = [time.perf_counter()]
        participants = round_.run_sum()
        times.append(time.perf_counter())
        round_.run_update()
        times.append(time.perf_counter())
        update_requests, status = client.requests, client.status()
        round_.run_sum2(participants)
        model = round_.read_model()
        times.append(time.perf_counter())
        difference = float(np.abs(model - load.mean()).max())
        assert difference < 1e-7, f"the global model is not the mean: it differs by {difference}"
        assert status["rejected"] == {}, status
        _report(load, times, update_requests, client.refused, coordinator.peak_megabytes(), difference)
    finally:
        coordinator.stop()


def _report(
    load: Load, times: Sequence[float], update_requests: int, refused: Counter[str], megabytes: float, difference: float
) -> None:
    sum_seconds, update_seconds, sum2_seconds = (end - start for start, end in itertools.pairwise(times))
    print(
        f"{load.participants} participants, {load.length} weights each, {load.senders} at the same time,"
        f" kernels {kernels.active_backend()}\n"
        f"duration: sum {sum_seconds:.2f} s, update {update_seconds:.2f} s, sum2 and model {sum2_seconds:.2f} s\n"
        f"update phase: {load.participants / update_seconds:.3g} updates/s, {update_requests / update_seconds:.3g} requests/s\n"
        f"refused and sent again: {dict(refused) or 'nothing'}; lost: nothing"
        f" (largest difference from the mean {difference:.1e})\n"
        f"peak memory of the coordinator: {megabytes:.0f} MB"
    )


def _pieces(body: bytearray) -> Iterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def parse(description: str, defaults: Load) -> Load:
    """Read a load from the command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("participants", "length", "sums", "senders"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    return Load(**vars(parser.parse_args()))
