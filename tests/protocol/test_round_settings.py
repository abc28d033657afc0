import math
from dataclasses import replace
from typing import Any

import pytest
from coordinator_driver import LENGTH, SUM2_WINDOW, SUM_WINDOW, UPDATE_WINDOW, Session, small_settings

from pet.errors import ConfigError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import ChunkLimits
from pet.protocol.round_settings import RoundSettings, probability_violations


def test_the_shipped_example_settings_are_valid() -> None:
    settings = RoundSettings.of(MaskConfig.parse("prime-f32-b0-m3"), 4)
    assert (settings.sum_probability, settings.update_probability) == (0.5, 0.9)
    assert settings.mask_config.unit == settings.mask_config.vect
    assert settings.update.max_count == 10_000


def test_the_shipped_settings_can_be_changed() -> None:
    settings = RoundSettings.of(MaskConfig.parse("prime-f32-b0-m3"), 4, update_probability=1.0)
    assert settings.update_probability == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sum_probability": 0.0}, r"sum_probability: must be above 0 and below 1, got 0.0"),
        ({"sum_probability": 1.0}, r"sum_probability: must be above 0 and below 1, got 1.0"),
        ({"sum_probability": math.nan}, r"sum_probability: .* got nan"),
        ({"update_probability": 0.0}, r"update_probability: must be above 0 and at most 1, got 0.0"),
        ({"update_probability": 1.1}, r"update_probability: must be above 0 and at most 1, got 1.1"),
        ({"update_probability": math.inf}, r"update_probability: .* got inf"),
        ({"sum_probability": -1.0, "update_probability": 0.2}, r"starvation: .*, got \(-1.0, 0.2\)"),
        ({"update": replace(UPDATE_WINDOW, min_count=2)}, r"update.min_count: must be 3 or more, got 2"),
        ({"sum2": replace(SUM2_WINDOW, max_count=4)}, r"sum2.max_count: must not be above sum.max_count.*, got 4"),
        ({"sum2": replace(SUM2_WINDOW, min_count=4, max_count=4)}, r"sum2.min_count: must not be above sum.max_count.*, got 4"),
        (
            {
                "mask_config": MaskConfigPair.of(MaskConfig.parse("prime-f32-b0-m3")),
                "update": replace(UPDATE_WINDOW, min_count=1001, max_count=2000),
            },
            r"update.min_count: must not be above the number of models .*, got 1001",
        ),
        ({"model_length": 0}, r"model_length: must be from 1 to 4294967295, got 0"),
        ({"model_length": 2**32}, r"model_length: .*, got 4294967296"),
        ({"max_chunk_bytes": 0}, r"max_chunk_bytes: must be 1 or more, got 0"),
        ({"max_chunked_messages": 0}, r"max_chunked_messages: must be 1 or more, got 0"),
        ({"max_participant_chunk_bytes": 0}, r"max_participant_chunk_bytes: must be 1 or more, got 0"),
        ({"chunk_patience_seconds": -1.0}, r"chunk_patience_seconds: must be 0 or more, and finite, got -1.0"),
        ({"chunk_patience_seconds": float("inf")}, r"chunk_patience_seconds: must be 0 or more, and finite, got inf"),
    ],
)
def test_settings_that_break_a_rule_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_settings(**changes)


@pytest.mark.parametrize("sum_probability", [5e-324, 0.1, 0.3, 1 - 2**-53])
def test_rounding_does_not_make_good_probabilities_starve(sum_probability: float) -> None:
    assert list(probability_violations(sum_probability, 1.0)) == []


def test_the_largest_payload_is_an_update_with_seeds_for_all_sum_participants() -> None:
    # As many sum participants as the window allows.
    session = Session(small_settings()).to_update(SUM_WINDOW.max_count)
    key = session.round.keys("update", 1)[0]
    message = session.round.update(key, session.sum_dictionary)
    assert message.payload.size_bytes == session.settings.max_payload_bytes
    assert session.settings.model_length == LENGTH


PRIME = MaskConfig.parse("prime-f32-b0-m3")


def test_limits_of_chunks_follow_the_model_unless_they_are_set() -> None:
    small, large = RoundSettings.of(PRIME, 4), RoundSettings.of(PRIME, 25_000_000)
    assert small.chunk_limits.max_bytes == 2**30
    assert large.chunk_limits.max_bytes == 64 * large.max_payload_bytes
    assert large.chunk_limits.max_bytes_per_participant == 2 * large.max_payload_bytes + 2**20
    given = RoundSettings.of(
        PRIME, 4, max_chunk_bytes=7, max_participant_chunk_bytes=5, max_chunked_messages=3, chunk_patience_seconds=2.0
    )
    expected = ChunkLimits(max_bytes=7, max_bytes_per_participant=5, max_messages=3, patience_seconds=2.0)
    assert given.chunk_limits == expected
