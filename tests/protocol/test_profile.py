"""A profile is the only place that knows what a variant of the protocol is: a toy one runs on the machine of xaynet's."""

from __future__ import annotations

from typing import Any

import pytest
from toy_profile import TOY, Join, Number, Published, ToySettings, ToyTag

import pet.profile
from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.messages import XAYNET_PAYLOADS, Message, Refused, SumPayload, open_message, seal_message, split_message
from pet.protocol import Coordinator, Phase, PhaseWindow, events
from pet.protocol.round_machine import RoundMachine
from pet.protocol.xaynet import XaynetRules

KEYS = [SigningKeyPair.from_seed(bytes([number]) * 32) for number in (1, 2, 3)]
WINDOW = PhaseWindow(min_count=2, max_count=3, min_seconds=1, max_seconds=10)


class Session:
    def __init__(self) -> None:
        self.now = 100.0
        self.machine = RoundMachine(TOY, ToySettings(WINDOW, WINDOW), now_seconds=self.now, entropy=lambda size: bytes(size))
        self.machine.advance_time(self.now)
        self.events: list[Any] = []

    def send(self, key: SigningKeyPair, payload: Any, max_message_size: int | None = None) -> Any:
        """Send what a participant says, as the bytes that travel."""
        machine = self.machine
        assert machine.encryption_keys is not None
        message = Message(
            participant_public_key=key.public_key,
            coordinator_public_key=machine.encryption_keys.public_key,
            payload=payload,
            tag=payload.tag,
        )
        entry = None
        for part in split_message(message, max_message_size, 7):
            body = seal_message(part, key)
            opened = TOY.open_message(body, machine.encryption_keys, machine.accepted_tag)
            entry = machine.receive(opened, self.now)
        return entry

    def wait(self, seconds: float) -> list[Any]:
        self.now += seconds
        self.machine.advance_time(self.now)
        return self.collect()

    def collect(self) -> list[Any]:
        new = list(iter(self.machine.next_event, None))
        self.events += new
        return new

    def join(self, count: int = 2) -> Session:
        for key in KEYS[:count]:
            self.send(key, Join())
        self.wait(1)
        assert self.machine.phase is Phase.UPDATE
        return self


def published(found: list[Any]) -> list[tuple[str, object]]:
    return [(event.what, event.value) for event in found if isinstance(event, Published)]


def test_a_round_of_two_phases_gives_its_result() -> None:
    session = Session().join()
    assert session.send(KEYS[0], Number(40)) == (KEYS[0].public_key, Number(40))
    # The pieces of a message are put together whatever it is about.
    session.send(KEYS[1], Number(2), max_message_size=210)
    found = session.wait(1)
    assert published(found)[:1] == [("total", 42)]
    assert session.machine.phase is Phase.SUM
    assert session.machine.state.rounds_completed == 1
    assert [event.tag for event in session.events if isinstance(event, events.MessageAccepted)] == [
        *[ToyTag.JOIN] * 2,
        *[ToyTag.NUMBER] * 2,
    ]
    assert ("joined", 2) in published(session.events)


def test_what_the_rules_refuse_is_counted_and_changes_nothing() -> None:
    session = Session().join()
    with pytest.raises(RemoteProtocolError) as caught:
        session.send(KEYS[2], Number(1))
    assert caught.value.reason == "not_joined"
    status = session.machine.status(session.now)
    assert (status.accepted, status.rejected) == (0, {"not_joined": 1})
    assert status.waiting is not None
    assert (status.waiting.kind, status.waiting.reopens_at_time_out) == (ToyTag.NUMBER, False)
    with pytest.raises(RemoteProtocolError, match="expected NUMBER in this phase, got JOIN"):
        session.send(KEYS[2], Join())


def test_a_round_fails_for_the_reasons_of_its_profile() -> None:
    session = Session()
    found = session.wait(10)  # nobody joined: this profile has no round that is opened anew
    failures = [event for event in found if isinstance(event, events.RoundFailed)]
    assert [(event.reason, event.description[-1]) for event in failures] == [("too_late", "!")]
    assert ("nothing", None) in published(found)
    session.join(3)
    session.send(KEYS[0], Number(1))
    session.send(KEYS[1], Number(1))
    found = session.wait(1)
    assert [event.reason for event in found if isinstance(event, events.RoundFailed)] == ["incomplete"]
    session.join()
    session.send(KEYS[0], Number(1000))
    session.send(KEYS[1], Number(1))
    found = session.wait(1)
    assert [event.reason for event in found if isinstance(event, events.RoundFailed)] == ["too_much"]
    assert session.machine.state.rounds_failed == 3


def test_a_machine_goes_on_from_a_state_and_announces_it_again() -> None:
    session = Session().join()
    session.send(KEYS[0], Number(1))
    settings, state = session.machine.settings, session.machine.state
    session.machine = RoundMachine(TOY, settings, now_seconds=session.now, entropy=lambda size: bytes(size), state=state)
    session.machine.announce_again()
    assert [type(event) for event in session.collect()] == [events.PhaseEntered, Published]
    session.send(KEYS[1], Number(2))
    assert ("total", 3) in published(session.wait(1))
    session.machine.shut_down()
    assert published(session.collect())[-1:] == [("nothing", None)]
    session.machine.announce_again()
    assert session.collect() == []


def test_phases_that_a_profile_does_not_have_are_refused() -> None:
    session = Session().join()
    session.machine.state.phase = Phase.SUM2
    with pytest.raises(LocalProtocolError, match="phase sum2: expected nothing, got 'shut down'"):
        session.machine.shut_down()


def test_tags_of_another_profile_are_unknown() -> None:
    session = Session()
    assert session.machine.encryption_keys is not None
    message = Message(
        participant_public_key=KEYS[0].public_key,
        coordinator_public_key=session.machine.encryption_keys.public_key,
        payload=SumPayload(sum_signature=bytes(64), ephemeral_public_key=bytes(32)),
        tag=XAYNET_PAYLOADS.tags(1),
    )
    body = seal_message(message, KEYS[0])
    with pytest.raises(RemoteProtocolError, match="expected one of 33, 34, got 1") as caught:
        open_message(body, session.machine.encryption_keys, ToyTag.JOIN, codec=TOY.codec)
    assert caught.value.reason == "unknown_tag"


def test_a_profile_that_opens_nothing_together_opens_and_checks_one_after_the_other() -> None:
    session = Session()
    keys = session.machine.encryption_keys
    assert keys is not None
    message = Message(
        participant_public_key=KEYS[0].public_key,
        coordinator_public_key=keys.public_key,
        payload=Join(),
        tag=ToyTag.JOIN,
    )
    bodies = [memoryview(seal_message(message, KEYS[0])), memoryview(bytearray(100))]
    opened, refused = TOY.open_messages(bodies, keys, session.machine.accepted_tag)
    assert opened == message
    assert isinstance(refused, Refused)
    assert refused.reason == "decryption"
    (checked,) = session.machine.check_senders([message])
    assert checked is not None
    assert checked.refused is None
    session.machine.take(message, checked)
    assert session.machine.status(session.now).accepted == 1


def test_xaynets_profile_is_what_its_coordinator_runs() -> None:
    xaynet = pet.profile.XAYNET
    assert (xaynet.name, xaynet.codec) == ("xaynet", XAYNET_PAYLOADS)
    assert isinstance(xaynet.rules, XaynetRules)
    assert issubclass(Coordinator, RoundMachine)
