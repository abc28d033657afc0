"""What a command says about the coordinator it plays participants for: its words, bounded, and how many are drawn of ours."""

import itertools

import numpy as np
import pytest
from asgi_server import serving

from pet.commands._coordinator_status import what_it_waits_for
from pet.coordinator.app import create_app
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.settings import Settings
from pet.errors import TransportError
from pet.mask_config import MaskConfig
from pet.participant import TickParticipant
from pet.protocol.round_settings import RoundSettings
from pet.transports.http import HttpTransport
from pet.transports.in_process import InProcessTransport


def small_engine():
    engine = CoordinatorEngine(
        RoundSettings.of(MaskConfig.parse("prime-f32-b0-m3"), 4, sum_probability=0.5, update_probability=0.9)
    )
    engine.tick()
    return engine


def test_the_coordinators_words_and_the_share_of_our_participants():
    said = what_it_waits_for(InProcessTransport(small_engine()), 8)
    assert said.startswith("The coordinator says: waiting for 1 sum message of 1, for 0 s; none has come yet. Start more")
    assert said.endswith("Of the 8 participants here 4.0 are drawn for it on average: try a larger --count.")


class Answering(InProcessTransport):
    """Says something else than the coordinator behind it."""

    def __init__(self, status):
        super().__init__(small_engine())
        self.status = status

    def get_status(self):
        if isinstance(self.status, Exception):
            raise self.status
        return self.status


@pytest.mark.parametrize(
    "status",
    [{}, {"waiting": None}, {"waiting": "x"}, {"waiting": {"text": 1}}, TransportError("GET /status: got 404")],
    ids=["none", "nothing", "no record", "no text", "no route"],
)
def test_a_coordinator_that_does_not_say_is_not_quoted(status):
    assert what_it_waits_for(Answering(status), 8) is None


def test_a_hostile_coordinator_cannot_move_the_cursor_or_flood_the_terminal():
    hostile = {"text": "\x1b[2J\x07wait\n\r\u202e" + "x" * 10_000, "advice": ["y"], "missing": [1], "kind": {"sum": 1}}
    said = what_it_waits_for(Answering({"waiting": hostile}), 8)
    assert said.startswith("The coordinator says: [2Jwaitxxx")
    assert said.isprintable()
    assert len(said) < 600


def test_test_drive_after_participants_that_are_gone():
    """Sum participants that ended leave sum2 waiting: another fleet learns what is missing, for how long, and what helps."""
    window = {"count": {"min": 1, "max": 10}, "time": {"min": 0, "max": 60}}
    update = {"count": {"min": 3, "max": 10}, "time": {"min": 0, "max": 600}}
    pet = {"sum": {"prob": 0.3, **window}, "update": {"prob": 1.0, **update}, "sum2": window}
    with serving(create_app(Settings(pet=pet, model={"length": 4}))) as url:
        transport = HttpTransport(url)
        try:
            participants = [TickParticipant(transport) for _ in range(16)]
            for participant in itertools.cycle(participants):
                if transport.get_status()["phase"] == "sum2":
                    break
                participant.tick()
                if participant.should_set_model:
                    participant.set_model(np.zeros(4, dtype=np.float32))
            said = what_it_waits_for(transport, 16)
        finally:
            transport.close()
    assert "waiting for 1 sum2 message of 1, for" in said
    assert "--fresh" in said
    assert "--count" not in said, "more participants cannot help now"
