"""A coordinator in a process of its own, and honest participants with an address each, that play rounds while others attack."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from sealed_rounds import SealedRound, seeds_path

from pet.messages import decode_seed_dictionary, decode_sum_dictionary
from pet.model_formats import NPY

#: Updates of 1.75 MB: they go through the spool.
LENGTH: Final = 250_000
UPDATES: Final = 20
_SETTINGS: Final = f"""
[api]
bind_address = "127.0.0.1:0"
[pet.sum]
prob = 0.5
count = {{ min = 2, max = 2 }}
time = {{ min = 0, max = 3600 }}
[pet.update]
prob = 1.0
count = {{ min = {UPDATES}, max = {UPDATES} }}
time = {{ min = 0, max = 3600 }}
[pet.sum2]
count = {{ min = 2, max = 2 }}
time = {{ min = 0, max = 3600 }}
[mask]
model_type = "M6"
[model]
length = {LENGTH}
[service]
max_connections = 300
header_seconds = 2
stall_seconds = 3
max_bytes_in_flight = 8388608
max_spool_bytes = 16000000
max_requests_per_second = 50
"""


class Coordinator:
    """`pet coordinator` with bounds that are soon reached."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "hostile.toml")
        path.write_text(_SETTINGS, encoding="utf-8")
        command = [sys.executable, "-c", "from pet.cli import main; main()", "coordinator", "-c", str(path)]
        self.log = Path(self._folder.name, "log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"Listening on http://([\d.]+):(\d+)", line):
                self.address = found[1], int(found[2])
                return
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def megabytes(self) -> float:
        """Return the memory that the process has now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8"))
        assert found is not None
        return int(found[1]) / 1000

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._folder.cleanup()


class Client:
    """One honest sender: an address, and patience."""

    def __init__(self, server: tuple[str, int], source: str) -> None:
        self._server, self._source = server, source
        self.refused = 0

    def get(self, path: str, **headers: str) -> bytes:
        """Return the body of an answer, once there is one."""
        return self._ask("GET", path, None, headers)

    def post(self, body: bytes) -> None:
        """Deliver a message."""
        self._ask("POST", "/message", body, {})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            connection = http.client.HTTPConnection(*self._server, timeout=30, source_address=(self._source, 0))
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
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


def play_round(server: tuple[str, int]) -> int:
    """Play one round with exactly its updates; returns how many requests of honest participants were refused.

    Raises:
        AssertionError: the model is not the mean of them, or a participant gets nowhere.
    """
    clients = [Client(server, f"127.0.1.{number + 1}") for number in range(UPDATES)]
    first = clients[0]
    completed = json.loads(first.get("/status"))["rounds_completed"]
    round_ = SealedRound(first.get("/params"))
    sum_keys = round_.keys("sum", 2)
    for client, key in zip(clients, sum_keys, strict=False):
        client.post(round_.sum(key))
    sums = decode_sum_dictionary(first.get("/sums"))
    base = np.linspace(-1, 1, LENGTH, dtype=np.float32)
    with ThreadPoolExecutor(4) as threads:
        updates = [
            threads.submit(_send_update, client, round_, key, sums, base * np.float32((number + 1) / 32))
            for number, (client, key) in enumerate(zip(clients, round_.keys("update", UPDATES), strict=True))
        ]
        for update in updates:
            update.result()
    for client, key in zip(clients, sum_keys, strict=False):
        seeds = decode_seed_dictionary(client.get(seeds_path(key.public_key)))
        assert len(seeds) == UPDATES
        client.post(round_.sum2(key, list(seeds.values())))
    while json.loads(first.get("/status"))["rounds_completed"] == completed:
        time.sleep(0.05)
    model = np.load(io.BytesIO(first.get("/model", Accept=NPY)), allow_pickle=False)
    mean = base.astype(np.float64) * (sum(range(1, UPDATES + 1)) / UPDATES / 32)
    assert float(np.abs(model - mean).max()) < 1e-6
    return sum(client.refused for client in clients)


def _send_update(client: Client, round_: SealedRound, key: Any, sums: Any, weights: Any) -> None:
    client.post(round_.update(key, sums, weights))


def figures(server: tuple[str, int]) -> dict[str, float]:
    """Return the metrics of the coordinator, by name and labels."""
    text = Client(server, "127.0.2.1").get("/metrics").decode()
    return {name: float(value) for name, value in re.findall(r"^(\w[^#\n]*?) ([-+.\w]+)$", text, re.MULTILINE)}


class Watch:
    """Looks at the memory of a coordinator and at how fast it answers (hostile_watch.py)."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.most_megabytes = 0.0
        self.seconds: list[float] = []
        self._coordinator = coordinator

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Watch until the end of the `with`.

        Raises:
            AssertionError: an answer failed.
        """
        (host, port), pid = self._coordinator.address, self._coordinator.process.pid
        command = [sys.executable, str(Path(__file__).with_name("hostile_watch.py")), host, str(port), str(pid)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watcher:
            try:
                yield
            finally:
                printed, errors = watcher.communicate()
        assert watcher.returncode == 0, errors
        found = json.loads(printed)
        self.seconds, self.most_megabytes = found["seconds"], found["most_megabytes"]
