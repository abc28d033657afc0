"""A whole round in one process, without a network: one coordinator, its participants, every message sealed and opened.

pytest benchmarks/test_bench_round.py --benchmark-enable
"""

import numpy as np

from pet import MaskConfig
from pet.coordinator.engine import CoordinatorEngine
from pet.crypto import SigningKeyPair
from pet.participant.ticks import TickParticipant
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.in_process import InProcessTransport

#: Enough for every phase; a participant goes at most a handful of steps in each.
MAX_TURNS = 60


class Round:
    """The clock is a number that moves on when everybody has had a turn; entropy comes from a fixed seed."""

    def __init__(self, length, participant_count):
        generator = np.random.default_rng(5)
        window = PhaseWindow(min_count=1, max_count=1000, min_seconds=8, max_seconds=1000)
        settings = RoundSettings.of(
            MaskConfig.parse("prime-f32-b0-m3"),
            length,
            sum_probability=0.4,
            update_probability=1.0,
            sum=window,
            update=PhaseWindow(min_count=3, max_count=1000, min_seconds=8, max_seconds=1000),
            sum2=window,
        )
        self.now_seconds = 0.0
        self.engine = CoordinatorEngine(settings, clock=lambda: self.now_seconds, entropy=generator.bytes)
        transport = InProcessTransport(self.engine)
        self.weights = generator.uniform(-1, 1, length).astype(np.float32)
        # Fixed keys and a fixed round seed draw the same roles each time.
        keys = [SigningKeyPair.from_seed(generator.bytes(32)) for _ in range(participant_count)]
        self.participants = [TickParticipant(transport, signing_key=key, entropy=generator.bytes, threads=1) for key in keys]

    def run(self):
        """Let everybody take turns until there is a global model; all update participants send the same one."""
        for _ in range(MAX_TURNS):
            self.engine.tick()
            for participant in self.participants:
                participant.tick()
                if participant.should_set_model:
                    participant.set_model(self.weights)
            self.now_seconds += 1
            if (model := self.engine.model()) is not None:
                return model.to_array()
        raise AssertionError(f"expected a global model after {MAX_TURNS} turns, got {self.engine.status()}")


def pytest_generate_tests(metafunc):
    measured = metafunc.config.getoption("benchmark_enable")
    cases = [(1_000, 10), (1_000, 100), (100_000, 10), (100_000, 100), (1_000_000, 10)]
    metafunc.parametrize(("length", "participant_count"), cases if measured else cases[:1])


def test_round(benchmark, length, participant_count):
    rounds = []

    def new_round():
        rounds[:] = [Round(length, participant_count)]
        return (rounds[0],), {}

    model = benchmark.pedantic(Round.run, setup=new_round, rounds=3, warmup_rounds=1)
    assert np.allclose(model, rounds[0].weights, atol=1e-6)
