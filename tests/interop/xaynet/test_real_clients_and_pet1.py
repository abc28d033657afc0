"""Real clients while profiles alternate: they idle through a round of pet/1, and take part in the xaynet round after it.

Source: docs/spec/profile.md 15.3.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pet1_killer_rounds
import pytest
import test_real_clients
from pet1_killer_rounds import UPDATE_COUNT, Pet1Rounds
from pet1_parties import Parties
from programs import free_port
from test_real_clients import RealParticipant, coordinator_with_settings, wait_for

from pet.messages import RoundParameters

COUNT = 6
LENGTH = 10
#: Rounds that follow quickly until enough participants are drawn for each task.
XAYNET = """
bind_address = "127.0.0.1:{port}"
size = {length}
sum = 0.4
update = 1.0
min_sum_count = 1
min_update_count = 3
min_sum_time = 1
min_update_time = 2
max_sum_time = 5
max_update_time = 6
"""


@pytest.mark.long
def test_real_clients_idle_through_a_round_of_pet1_and_take_part_in_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(test_real_clients, "local_model", lambda i, dtype: np.full(LENGTH, (i + 1) / 10, dtype=dtype))
    port, parties = free_port(), Parties(seed=12)
    (tmp_path / "trial.enrolment").write_bytes(parties.enrolment.sign(parties.authority))
    chosen: dict[str, Any] = {"port": port, "length": LENGTH, "updates": UPDATE_COUNT, "more": ""}
    pet1 = pet1_killer_rounds.SETTINGS.format(enrolment=tmp_path / "trial.enrolment", **chosen)
    with contextlib.ExitStack() as stack:
        with coordinator_with_settings(tmp_path, pet1, port, {}) as url:
            participants = [
                stack.enter_context(contextlib.closing(RealParticipant(url, i, np.dtype("f4")))) for i in range(COUNT)
            ]
            shown = RoundParameters.from_bytes(httpx.get(f"{url}/params").content)
            assert (shown.sum_probability, shown.update_probability, shown.model_length) == (0.0, 0.0, LENGTH)
            rounds = Pet1Rounds(url, LENGTH, tmp_path, parties, random.Random(1))
            with contextlib.closing(rounds):
                while httpx.get(f"{url}/status").json()["rounds_completed"] == 0:
                    rounds.step()
            wait_for(lambda: all(participant.models for participant in participants), "the model of the round of pet/1")
            status = httpx.get(f"{url}/status").json()
            assert status["phase"] == "sum"
            assert not any(participant.set_models for participant in participants)
            of_pet1 = httpx.get(f"{url}/model").headers["etag"]
        with coordinator_with_settings(tmp_path, XAYNET.format(**chosen), port, {}) as url:
            assert httpx.get(f"{url}/model").headers["etag"] == of_pet1
            wait_for(lambda: httpx.get(f"{url}/status").json()["rounds_completed"] >= 2, "a round of xaynet's profile")
            assert httpx.get(f"{url}/model").headers["etag"] != of_pet1
        assert sum(participant.set_models for participant in participants) >= 3
