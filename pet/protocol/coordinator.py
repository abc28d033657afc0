"""The coordinator of xaynet's profile: the round machine with its rules, settings and strategies.

Source: docs/spec/pet.md 1.3, 1.8, 6.3, 9.
"""

from __future__ import annotations

from collections.abc import Callable

from pet.messages import ChunkStore, RoundParameters
from pet.protocol.entries import Entry
from pet.protocol.events import Publication
from pet.protocol.message_checks import DISCARDED
from pet.protocol.round_machine import ZERO_SEED, RoundMachine
from pet.protocol.round_settings import RoundSettings
from pet.protocol.round_state import CoordinatorState, RoundState, Status
from pet.protocol.strategies import DEFAULT_STRATEGIES, Strategies
from pet.protocol.windows import PhaseWindow
from pet.protocol.xaynet import FAILURE_REASONS, xaynet_profile

__all__ = ["DISCARDED", "FAILURE_REASONS", "ZERO_SEED", "Coordinator", "PhaseWindow", "RoundSettings", "Status"]


class Coordinator(RoundMachine[RoundSettings, RoundState, Entry, Publication]):
    """A coordinator as xaynet knows it.

    Args:
        settings: how rounds are run. `next_settings` can be replaced at any time: they count from the next round on.
        now_seconds: the time now.
        entropy: returns as many random bytes as it is asked for; `os.urandom` outside of tests. The keys of each round grow
            from 32 of them.
        round_id: number of the last round there was; the first one here has the next.
        seed: round seed of that round.
        strategies: who takes part, with which task, and which mask counts.
        chunk_store: where the pieces of unfinished messages lie; in memory if not given.
        state: where another coordinator was, to go on from; it is not copied, and takes the place of `round_id` and `seed`.
    """

    def __init__(
        self,
        settings: RoundSettings,
        *,
        now_seconds: float,
        entropy: Callable[[int], bytes],
        round_id: int = 0,
        seed: bytes = ZERO_SEED,
        strategies: Strategies = DEFAULT_STRATEGIES,
        chunk_store: ChunkStore | None = None,
        state: CoordinatorState | None = None,
    ) -> None:
        super().__init__(
            xaynet_profile(strategies),
            settings,
            now_seconds=now_seconds,
            entropy=entropy,
            round_id=round_id,
            seed=seed,
            chunk_store=chunk_store,
            state=state,
        )

    @classmethod
    def from_state(
        cls,
        settings: RoundSettings,
        state: CoordinatorState,
        *,
        entropy: Callable[[int], bytes],
        strategies: Strategies = DEFAULT_STRATEGIES,
        chunk_store: ChunkStore | None = None,
    ) -> Coordinator:
        """Go on from a state that another coordinator was in; the state is not copied.

        Args:
            settings: those of the round in the state.
            state: where the other coordinator was.
            entropy: as for the class.
            strategies: as for the class.
            chunk_store: as for the class; for the rounds that follow.
        """
        return cls(
            settings,
            now_seconds=state.phase_started_seconds,
            entropy=entropy,
            strategies=strategies,
            chunk_store=chunk_store,
            state=state,
        )

    @property
    def parameters(self) -> RoundParameters | None:
        """What participants need to know of the current round; None before the first."""
        return None if self.state.round is None else self.state.round.parameters
