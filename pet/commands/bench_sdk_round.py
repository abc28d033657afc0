"""One round of a real `pet coordinator` with participants of the real xaynet SDK beside ours, timed tick by tick.

Both kinds run in this process, one tick at a time, so nothing else of it runs while one is timed; the coordinator is a process
of its own. A participant's role is drawn by lot, so participants are made until each role is taken.

This file knows the SDK's flags (spec 8.2) and the HTTP address of a coordinator, and no message.
"""

from __future__ import annotations

import socket
import subprocess  # runs our own coordinator, with arguments of this file
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pet.crypto import SUM_TASK, UPDATE_TASK, SigningKeyPair, is_eligible, sign_task
from pet.errors import PetError, TransportError
from pet.mask_config import MaskConfig
from pet.messages import RoundParameters
from pet.participant import TickParticipant
from pet.transports.http import HttpTransport

_SETTINGS: Final = """
[api]
bind_address = "127.0.0.1:{port}"
[pet.sum]
prob = 0.5
count = {{ min = 1, max = 1 }}
time = {{ min = 0, max = 3600 }}
[pet.update]
prob = 0.999
count = {{ min = {seed_count}, max = {seed_count} }}
time = {{ min = 0, max = 3600 }}
[pet.sum2]
count = {{ min = 1, max = 1 }}
time = {{ min = 0, max = 3600 }}
[mask]
group_type = "Prime"
data_type = "F32"
bound_type = "B0"
model_type = "M3"
[model]
length = {length}
"""
_DEADLINE_SECONDS: Final = 600.0
#: A coordinator that does not answer within this time did not start.
_START_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkRound:
    """What was timed, in nanoseconds.

    Attributes:
        sdk_masking_ns: the one step of the SDK that masks the model.
        sdk_update_ns: the SDK, from the call of `set_model` to the answer to its last part.
        sdk_sum_ns: the one step of the SDK that derives and adds the masks.
        pet_update_ns: our participant, the same way as `sdk_update_ns`.
    """

    sdk_masking_ns: int
    sdk_update_ns: int
    sdk_sum_ns: int
    pet_update_ns: int


def play(config: MaskConfig, weights: np.ndarray[Any, Any], seed_count: int) -> SdkRound:
    """Play the round: an SDK participant sums, another one and ours update, and as many of ours as it takes.

    Args:
        config: mask config of the model; `_SETTINGS` has to say the same.
        weights: float32, shape (length,), masked by everybody.
        seed_count: number of updates, at least 3.

    Raises:
        PetError: a step did not happen in time.
    """
    assert str(config) == "prime-f32-b0-m3"
    with _running_coordinator(len(weights), seed_count) as url:
        parameters = _parameters(url)
        summing = _find_sdk_participant(url, "sum")
        _tick_until(summing, 1, "the sum message")
        updating = _find_sdk_participant(url, "update")
        update_ticks = _update_with_sdk(updating, weights)
        pet_update_ns = [_update_with_ours(url, parameters, weights) for _ in range(seed_count - 1)]
        sum_ticks = _tick_until(summing, 1, "the mask")
    return SdkRound(
        sdk_masking_ns=max(update_ticks[1:]),
        sdk_update_ns=sum(update_ticks),
        sdk_sum_ns=max(sum_ticks),
        pet_update_ns=sorted(pet_update_ns)[len(pet_update_ns) // 2],
    )


@contextmanager
def _running_coordinator(length: int, seed_count: int) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="pet-bench-") as directory:
        file = Path(directory) / "settings.toml"
        file.write_text(_SETTINGS.format(port=port, length=length, seed_count=seed_count))
        command = [sys.executable, "-m", "pet", "coordinator", "-c", str(file)]
        with (Path(directory) / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            yield url
        finally:
            process.kill()
            process.wait()


def _parameters(url: str) -> RoundParameters:
    deadline = time.monotonic() + _START_SECONDS
    transport = HttpTransport(url)
    try:
        while True:
            try:
                return RoundParameters.from_bytes(transport.get_parameters())
            except TransportError as error:
                if time.monotonic() > deadline:
                    raise PetError(f"coordinator: expected an answer within {_START_SECONDS:g} s, got {error}") from None
                time.sleep(_PAUSE_SECONDS)
    finally:
        transport.close()


def _find_sdk_participant(url: str, task: str) -> Any:
    """Return a participant of the SDK that drew this task; it has taken no step of the task yet."""
    from xaynet_sdk.xaynet_sdk import Participant

    while True:
        participant = Participant(url, 1.0)
        for _ in range(2):  # the parameters, then the lot
            participant.tick()
        # Hardly anybody draws no task at all: see the probabilities above.
        if task == ("update" if participant.should_set_model() else "sum"):
            return participant


def _tick_until(participant: Any, least_steps: int, what: str) -> list[int]:
    """Tick until it has made that many steps and can make no more; returns the nanoseconds of every step."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    ticks: list[int] = []
    while True:
        begin = time.perf_counter_ns()
        participant.tick()
        if participant.made_progress():
            ticks.append(time.perf_counter_ns() - begin)
        elif len(ticks) >= least_steps:
            return ticks
        else:
            time.sleep(_PAUSE_SECONDS)
        if time.monotonic() > deadline:
            raise PetError(f"the real SDK: expected {what} within {_DEADLINE_SECONDS:g} s, got {len(ticks)} steps")


def _update_with_sdk(participant: Any, weights: np.ndarray[Any, Any]) -> list[int]:
    """Hand over the model and let it be posted; the first entry is the time of `set_model` itself."""
    model = weights.tolist()  # what the SDK takes; making the list is the caller's
    begin = time.perf_counter_ns()
    participant.set_model(model)
    handed_over = time.perf_counter_ns() - begin
    ticks = _tick_until(participant, 5, "the update")
    return [handed_over, *ticks]


def _update_with_ours(url: str, parameters: RoundParameters, weights: np.ndarray[Any, Any]) -> int:
    """Return how long one of our participants took, from `set_model` until it has nothing more to do."""
    participant = TickParticipant(url, signing_key=_update_key(parameters), threads=1)
    try:
        while not participant.should_set_model:
            participant.tick()
            if participant.last_error is not None:
                raise PetError(f"our participant: expected the coordinator to answer, got {participant.last_error}")
        begin = time.perf_counter_ns()
        participant.set_model(weights)
        participant.tick()
        while participant.made_progress:
            end = time.perf_counter_ns()
            participant.tick()
        return end - begin
    finally:
        participant.close()


def _update_key(parameters: RoundParameters) -> SigningKeyPair:
    """Return a key that drew the update task; the sum task goes before it."""
    while True:
        key = SigningKeyPair.generate()
        if is_eligible(sign_task(key, parameters.seed, SUM_TASK), parameters.sum_probability):
            continue
        if is_eligible(sign_task(key, parameters.seed, UPDATE_TASK), parameters.update_probability):
            return key
