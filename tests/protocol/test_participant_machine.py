"""The participant's state machine: steps, failures, bad answers and whole rounds."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from participant_driver import (
    COORDINATOR_KEYS,
    F32,
    I64,
    Script,
    World,
    exchange_option,
    make_machine,
    quick_settings,
    round_parameters,
    signing_key,
    step,
    steps,
    take_events,
    weights,
)

from pet.aggregation import Aggregation
from pet.crypto import EncryptionKeyPair, open_sealed, seal
from pet.errors import ConfigError, LocalProtocolError, ModelError, TransportError
from pet.mask_config import MaskConfig
from pet.mask_object import MaskSeed, sum_masks
from pet.messages import (
    Sum2Payload,
    SumPayload,
    Tag,
    UpdatePayload,
    encode_seed_dictionary,
    encode_sum_dictionary,
    open_message,
)
from pet.protocol.participant import ParticipantMachine
from pet.protocol.participant_events import (
    AnswerRefused,
    FollowedRound,
    GetParameters,
    GetSeeds,
    GetSums,
    MessageDelivered,
    ModelDropped,
    ModelMasked,
    ModelWanted,
    NewRound,
    NotSelected,
    SendMessage,
    SumSelected,
    TaskAbandoned,
    UpdateSelected,
)
from pet.protocol.participant_state import PARTICIPANT_TRANSITIONS, ParticipantState, ParticipantTrigger

SUM_KEYS = EncryptionKeyPair.from_seed(bytes([9]) * 32)
SUMS = encode_sum_dictionary({b"s" * 32: SUM_KEYS.public_key})


def open_body(body: bytes, tag: Tag):
    return open_message(bytes(body), COORDINATOR_KEYS, tag).payload


def ready_to_send_update(**options) -> tuple[ParticipantMachine, Script]:
    machine, script = make_machine(**options), Script(round_parameters("update"), sums=SUMS)
    steps(machine, script, 2)
    machine.set_model(weights(1))
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE
    return machine, script


def in_sum2(seeds: dict[bytes, bytes] | None = None) -> tuple[ParticipantMachine, Script]:
    machine, script = make_machine(), Script(round_parameters("sum"))
    steps(machine, script, 4)
    assert machine.state is ParticipantState.SUM2
    if seeds is not None:
        script.seeds = encode_seed_dictionary(seeds)
    return machine, script


def test_a_sum_participant_goes_through_its_states():
    machine, script = make_machine(), Script(round_parameters("sum"))
    assert machine.state is ParticipantState.AWAITING
    assert machine.made_progress
    assert machine.parameters is None

    assert [type(request) for request in step(machine, script)] == [GetParameters]
    assert machine.state is ParticipantState.NEW_ROUND
    assert take_events(machine) == [NewRound(parameters=script.parameters)]

    step(machine, script)
    assert machine.state is ParticipantState.SUM
    assert take_events(machine) == [SumSelected()]

    step(machine, script)
    assert machine.state is ParticipantState.SENDING_SUM
    assert [type(request) for request in step(machine, script)] == [GetParameters, SendMessage, GetParameters, GetSums]
    assert machine.state is ParticipantState.SUM2
    assert take_events(machine) == [MessageDelivered(tag=Tag.SUM)]
    payload = open_body(script.received.pop(), Tag.SUM)
    assert isinstance(payload, SumPayload)

    requests = step(machine, script)
    assert requests == [GetParameters(), GetSeeds(public_key=machine.public_key)]
    assert not machine.made_progress

    seeds = [MaskSeed(bytes([number]) * 32) for number in (1, 2)]
    boxes = {bytes([number]) * 32: seal(seed.to_bytes(), payload.ephemeral_public_key) for number, seed in enumerate(seeds)}
    script.seeds = encode_seed_dictionary(boxes)
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_SUM2
    step(machine, script)
    assert machine.state is ParticipantState.AWAITING
    assert take_events(machine) == [MessageDelivered(tag=Tag.SUM2)]
    sum2 = open_body(script.received.pop(), Tag.SUM2)
    assert isinstance(sum2, Sum2Payload)
    assert sum2.mask == sum_masks(seeds, F32, 4)

    assert [type(request) for request in step(machine, script)] == [GetParameters]
    assert not machine.made_progress


def test_an_ephemeral_key_that_was_named_beforehand_serves_in_one_round():
    """Who learned a key of two rounds could open the mask seeds of both."""
    seed = bytes(range(32))
    machine, named = make_machine(ephemeral_seed=seed), EncryptionKeyPair.from_seed(seed).public_key
    assert repr(seed) not in repr(machine._options)
    keys = []
    for number in (1, 2):
        script = Script(round_parameters("sum", seed=number))
        steps(machine, script, 4)
        keys.append(open_body(script.received.pop(), Tag.SUM).ephemeral_public_key)
    assert keys[0] == named
    assert keys[1] != named


def test_an_update_participant_goes_through_its_states():
    machine, script = make_machine(scalar=Fraction(1, 2)), Script(round_parameters("update"))
    steps(machine, script, 2)
    assert machine.state is ParticipantState.UPDATE
    events = take_events(machine)
    assert events[1:] == [UpdateSelected(), ModelWanted(dtype=np.dtype(np.float32), length=4)]
    # The sums are not fetched for nothing while there is no model.
    assert step(machine, script) == [GetParameters()]
    assert not machine.made_progress

    machine.set_model(weights(1))
    assert step(machine, script) == [GetParameters(), GetSums()]
    assert not machine.made_progress
    assert machine.has_model

    script.sums = SUMS
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE
    assert not machine.has_model
    step(machine, script)
    assert machine.state is ParticipantState.AWAITING
    assert take_events(machine) == [ModelMasked(clipped_count=0), MessageDelivered(tag=Tag.UPDATE)]
    payload = open_body(script.received.pop(), Tag.UPDATE)
    assert isinstance(payload, UpdatePayload)
    assert len(open_sealed(payload.local_seed_dictionary[b"s" * 32], SUM_KEYS)) == 32


def test_clipped_weights_are_counted():
    machine, script = make_machine(), Script(round_parameters("update"), sums=SUMS)
    step(machine, script)
    machine.set_model(np.array([2, -3, 0, 1], np.float32))
    steps(machine, script, 2)
    assert ModelMasked(clipped_count=2) in take_events(machine)


def test_a_participant_that_is_not_selected_waits():
    machine, script = make_machine(), Script(round_parameters("none"))
    assert machine.round is None
    steps(machine, script, 3)
    assert machine.state is ParticipantState.AWAITING
    assert take_events(machine)[1:] == [NotSelected()]
    parameters = script.parameters
    assert machine.round == FollowedRound(
        digest=parameters.digest(), config=parameters.mask_config.vect, model_length=parameters.model_length
    )


def test_a_held_model_is_not_asked_for_and_survives_a_new_round():
    machine, script = make_machine(), Script(round_parameters("none"))
    step(machine, script)
    machine.set_model(weights(1))
    script.parameters = round_parameters("update", seed=8)
    steps(machine, script, 2)
    assert machine.has_model
    assert take_events(machine)[2:] == [UpdateSelected()]


def test_a_held_model_that_does_not_fit_the_new_round_is_dropped():
    machine, script = make_machine(), Script(round_parameters("none"))
    step(machine, script)
    machine.set_model(weights(1))
    script.parameters = round_parameters("update", length=5)
    steps(machine, script, 2)
    assert not machine.has_model
    events = take_events(machine)
    assert events[2] == ModelDropped(description="model: expected 5 weights, got 4")
    assert events[-1] == ModelWanted(dtype=np.dtype(np.float32), length=5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (np.zeros(5, np.float32), "expected 4 weights, got 5"),
        (np.zeros(4, np.float64), "expected float32 of one dimension, got float64"),
        (np.array([0, np.nan, 0, 0], np.float32), "expected finite weights"),
        (np.array([0, np.inf, 0, 0], np.float32), "expected finite weights"),
    ],
)
def test_models_that_cannot_be_used_are_refused(model, message):
    machine, script = make_machine(), Script(round_parameters("update"))
    step(machine, script)
    with pytest.raises(ModelError, match=message):
        machine.set_model(model)
    assert not machine.has_model


def test_a_model_before_the_first_contact_is_refused():
    with pytest.raises(ModelError, match="none from the coordinator yet"):
        make_machine().set_model(weights(1))


def test_the_model_is_copied_and_replaced_by_a_later_one():
    machine, script = make_machine(), Script(round_parameters("update"), sums=SUMS)
    step(machine, script)
    machine.set_model(weights(1))
    model = weights(2)
    machine.set_model(model)
    model[:] = 0
    steps(machine, script, 3)
    payload = open_body(script.received[0], Tag.UPDATE)
    seed = MaskSeed(open_sealed(payload.local_seed_dictionary[b"s" * 32], SUM_KEYS))
    total = Aggregation(F32, 4)
    total.add(payload.masked_model)
    assert np.allclose(total.unmask(seed.derive_mask(F32, 4)).to_array(), weights(2), atol=1e-9)


def test_a_model_set_while_another_is_masked_is_kept():
    """The application may call set_model from its own thread while receive is at work."""
    machine, script = make_machine(), Script(round_parameters("update"), sums=SUMS)
    steps(machine, script, 2)
    machine.set_model(weights(1))
    entropy = machine._round._options.entropy

    def set_another_model(size: int) -> bytes:
        machine.set_model(weights(2))
        return entropy(size)

    exchange_option(machine, entropy=set_another_model)
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE
    assert machine.has_model


def test_scalars_and_sizes_are_checked_at_construction():
    assert make_machine(scalar=0.5).scalar == Fraction(1, 2)
    for scalar in (-1, float("nan"), float("inf")):
        with pytest.raises(ModelError, match="scalar: expected"):
            make_machine(scalar=scalar)
    for size in (193, "1000", 1e6):
        with pytest.raises(ConfigError, match=f"max_message_size: expected 194 or more, or None, got {size!r}"):
            make_machine(max_message_size=size)
    with pytest.raises(ConfigError, match="signing_key: expected a SigningKeyPair, got bytes"):
        ParticipantMachine(signing_key=bytes(32), entropy=bytes)
    for seed in (bytes(31), bytes(33), b"", "0" * 32):
        with pytest.raises(ConfigError, match="ephemeral_seed: expected 32 bytes, or None, got something else"):
            make_machine(ephemeral_seed=seed)


def test_a_request_is_repeated_until_it_is_answered_and_answers_need_requests():
    machine = make_machine()
    assert machine.next_request() == machine.next_request() == GetParameters()
    machine.receive_failure()
    assert machine.next_request() is None
    assert machine.next_request() == GetParameters()
    machine.receive(round_parameters("none").to_bytes())
    with pytest.raises(LocalProtocolError, match="only after next_request"):
        machine.receive(b"")
    with pytest.raises(LocalProtocolError, match="only after next_request"):
        machine.receive_failure()


def scripts_up_to(state: ParticipantState) -> tuple[ParticipantMachine, Script]:
    """Bring a machine that sends in chunks into a state, with nothing missing for the next step."""
    task = "update" if "update" in state.value else "sum"
    machine = make_machine(max_message_size=194 + 100)
    script = Script(round_parameters(task, length=60), sums=SUMS)
    if state is ParticipantState.AWAITING:
        return machine, Script(round_parameters("none"))
    for _ in range(100):
        if machine.state is state:
            return machine, script
        step(machine, script)
        if machine.state is ParticipantState.SENDING_SUM:
            ephemeral_public_key = machine._round._ephemeral_keys().public_key
            script.seeds = encode_seed_dictionary({b"u" * 32: seal(b"m" * 32, ephemeral_public_key)})
        if machine.state is ParticipantState.UPDATE:
            machine.set_model(weights(1, length=60))
    raise AssertionError(f"{state} was not reached")


@pytest.mark.parametrize("state", ParticipantState)
def test_a_failed_request_changes_nothing_and_is_made_again(state):
    machine, script = scripts_up_to(state)
    before = machine.save()
    good = (script.parameters, script.sums, script.seeds, script.receipt)
    failure = TransportError("no route")

    script.parameters = failure
    assert step(machine, script) == [GetParameters()]
    assert not machine.made_progress
    script.parameters = good[0]

    script.sums = script.seeds = script.receipt = failure
    if state in {ParticipantState.UPDATE, ParticipantState.SUM2} or "sending" in state.value:
        first = step(machine, script)
        assert not machine.made_progress
        assert machine.save() == before
        assert machine.state is state
        _, script.sums, script.seeds, script.receipt = good
        assert step(machine, script)[: len(first)] == first
        assert machine.made_progress


@pytest.mark.parametrize("state", ParticipantState)
def test_a_new_round_ends_whatever_was_under_way(state):
    machine, script = scripts_up_to(state)
    take_events(machine)
    script.parameters = round_parameters("none", seed=99)
    assert step(machine, script) == [GetParameters()]
    assert machine.state is ParticipantState.NEW_ROUND
    assert NewRound(parameters=script.parameters) in take_events(machine)
    assert machine._round.outbox is None
    assert machine._round._ephemeral_seed is None


def test_the_table_has_no_dead_ends_and_no_unreachable_states():
    reachable = {ParticipantState.AWAITING}
    for _ in ParticipantState:
        reachable |= {target for (source, _), target in PARTICIPANT_TRANSITIONS.items() if source in reachable}
    assert reachable == set(ParticipantState)
    assert {trigger for _, trigger in PARTICIPANT_TRANSITIONS} == set(ParticipantTrigger)
    for state in ParticipantState:
        assert PARTICIPANT_TRANSITIONS[state, ParticipantTrigger.ROUND_CHANGED] is ParticipantState.NEW_ROUND


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "malformed_parameters"),
        (b"", "malformed_parameters"),
        (round_parameters("sum").to_bytes() + b"\0", "trailing_bytes"),
        (bytes(136), "malformed_parameters"),
    ],
)
def test_malformed_parameters_are_reported_and_change_nothing(answer, reason):
    machine, script = in_sum2()
    before = machine.save()
    take_events(machine)
    script.parameters = answer
    step(machine, script)
    assert not machine.made_progress
    assert machine.save() == before
    (event,) = take_events(machine)
    assert isinstance(event, AnswerRefused)
    assert (event.request, event.reason) == ("parameters", reason)


def test_a_coordinator_key_that_nothing_can_be_sealed_for_is_refused():
    machine = make_machine()
    data = bytearray(round_parameters("sum").to_bytes())
    data[8:40] = bytes(32)
    step(machine, Script(bytes(data)))
    assert machine.state is ParticipantState.AWAITING
    assert take_events(machine)[0].reason == "low_order_key"


@pytest.mark.parametrize("answer", [b"", SUMS[:-1], SUMS + b"\0", encode_sum_dictionary({})])
def test_malformed_sums_are_reported_and_asked_for_again(answer):
    machine, script = make_machine(), Script(round_parameters("update"), sums=answer)
    steps(machine, script, 2)
    machine.set_model(weights(1))
    take_events(machine)
    step(machine, script)
    (event,) = take_events(machine)
    assert isinstance(event, AnswerRefused)
    assert event.request == "sums"
    assert machine.has_model
    script.sums = SUMS
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE


def test_malformed_seeds_are_reported_and_asked_for_again():
    machine, script = in_sum2()
    take_events(machine)
    script.seeds = b"\1" + bytes(7)
    step(machine, script)
    (event,) = take_events(machine)
    assert (event.request, event.reason) == ("seeds", "malformed_seeds")
    assert machine.state is ParticipantState.SUM2


def test_one_seed_that_cannot_be_opened_ends_the_task_without_a_message():
    machine, script = in_sum2({b"u" * 32: bytes(80)})
    script.received.clear()
    step(machine, script)
    assert machine.state is ParticipantState.AWAITING
    event = take_events(machine)[-1]
    assert isinstance(event, TaskAbandoned)
    assert event.reason == "unusable_seed"
    step(machine, script)
    assert script.received == []


def test_more_seeds_than_the_mask_config_allows_end_the_task():
    machine, script = in_sum2()
    ephemeral_public_key = machine._round._ephemeral_keys().public_key
    box = seal(b"m" * 32, ephemeral_public_key)
    script.seeds = encode_seed_dictionary({number.to_bytes(32, "big"): box for number in range(1001)})
    step(machine, script)
    assert machine.state is ParticipantState.AWAITING
    assert take_events(machine)[-1].reason == "too_many_seeds"


def test_ephemeral_keys_of_low_order_get_an_entry_of_random_bytes():
    machine = make_machine()
    sums = encode_sum_dictionary({b"a" * 32: bytes(32), b"b" * 32: SUM_KEYS.public_key})
    script = Script(round_parameters("update"), sums=sums)
    step(machine, script)
    machine.set_model(weights(1))
    steps(machine, script, 3)
    payload = open_body(script.received[0], Tag.UPDATE)
    assert len(payload.local_seed_dictionary[b"a" * 32]) == 80
    assert len(open_sealed(payload.local_seed_dictionary[b"b" * 32], SUM_KEYS)) == 32


def test_a_second_masked_model_is_not_signed_in_the_same_round():
    machine, script = ready_to_send_update()
    step(machine, script)
    first, other = script.parameters, round_parameters("none", seed=8)
    script.parameters = other
    step(machine, script)
    script.parameters = first
    take_events(machine)
    machine.set_model(weights(2))
    steps(machine, script, 4)
    assert len(script.received) == 1
    assert take_events(machine)[-1].reason == "already_signed"
    script.parameters = round_parameters("update", seed=9)
    steps(machine, script, 4)
    assert len(script.received) == 2


def test_an_update_in_chunks_arrives_in_order_and_a_failed_chunk_is_sent_again_as_it_is():
    machine, script = make_machine(max_message_size=300), Script(round_parameters("update", length=40), sums=SUMS)
    steps(machine, script, 2)
    machine.set_model(weights(1, length=40))
    step(machine, script)
    script.receipt = TransportError("reset")
    step(machine, script)
    step(machine, script)
    script.receipt = None
    while machine.state is ParticipantState.SENDING_UPDATE:
        step(machine, script)
    assert script.received[0] == script.received[1] == script.received[2]
    bodies = script.received[2:]
    chunks = [open_body(body, Tag.UPDATE) for body in bodies]
    assert [chunk.chunk_id for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {len(body) for body in bodies[:-1]} == {300}
    assert len(bodies[-1]) <= 300
    assert len({chunk.message_id for chunk in chunks}) == 1
    payload = UpdatePayload.decode(b"".join(bytes(chunk.data) for chunk in chunks))
    assert len(payload.masked_model) == 40


def test_with_fresh_parameters_only_the_first_chunk_asks_for_them():
    machine, script = ready_to_send_update(max_message_size=300)
    assert [type(request) for request in step(machine, script)] == [GetParameters, SendMessage]
    machine.has_fresh_parameters = True
    assert [type(request) for request in step(machine, script)] == [SendMessage]
    script.parameters = round_parameters("none", seed=9)
    machine.has_fresh_parameters = False
    assert step(machine, script) == [GetParameters()]
    assert machine.state is ParticipantState.NEW_ROUND
    machine.has_fresh_parameters = True
    assert step(machine, script) == [GetParameters()]


def test_a_message_that_fits_is_not_split():
    # A sum message: 48 + 136 + 96 bytes.
    for size, is_split in ((280, False), (279, True)):
        machine, script = make_machine(max_message_size=size), Script(round_parameters("sum"))
        steps(machine, script, 4)
        assert len(script.received) == 1
        assert (machine.state is ParticipantState.SENDING_SUM) is is_split


def test_a_message_of_too_many_chunks_ends_the_task():
    length = 2**16
    machine = make_machine(max_message_size=194)
    script = Script(round_parameters("update", length=length), sums=SUMS)
    step(machine, script)
    machine.set_model(np.zeros(length, np.float32))
    steps(machine, script, 2)
    assert machine.state is ParticipantState.AWAITING
    assert take_events(machine)[-1].reason == "message_too_large"
    assert not machine.has_model


def test_events_that_nobody_reads_are_bounded():
    machine, script = make_machine(), Script(b"")
    steps(machine, script, 1000)
    assert len(take_events(machine)) == 256


def test_an_interrupt_in_the_middle_of_the_work_leaves_the_state_as_it_was():
    machine, script = make_machine(), Script(round_parameters("update"), sums=SUMS)
    steps(machine, script, 2)
    machine.set_model(weights(1))
    entropy = machine._round._options.entropy

    def interrupt(size: int) -> bytes:
        raise KeyboardInterrupt

    exchange_option(machine, entropy=interrupt)
    with pytest.raises(KeyboardInterrupt):
        step(machine, script)
    exchange_option(machine, entropy=entropy)
    assert machine.state is ParticipantState.UPDATE
    assert machine.has_model
    assert machine.next_request() is None
    step(machine, script)
    assert machine.state is ParticipantState.SENDING_UPDATE


@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200), state=st.sampled_from(list(ParticipantState)))
def test_any_answer_is_taken_without_a_crash(data, state):
    machine, script = scripts_up_to(state)
    script.sums = script.seeds = data
    step(machine, script)
    script.parameters = data
    step(machine, script)
    take_events(machine)
    assert machine.save()


@pytest.mark.parametrize("config", [F32, I64, MaskConfig.parse("power2-f64-bmax-m3")])
@pytest.mark.parametrize("max_message_size", [None, 300])
def test_whole_rounds_with_a_real_coordinator_give_the_weighted_mean(config, max_message_size):
    world = World(quick_settings(config, length=10))
    scalars = [Fraction(1, 2 + number % 3) for number in range(10)]
    machines = [make_machine(number, scalar=scalars[number], max_message_size=max_message_size) for number in range(10)]
    models = [weights(number, 10, config) for number in range(10)]
    updates = set()
    for _ in range(3):
        for _ in range(3):
            for machine, model in zip(machines, models, strict=True):
                world.step_all([machine])
                for event in iter(machine.next_event, None):
                    if isinstance(event, ModelWanted):
                        machine.set_model(model)
                    if isinstance(event, NewRound):
                        updates.discard(machine.public_key)
                    if isinstance(event, UpdateSelected):
                        updates.add(machine.public_key)
                    assert not isinstance(event, (AnswerRefused, TaskAbandoned))
                world.step_all([machine])
            world.pass_phase()
        status = world.engine.status()
        assert status["rejected"] == {}
    assert world.engine.status()["rounds_failed"] == 0
    assert world.engine.status()["rounds_completed"] == 3
    chosen = [number for number in range(10) if machines[number].public_key in updates]
    total = sum(scalars[number] for number in chosen)
    expected = [
        sum(scalars[number] * Fraction(models[number][index].item()) for number in chosen) / total for index in range(10)
    ]
    got = world.engine.model().model.to_fractions()
    # Each model and each scalar loses up to one step; the scalars' loss counts as often as the weights are large.
    largest = max(int(abs(model).max()) for model in models) + 1
    tolerance = Fraction(len(chosen) * (1 + largest), config.exp_shift) / total
    assert all(abs(left - right) <= tolerance for left, right in zip(got, expected, strict=True))


def test_participants_outlive_a_restart_of_the_coordinator():
    machines = [make_machine(number) for number in range(10)]
    for start in itertools.count(1, 1000):
        world = World(start=start)
        for _ in range(1 if start == 1 else 3):
            world.step_all(machines)
            for machine in machines:
                if any(isinstance(event, ModelWanted) for event in iter(machine.next_event, None)):
                    machine.set_model(weights(1))
            world.step_all(machines)
            world.pass_phase()
        if start > 1:
            break
    assert world.engine.status()["rounds_completed"] == 1
    assert signing_key(0).public_key == machines[0].public_key
