"""Rounds of a coordinator from beginning to end: what happens, in which order, and what is reported."""

import copy
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from coordinator_driver import (
    CONFIG,
    SUM_WINDOW,
    Session,
    counting_entropy,
    ephemeral_keys,
    events_of,
    parameters_of,
    small_settings,
    snapshot,
    take_events,
    with_element,
)

from pet.crypto import EncryptionKeyPair, derive_round_seed, verify_signed
from pet.errors import RemoteProtocolError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import MaskSeed
from pet.messages import Tag, open_message, seal_message
from pet.protocol import (
    Coordinator,
    DictionariesWithdrawn,
    MessageAccepted,
    MessageRefused,
    ModelPublished,
    ParametersPublished,
    Phase,
    PhaseEntered,
    RoundFailed,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)


def test_before_its_first_round_a_coordinator_has_nothing_to_show() -> None:
    coordinator = Session().coordinator
    assert (coordinator.phase, coordinator.round_id, coordinator.accepted_tag) == (Phase.IDLE, 0, None)
    assert coordinator.parameters is None
    assert coordinator.encryption_keys is None
    assert coordinator.next_event() is None
    assert coordinator.next_deadline_seconds() == 1000.0


def test_the_first_round_begins_with_keys_seed_and_parameters() -> None:
    session = Session()
    events = session.wait()
    coordinator = session.coordinator
    keys = EncryptionKeyPair.from_seed(counting_entropy()(32))
    parameters = parameters_of(coordinator)
    assert events == [
        PhaseEntered(round_id=1, phase=Phase.IDLE),
        PhaseEntered(round_id=1, phase=Phase.SUM),
        ParametersPublished(round_id=1, parameters=parameters),
    ]
    assert coordinator.encryption_keys == keys
    assert parameters.coordinator_public_key == keys.public_key
    assert parameters.seed == derive_round_seed(keys, bytes(32), 0.5, 0.9)
    assert (parameters.sum_probability, parameters.update_probability) == (0.5, 0.9)
    assert (parameters.mask_config.vect, parameters.model_length) == (CONFIG, 3)
    assert coordinator.accepted_tag is Tag.SUM


def test_rounds_are_numbered_and_their_seeds_chained_from_where_the_owner_says() -> None:
    session = Session(round_id=7, seed=b"s" * 32).to_sum()
    keys = session.coordinator.encryption_keys
    assert keys is not None
    assert session.coordinator.round_id == 8
    assert parameters_of(session.coordinator).seed == derive_round_seed(keys, b"s" * 32, 0.5, 0.9)


def test_a_whole_round_gives_the_weighted_mean() -> None:
    session = Session().to_update()
    models = [[0.5, -0.25, 1.0], [0.0, 0.75, -1.0], [-0.5, 0.25, 0.125]]
    scalars = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)]
    for key, weights, scalar in zip(session.round.keys("update", 3), models, scalars, strict=True):
        session.send(session.round.update(key, session.sum_dictionary, weights, scalar))
    session.wait(10)
    published = events_of(ModelPublished, session.send_masks())[0]
    expected = np.average(np.array(models), axis=0, weights=[float(scalar) for scalar in scalars])
    assert published.round_id == 1
    assert (published.model.model_count, published.model.scalar_sum) == (3, 1)
    np.testing.assert_allclose(published.model.to_array(), expected, atol=1e-6)


def test_everything_is_announced_in_order() -> None:
    session = Session().to_sum2()
    session.send_masks()
    happened = [event.phase if isinstance(event, PhaseEntered) else type(event) for event in session.events]
    assert happened == [
        Phase.IDLE,
        Phase.SUM,
        ParametersPublished,
        *[MessageAccepted] * 2,
        Phase.UPDATE,
        SumDictionaryPublished,
        *[MessageAccepted] * 3,
        Phase.SUM2,
        SeedDictionaryPublished,
        *[MessageAccepted] * 2,
        Phase.UNMASK,
        DictionariesWithdrawn,
        ModelPublished,
        Phase.IDLE,
        Phase.SUM,
        ParametersPublished,
    ]
    assert [event.round_id for event in session.events[-3:]] == [2, 2, 2]


def test_the_dictionaries_hold_what_the_participants_sent_and_cannot_be_changed() -> None:
    session = Session().to_sum2()
    sum_keys, update_keys = session.round.keys("sum", 2), session.round.keys("update", 3)
    sums = events_of(SumDictionaryPublished, session.events)[0]
    seeds = events_of(SeedDictionaryPublished, session.events)[0]
    assert sums.sum_dictionary == {key.public_key: ephemeral_keys(key).public_key for key in sum_keys}
    assert seeds.seed_dictionary.keys() == {key.public_key for key in sum_keys}
    for entries in seeds.seed_dictionary.values():
        assert entries.keys() == {key.public_key for key in update_keys}
    with pytest.raises(TypeError):
        sums.sum_dictionary[b"x"] = b"y"
    with pytest.raises(TypeError):
        seeds.seed_dictionary[sum_keys[0].public_key][b"x"] = b"y"


def test_published_dictionaries_outlive_their_round() -> None:
    session = Session().to_sum2()
    seeds = events_of(SeedDictionaryPublished, session.events)[0]
    session.send_masks()
    assert session.coordinator.round_id == 2
    assert len(seeds.seed_dictionary) == 2


def test_sum_messages_that_came_as_bytes_are_kept_as_they_came() -> None:
    session = Session().to_sum()
    in_bytes, in_process = session.round.keys("sum", 2)
    keys = session.coordinator.encryption_keys
    assert keys is not None
    message = open_message(seal_message(session.round.sum(in_bytes), in_bytes), keys, Tag.SUM)
    session.send(message)
    session.send(session.round.sum(in_process))
    session.wait(5)
    published = events_of(SumDictionaryPublished, session.events)[0]
    assert published.sum_dictionary.keys() == {in_bytes.public_key, in_process.public_key}
    assert published.signed_sums == {in_bytes.public_key: message.signed_bytes}
    assert verify_signed(published.signed_sums[in_bytes.public_key], in_bytes.public_key)


def test_a_round_that_times_out_fails_and_the_next_one_begins_at_once() -> None:
    session = Session().to_update()
    old = parameters_of(session.coordinator)
    events = session.wait(70)
    assert [event.phase for event in events if isinstance(event, PhaseEntered)] == [Phase.FAILURE, Phase.IDLE, Phase.SUM]
    assert events[1:3] == [
        RoundFailed(round_id=1, reason="timeout", description="phase update: expected 3 messages within 70 seconds, got 0"),
        DictionariesWithdrawn(round_id=1),
    ]
    new = parameters_of(session.coordinator)
    assert new.coordinator_public_key != old.coordinator_public_key
    assert new.seed != old.seed
    status = session.coordinator.status(session.now)
    assert (status.round_id, status.rounds_failed, status.rounds_completed) == (2, 1, 0)


@pytest.mark.parametrize("phase", [Phase.SUM, Phase.UPDATE, Phase.SUM2])
def test_every_collecting_phase_can_time_out(phase: Phase) -> None:
    two_needed = replace(SUM_WINDOW, min_count=2)
    session = Session(small_settings(sum=two_needed))
    {Phase.SUM: session.joined_by_one, Phase.UPDATE: session.to_update, Phase.SUM2: session.to_sum2}[phase]()
    assert session.coordinator.phase is phase
    failed = events_of(RoundFailed, session.wait(100))
    assert [event.reason for event in failed] == ["timeout"]
    assert session.coordinator.phase is Phase.SUM


def test_masks_that_disagree_evenly_fail_the_round() -> None:
    session = Session().to_sum2()
    one, other = session.round.keys("sum", 2)
    session.send(session.round.sum2(one, session.seed_dictionary[one.public_key]))
    wrong = MaskSeed(bytes(32)).derive_mask(CONFIG, 3)
    session.send(session.round.sum2_with(other, wrong))
    failed = events_of(RoundFailed, session.wait(6))[0]
    assert failed.reason == "ambiguous_masks"
    assert session.coordinator.round_id == 2


def test_a_wrong_mask_that_wins_fails_the_round() -> None:
    session = Session().to_sum2(sums=1)
    key = session.round.keys("sum", 1)[0]
    right = session.round.sum2(key, session.seed_dictionary[key.public_key]).payload.mask
    # The unit decides the sum of scalars: off by as many steps as three scalars of 1 and one more, it is below 0.
    wrong = type(right)(right.config, right.vect, (right.unit + 4 * 10**10) % CONFIG.order)
    session.send(session.round.sum2_with(key, wrong))
    failed = events_of(RoundFailed, session.wait(6))[0]
    assert failed.reason == "unmasking"
    assert failed.description.startswith("negative_scalar_sum: ")


def test_one_wrong_mask_is_outvoted() -> None:
    session = Session().to_sum2(sums=3)
    liar, *honest = session.round.keys("sum", 3)
    mask = session.round.sum2(liar, session.seed_dictionary[liar.public_key]).payload.mask
    session.send(session.round.sum2_with(liar, with_element(mask, 0)))
    for key in honest:
        session.send(session.round.sum2(key, session.seed_dictionary[key.public_key]))
    published = events_of(ModelPublished, session.wait(6))
    np.testing.assert_allclose(published[0].model.to_array(), [0.5, -0.25, 1.0], atol=1e-6)


def test_a_model_that_nobody_could_read_fails_the_round_and_the_last_one_stays() -> None:
    config = MaskConfig.parse("integer-f32-bmax-m3")
    session = Session(small_settings(mask_config=MaskConfigPair.of(config))).to_sum2(sums=1)
    key = session.round.keys("sum", 1)[0]
    mask = session.round.sum2(key, session.seed_dictionary[key.public_key]).payload.mask
    off = np.frombuffer(
        b"".join((config.order // 3).to_bytes(config.element_bytes, "little") for _ in range(len(mask))), np.uint8
    )
    wrong = type(mask)(mask.config, off.reshape(mask.vect.shape), mask.unit)
    session.send(session.round.sum2_with(key, wrong))
    events = session.wait(6)
    assert events_of(ModelPublished, events) == []
    failed = events_of(RoundFailed, events)[0]
    assert (failed.reason, failed.description[:14]) == ("unmasking", "out_of_range: ")


def test_several_rounds_follow_one_another() -> None:
    session = Session()
    for number in range(1, 4):
        session.to_sum2()
        assert session.coordinator.round_id == number
        session.send_masks()
    status = session.coordinator.status(session.now)
    assert (status.rounds_completed, status.rounds_failed) == (3, 0)
    models = events_of(ModelPublished, session.events)
    assert [event.round_id for event in models] == [1, 2, 3]


def test_one_call_crosses_as_many_phases_as_are_over() -> None:
    session = Session().to_sum2()
    key = session.round.keys("sum", 1)[0]
    session.send(session.round.sum2(key, session.seed_dictionary[key.public_key]))
    entered = [event.phase for event in session.wait(6) if isinstance(event, PhaseEntered)]
    assert entered == [Phase.UNMASK, Phase.IDLE, Phase.SUM]


def test_status_is_of_the_current_phase_and_ready_for_json() -> None:
    session = Session().to_sum()
    key = session.round.keys("sum", 1)[0]
    session.send(session.round.sum(key))
    session.coordinator.refuse("decryption")
    session.coordinator.refuse("decryption")
    session.coordinator.refuse("unknown_tag")
    assert session.coordinator.status(1010.0).to_json_dict() == {
        "round": 1,
        "phase": "sum",
        "accepted": 1,
        "rejected": {"decryption": 2, "unknown_tag": 1},
        "discarded": 0,
        "seconds_left": 50.0,
        "rounds_completed": 0,
        "rounds_failed": 0,
        "rounds_reopened": 0,
        "waiting": {
            "kind": "sum",
            "needed": 1,
            "present": 1,
            "missing": 0,
            "seconds": 10.0,
            "at_time_out": "failure",
        },
    }
    session.wait(5)
    status = session.coordinator.status(session.now)
    assert (status.phase, status.accepted, status.rejected, status.seconds_left) == (Phase.UPDATE, 0, {}, 70.0)
    assert status.later(7.5) == session.coordinator.status(session.now + 7.5)
    assert status.later(1000).seconds_left == 0.0
    assert session.coordinator.status(session.now + 1000).seconds_left == 0.0


def test_a_refusal_before_the_state_machine_is_counted_and_told() -> None:
    session = Session().to_sum()
    session.coordinator.refuse("decryption")
    assert session.collect() == [MessageRefused(round_id=1, phase=Phase.SUM, reason="decryption")]


@pytest.mark.parametrize("start", ["to_sum", "to_update", "to_sum2", "collect"])
def test_shutting_down_ends_everything_from_everywhere(start: str) -> None:
    session = Session()
    getattr(session, start)()
    coordinator = session.coordinator
    keys = session.coordinator.encryption_keys
    coordinator.shut_down()
    assert [type(event) for event in session.collect()] == [PhaseEntered, DictionariesWithdrawn]
    coordinator.shut_down()
    assert coordinator.status(session.now).to_json_dict()["waiting"] is None
    assert coordinator.status(session.now).later(1.0) == coordinator.status(session.now)
    assert session.wait(1e6) == []
    assert (coordinator.phase, coordinator.accepted_tag, coordinator.next_deadline_seconds()) == (Phase.SHUTDOWN, None, None)
    assert coordinator.encryption_keys == keys
    assert coordinator.status(session.now).seconds_left is None
    other = Session().to_sum()
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(other.round.sum(other.round.keys("sum", 1)[0]))
    assert caught.value.reason == "shut_down"


@pytest.mark.parametrize("start", ["to_sum", "to_update", "to_sum2"])
def test_a_coordinator_goes_on_from_a_copy_of_its_state(start: str) -> None:
    session = Session()
    getattr(session, start)()
    state = copy.deepcopy(session.coordinator.state)
    assert snapshot(state) == snapshot(session.coordinator.state)
    restored = Session(entropy=counting_entropy(50))
    restored.coordinator = Coordinator.from_state(session.settings, state, entropy=counting_entropy(50))
    restored.now = session.now
    restored.sum_dictionary, restored.seed_dictionary = session.sum_dictionary, session.seed_dictionary
    for each in (session, restored):
        if each.coordinator.phase is Phase.SUM:
            each.to_update()
        if each.coordinator.phase is Phase.UPDATE:
            for key in each.round.keys("update", 3):
                each.send(each.round.update(key, each.sum_dictionary))
            each.wait(10)
        each.send_masks()
    models = [events_of(ModelPublished, each.events)[0].model.to_fractions() for each in (session, restored)]
    assert models[0] == models[1]


def test_secrets_do_not_show() -> None:
    session = Session().to_sum2()
    keys = session.coordinator.encryption_keys
    assert keys is not None
    shown = repr(session.coordinator.state) + repr(session.events)
    assert repr(keys.secret_key)[2:-1] not in shown
    assert keys.secret_key.hex() not in shown


def test_events_wait_until_they_are_taken() -> None:
    session = Session()
    session.coordinator.advance_time(1000)
    session.coordinator.refuse("decryption")
    assert len(take_events(session.coordinator)) == 4
    assert session.coordinator.next_event() is None
