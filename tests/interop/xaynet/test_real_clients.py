"""The judge of compatibility: participants of the real xaynet SDK and of ours in the same rounds of `pet coordinator`.

Participant i masks a model that is 0 but for its own place i, so every global model tells exactly whose updates are in it, and
the whole expected mean follows.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fork_server
import httpx
import numpy as np
import pytest
from programs import free_port

import pet
from pet.coordinator.key_file import create_key_file
from pet.errors import TransportError
from pet.model_formats import NPY, decode_npy
from pet.participant import TickParticipant

REAL_COUNT = 6
OWN_COUNT = 3
COUNT = REAL_COUNT + OWN_COUNT
ROUNDS = 3
DEADLINE_SECONDS = 100

SETTINGS = """
bind_address = "127.0.0.1:{port}"
min_sum_count = 1
min_update_count = 3
min_sum_time = 1
min_update_time = 2
max_sum_time = 30
max_update_time = 30
sum = 0.4
update = 0.9
group_type = "{group}"
data_type = "{data}"
bound_type = "{bound}"
model_type = "{model}"
size = {length}
"""

SCALARS = [0.25 + 0.25 * (i % 4) for i in range(COUNT)]


@contextmanager
def running_coordinator(folder: Path, config: tuple[str, str, str, str], key_file: Path | None = None) -> Iterator[str]:
    """Run `pet coordinator` with a mask config."""
    environ = {} if key_file is None else {"PET__SERVICE__COORDINATOR_KEY": str(key_file)}
    group, data, bound, model = config
    port = free_port()
    settings = SETTINGS.format(port=port, group=group, data=data, bound=bound, model=model, length=COUNT)
    with coordinator_with_settings(folder, settings, port, environ) as url:
        yield url


@contextmanager
def coordinator_with_settings(folder: Path, settings: str, port: int, variables: dict[str, str]) -> Iterator[str]:
    """Run `pet coordinator` as a separate process until it answers; stop it with SIGINT and expect a clean end."""
    (folder / "settings.toml").write_text(settings)
    arguments, url = ("coordinator", "-c", folder / "settings.toml"), f"http://127.0.0.1:{port}"
    with fork_server.start(fork_server.PET, *arguments, environ=os.environ | variables, folder=folder) as process:
        wait_for(lambda: process.poll() is not None or answers(url), "the coordinator")
        assert process.poll() is None, process.communicate()
        yield url
        process.send_signal(signal.SIGINT)
        output = process.communicate(30)
        assert process.returncode == 0, output


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/params").status_code == 200
    except httpx.TransportError:
        return False


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE_SECONDS} s"
        time.sleep(0.05)


def local_model(i: int, dtype: np.dtype) -> np.ndarray:
    weights = np.zeros(COUNT, dtype=dtype)
    weights[i] = 1_000_000 if dtype.kind == "i" else 0.75
    return weights


def expected_mean(contributors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    scalars = np.array(SCALARS)[contributors]
    models = np.array([local_model(i, dtype) for i in contributors], dtype=np.float64)
    return scalars @ models / scalars.sum()


class RealParticipant:
    """A process of the real SDK, the global models it reported, and how often it handed over a local one."""

    def __init__(self, url: str, i: int, dtype: np.dtype) -> None:
        script = Path(__file__).with_name("real_participant.py")
        arguments = [url, str(SCALARS[i]), json.dumps(local_model(i, dtype).tolist())]
        self.process = subprocess.Popen(
            [sys.executable, str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.models: list[list] = []
        self.set_models = 0
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            news = json.loads(line)
            if news.get("global_model") is not None:
                self.models.append(news["global_model"])
            self.set_models += "local_model" in news

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self.reader.join()
            self.process.stdout.close()


class OwnParticipant:
    """A participant of ours in a thread, and the global models it downloaded."""

    def __init__(self, url: str, i: int, dtype: np.dtype, key: bytes | None = None) -> None:
        self.participant = TickParticipant(url, scalar=SCALARS[i], coordinator_key=key)
        self.model = local_model(i, dtype)
        self.models: list[list] = []
        self.is_stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.is_stopped.is_set():
            self.participant.tick()
            if self.participant.new_global_model:
                with contextlib.suppress(TransportError):  # away for a moment: the flag stays
                    if (model := self.participant.global_model()) is not None:
                        self.models.append(model.tolist())
            if self.participant.should_set_model:
                self.participant.set_model(self.model)
            if not self.participant.made_progress:
                self.is_stopped.wait(0.05)

    def close(self) -> None:
        self.is_stopped.set()
        self.thread.join()
        self.participant.close()


@pytest.mark.parametrize(
    ("config", "is_signed"),
    [
        pytest.param(("Prime", "F32", "B0", "M3"), True, id="prime-f32-b0-m3, signed answers", marks=pytest.mark.long),
        pytest.param(("Integer", "I64", "B6", "M6"), False, id="integer-i64-b6-m6", marks=pytest.mark.very_long),
        pytest.param(("Power2", "F32", "Bmax", "M3"), False, id="power2-f32-bmax-m3", marks=pytest.mark.long),
    ],
)
def test_real_and_own_participants_in_the_same_rounds(config, is_signed, tmp_path):
    """Where answers are signed, our participants pin the key, and the real ones notice nothing."""
    key_file = tmp_path / "coordinator.key" if is_signed else None
    key = create_key_file(key_file).public_key if key_file is not None else None
    dtype = pet.MaskConfig.parse("-".join(config)).data_type.dtype
    published: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        url = stack.enter_context(running_coordinator(tmp_path, config, key_file))
        participants = [RealParticipant(url, i, dtype) for i in range(REAL_COUNT)]
        participants += [OwnParticipant(url, i, dtype, key) for i in range(REAL_COUNT, COUNT)]
        for participant in participants:
            stack.callback(participant.close)
        client = stack.enter_context(httpx.Client(base_url=url, headers={"Accept": NPY}))

        def watch() -> bool:
            answer = client.get("/model")
            if answer.status_code == 200:
                published[answer.headers["ETag"]] = decode_npy(answer.content)
            return len(published) >= ROUNDS and all(participant.models for participant in participants)

        wait_for(watch, f"{ROUNDS} rounds whose models everybody has downloaded")
        status = client.get("/status").json()
    assert status["rounds_completed"] >= ROUNDS
    check_means(list(published.values()), participants, dtype)


def check_means(published: list[np.ndarray], participants: list, dtype: np.dtype) -> None:
    tolerance = 1 if dtype.kind == "i" else 1e-6
    seen_from_real = seen_from_own = False
    for model in published:
        contributors = np.flatnonzero(model)
        assert len(contributors) >= 3
        assert np.abs(model - expected_mean(contributors, dtype)).max() <= tolerance
        seen_from_real |= bool((contributors < REAL_COUNT).any())
        seen_from_own |= bool((contributors >= REAL_COUNT).any())
    assert seen_from_real
    assert seen_from_own
    for participant in participants:
        # What a client downloaded may be of a round that ended between two looks of ours, so its mean is computed anew.
        for model in map(np.array, participant.models):
            contributors = np.flatnonzero(model)
            assert len(contributors) >= 3
            assert np.abs(model - expected_mean(contributors, dtype)).max() <= tolerance


def test_the_real_sdk_is_what_runs_here():
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    code = "import importlib.metadata as m; print(m.version('xaynet-sdk-python'))"
    version = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
    assert version.strip() == "0.1.0"
