"""Every phase times everything that can happen: it moves as the table says, or is refused with the state as before."""

import copy
import itertools
from collections.abc import Callable

import pytest
from coordinator_driver import Session, counting_entropy, snapshot
from coordinator_messages import BAD, CHUNKS, GOOD, Builder
from hypothesis import given, settings
from hypothesis import strategies as st

from pet.errors import RemoteProtocolError
from pet.messages import Message, Tag
from pet.protocol import ACCEPTED_TAG, TRANSITIONS, Coordinator, Event, Phase, PhaseEntered
from pet.protocol.phases import XAYNET_PHASES

ALL_MESSAGES: dict[str, tuple[Tag, Builder]] = {
    **{f"good {tag.name}": (tag, builder) for tag, builder in GOOD.items()},
    **{name: (tag, builder) for name, (tag, builder, _) in BAD.items()},
    **CHUNKS,
}


def in_phase(phase: Phase) -> Session:
    """Return a session in any phase, also those that are passed through: as if the owner looked between two moves."""
    session = Session()
    start = {
        Phase.IDLE: session.collect,
        Phase.UPDATE: session.to_update,
        Phase.SUM2: session.to_sum2,
        Phase.UNMASK: session.to_sum2,
    }
    start.get(phase, session.to_sum)()
    if phase is Phase.UNMASK:
        session.send(GOOD[Tag.SUM2](session, 0))
    if phase is Phase.SHUTDOWN:
        session.coordinator.shut_down()
        session.collect()
    session.coordinator.state.phase = phase
    return session


def assert_moves_as_the_table_says(start: Phase, events: list[Event]) -> None:
    """Check that each phase that was entered follows from the one before by some trigger."""
    for event in events:
        if event == PhaseEntered(round_id=1, phase=Phase.IDLE):
            continue  # before the first round, entering IDLE is no move
        if isinstance(event, PhaseEntered):
            assert event.phase in {end for (phase, _), end in TRANSITIONS.items() if phase is start}
            start = event.phase


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in XAYNET_PHASES.phases])
@pytest.mark.parametrize("name", ALL_MESSAGES)
def test_each_message_in_each_phase_is_taken_or_changes_nothing(phase: Phase, name: str) -> None:
    tag, builder = ALL_MESSAGES[name]
    prepared = in_phase(phase)
    # Before its first round nobody can know the keys of a coordinator: the message is for another one.
    message = builder(Session(round_id=5, entropy=counting_entropy(99)).to_sum() if phase is Phase.IDLE else prepared, 0)
    coordinator = prepared.coordinator
    # Time passes first, and takes the coordinator through the phases that do not rest.
    drawn = 1 if phase is Phase.IDLE else 2
    passed = Coordinator.from_state(prepared.settings, copy.deepcopy(coordinator.state), entropy=counting_entropy(drawn))
    passed.advance_time(prepared.now)
    try:
        coordinator.receive(message, prepared.now)
    except RemoteProtocolError:
        assert snapshot(coordinator.state) == snapshot(passed.state)
    else:
        assert ACCEPTED_TAG[passed.phase] is tag
        assert coordinator.phase is passed.phase
    assert_moves_as_the_table_says(phase, prepared.collect())


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in XAYNET_PHASES.phases])
def test_time_moves_each_phase_as_the_table_says(phase: Phase) -> None:
    session = in_phase(phase)
    events = session.wait(1e6)
    assert_moves_as_the_table_says(phase, events)
    assert session.coordinator.phase in ACCEPTED_TAG or phase is Phase.SHUTDOWN


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase in XAYNET_PHASES.phases])
def test_shutting_down_moves_each_phase_as_the_table_says(phase: Phase) -> None:
    session = in_phase(phase)
    session.coordinator.shut_down()
    assert_moves_as_the_table_says(phase, session.collect())
    assert session.coordinator.phase is Phase.SHUTDOWN


Operation = Callable[[Session], None]


def sending(name: str | None, number: int) -> Operation:
    """Send a message of some kind; None stands for a good one that fits the phase."""

    def operate(session: Session) -> None:
        state = session.coordinator.state
        builder = GOOD[ACCEPTED_TAG[state.phase]] if name is None else ALL_MESSAGES[name][1]
        assert state.round is not None
        message: Message = builder(session, number)
        before, chunks = snapshot(state), len(state.round.chunks)
        try:
            session.send(message)
        except RemoteProtocolError:
            after = snapshot(state)
            if message.is_multipart and len(state.round.chunks) < chunks:
                # The chunks of a refused message go with it.
                before["round"].pop("chunks")
                after["round"].pop("chunks")
            assert after == before

    return operate


def waiting(seconds: float) -> Operation:
    def operate(session: Session) -> None:
        before, deadline = session.coordinator.phase, session.coordinator.next_deadline_seconds()
        session.wait(seconds)
        if deadline is not None and session.now < deadline:
            assert session.coordinator.phase is before

    return operate


def shutting_down(session: Session) -> None:
    session.coordinator.shut_down()


numbers = st.integers(0, 3)
operations = st.one_of(
    st.builds(sending, st.none(), numbers),
    st.builds(sending, st.sampled_from(sorted(CHUNKS)), numbers),
    st.builds(sending, st.sampled_from(sorted(ALL_MESSAGES)), numbers),
    st.builds(waiting, st.sampled_from([0.0, 1.0, 5.0, 10.0, 30.0, 80.0])),
)
# Left to chance alone, few rounds get beyond the Update phase: whole phases that go well are mixed in.
good_phase = [sending(None, number) for number in range(3)] + [waiting(10.0)]
happenings = st.lists(st.one_of(operations.map(lambda operation: [operation]), st.just(good_phase)), max_size=20)


@settings(max_examples=40, deadline=None)
@given(happenings, st.booleans())
def test_whatever_happens_in_whatever_order_the_table_and_the_windows_hold(
    happening: list[list[Operation]], ends: bool
) -> None:
    session = Session()
    session.wait()
    for operate in [*itertools.chain(*happening), *([shutting_down] if ends else [])]:
        operate(session)
        session.collect()
        state = session.coordinator.state
        accepted, window = (
            state.counters.accepted,
            {
                Phase.SUM: session.settings.sum,
                Phase.UPDATE: session.settings.update,
                Phase.SUM2: session.settings.sum2,
            }.get(state.phase),
        )
        assert window is None or accepted <= window.max_count
        assert state.round is not None
        assert state.round.aggregation.count == len(state.round.update_participants)
        assert all(seeds.keys() == state.round.update_participants for seeds in state.round.seed_dictionary.values())
    assert_moves_as_the_table_says(Phase.IDLE, session.events)
