"""A recorded round happens again exactly as it did."""

from dataclasses import replace

import pytest
from coordinator_driver import Round, counting_entropy, events_of, small_settings

from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError
from pet.messages import Message, seal_message
from pet.protocol import Event, ModelPublished, RoundFailed, RoundReopened, SeedDictionaryPublished, SumDictionaryPublished
from pet.protocol.replay import Recorder, Recording, Step, replay


def record() -> tuple[Recording, list[Event]]:
    """Record a round with a model, good and bad messages, one that nobody joins, and one that fails."""
    recorder = Recorder(Recording(settings=small_settings(), started_seconds=50.0), counting_entropy(9))
    now, happened = 50.0, recorder.apply(Step(50.0))

    def send(key: SigningKeyPair, message: Message) -> None:
        happened.extend(recorder.apply(Step(now, bytes(seal_message(message, key)))))

    parameters = recorder.coordinator.parameters
    assert parameters is not None
    current = Round(parameters)
    sum_key = current.keys("sum", 1)[0]
    send(sum_key, current.sum(sum_key))
    send(sum_key, current.sum(sum_key))
    happened += recorder.apply(Step(now, b"not a message"))
    now += 5
    happened += recorder.apply(Step(now))
    sums = dict(events_of(SumDictionaryPublished, happened)[0].sum_dictionary)
    for key in current.keys("update", 3):
        send(key, current.update(key, sums))
    now += 10
    happened += recorder.apply(Step(now))
    seeds = events_of(SeedDictionaryPublished, happened)[0].seed_dictionary
    send(sum_key, current.sum2(sum_key, dict(seeds[sum_key.public_key])))
    now += 100
    happened += recorder.apply(Step(now))
    now += 100
    happened += recorder.apply(Step(now))
    parameters = recorder.coordinator.parameters
    assert parameters is not None
    current = Round(parameters)
    sum_key = current.keys("sum", 1)[0]
    send(sum_key, current.sum(sum_key))
    for _ in range(2):
        now += 100
        happened += recorder.apply(Step(now))
    return recorder.recording, happened


def comparable(events: list[Event]) -> list[object]:
    """Return events as values: a global model is compared by its fractions."""
    return [(event.round_id, event.model.to_fractions()) if isinstance(event, ModelPublished) else event for event in events]


def test_a_replay_gives_the_same_events_and_the_same_model() -> None:
    recording, happened = record()
    assert len(events_of(ModelPublished, happened)) == 1
    assert [event.reason for event in events_of(RoundFailed, happened)] == ["timeout"]
    assert len(events_of(RoundReopened, happened)) == 1
    assert comparable(replay(recording)) == comparable(happened)
    assert comparable(replay(recording)) == comparable(happened)


def test_other_entropy_gives_other_events() -> None:
    recording, happened = record()
    # Nobody's messages open with other keys, so rounds are opened anew that were not: each needs entropy.
    other = replace(recording, entropy=[bytes(32)] * len(recording.steps))
    assert comparable(replay(other)) != comparable(happened)


def test_a_cut_recording_says_what_is_missing() -> None:
    recording, _ = record()
    with pytest.raises(LocalProtocolError, match="expected 32 bytes of entropy next, got 0"):
        replay(replace(recording, entropy=recording.entropy[:1]))


def test_secrets_of_a_recording_do_not_show() -> None:
    recording, _ = record()
    assert repr(recording.entropy[0])[2:-1] not in repr(recording)
