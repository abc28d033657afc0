"""What `pet bench --profiles` compares: a whole round of xaynet's profile beside one of pet/1, role by role, on one thread.

Both are played in this process by the objects that take part in real rounds: what they do is theirs, and nothing of it is a
network's or a disk's. Every round has other weights and keys. Under xaynet's profile one sum participant answers, who could
unmask every update by itself if it had them; under pet/1 five members do, three of whom would have to collude.

This file plays and times; it knows neither tables nor files.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from pet.commands.bench_comparison import CONFIG, elapsed_ns
from pet.coordinator.engine import CoordinatorEngine
from pet.crypto import SUM_TASK, UPDATE_TASK, SigningKeyPair, seal
from pet.errors import PetError
from pet.field_config import FieldConfig
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.participant import TickParticipant
from pet.pet1.answers import build_piece
from pet.pet1.enrolment import Enrolment, EnrolmentPolicy
from pet.pet1.round_record import RoundRecord
from pet.plan import Plan
from pet.protocol.participant_events import SendMessage
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import UpdateParticipant
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
)
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.round_settings import RoundSettings
from pet.protocol.strategies import Strategies, TaskAllowList, take_assigned_task
from pet.protocol.windows import PhaseWindow
from pet.transports.in_process import InProcessTransport

PET1_CONFIG: Final = MaskConfig.parse("pet-1/z32,f32,bound=1,models=1000")
PLAN: Final = Plan(groups=1, members=5, threshold=3, quorum=4)
#: As few as both profiles take.
UPDATE_COUNT: Final = 3
#: Rounds of each profile, in turns.
TURNS: Final = 3
_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCost:
    """What a round cost, by role.

    Attributes:
        update_ns: an update participant, from the weights to the body, per weight.
        upload_ns: the coordinator, for one update, per weight.
        last_byte_ns: from the last byte of an update to its answer.
        summing_ns: a sum participant or member, per weight and update.
        result_ns: the coordinator, for all answers and the model, per weight.
        update_bytes: of an update, per weight.
        answer_bytes: of a sum participant's or a member's answer, per weight.
    """

    update_ns: float
    upload_ns: float
    last_byte_ns: float
    summing_ns: float
    result_ns: float
    update_bytes: float
    answer_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileComparison:
    """One figure of both profiles.

    Attributes:
        role: whose; "summing" is a sum participant, or a member.
        what: what was measured, with its unit: per weight (and update, where masks are summed) but for the time in ms.
        xaynet: under xaynet's profile.
        pet1: under pet/1.
    """

    role: str
    what: str
    xaynet: float
    pet1: float


def compare(length: int, done: Callable[[], None]) -> list[ProfileComparison]:
    """Play rounds of both profiles in turns, and return the medians.

    Args:
        length: weights of the model, at least 1.
        done: called after each round.
    """
    costs: tuple[list[RoundCost], list[RoundCost]] = ([], [])
    for number in range(TURNS):
        models = [_random_weights(length, UPDATE_COUNT * number + i) for i in range(UPDATE_COUNT)]
        for costs_of_one, play in zip(costs, (play_xaynet, play_pet1), strict=True):
            costs_of_one.append(play(models))
            done()
    return list(_table(*costs))


def _table(xaynet: Sequence[RoundCost], pet1: Sequence[RoundCost]) -> Iterator[ProfileComparison]:
    rows = [
        ("participant", "mask an update, ns", "update_ns", 1.0),
        ("participant", "send an update, bytes", "update_bytes", 1.0),
        ("coordinator", "take an update, ns", "upload_ns", 1.0),
        ("coordinator", "last byte to answer, ms", "last_byte_ns", 1e-6),
        ("summing", "sum masks, ns", "summing_ns", 1.0),
        ("summing", "send an answer, bytes", "answer_bytes", 1.0),
        ("coordinator", "answers to model, ns", "result_ns", 1.0),
    ]
    for role, what, name, scale in rows:
        medians = [scale * statistics.median(getattr(cost, name) for cost in costs) for costs in (xaynet, pet1)]
        yield ProfileComparison(role=role, what=what, xaynet=medians[0], pet1=medians[1])


def _random_weights(length: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).uniform(-1, 1, length).astype(np.float32)


# ---- xaynet's profile -----------------------------------------------------------------------------------------------


class _TimedTransport(InProcessTransport):
    """Takes the coordinator's part out of a participant's time."""

    def __init__(self, engine: CoordinatorEngine) -> None:
        super().__init__(engine)
        self.outside_ns = 0
        self.sent: list[tuple[int, int]] = []  # bytes of each message, and how long the coordinator had it

    def carry_out(self, request: Any, **options: Any) -> Any:
        begin = time.perf_counter_ns()
        answer = super().carry_out(request, **options)
        took = time.perf_counter_ns() - begin
        self.outside_ns += took
        if isinstance(request, SendMessage):
            self.sent.append((len(request.body), took))
        return answer


def play_xaynet(models: Sequence[np.ndarray[Any, Any]]) -> RoundCost:
    """Play a round of xaynet's profile with one sum participant."""
    length, count = len(models[0]), len(models)
    sum_key, *keys = (SigningKeyPair.generate() for _ in range(count + 1))
    tasks = TaskAllowList(frozenset([sum_key.public_key]), frozenset(key.public_key for key in keys))
    engine = CoordinatorEngine(_xaynet_settings(length, count), strategies=Strategies(check_task=tasks))
    engine.tick()
    summing, its_transport = _join(engine, sum_key, SUM_TASK)
    _tick_until_sent(summing, its_transport)
    updating = [_join(engine, key, UPDATE_TASK) for key in keys]
    update_ns = [
        _tick_with(participant, transport, model) / length
        for (participant, transport), model in zip(updating, models, strict=True)
    ]
    before = len(its_transport.sent)
    summing_ns = _tick_until_sent(summing, its_transport)
    answer_bytes, result_ns = its_transport.sent[before]
    if engine.model() is None:
        raise PetError("bench: expected a model of the round, got none")
    uploads = [transport.sent[-1] for _, transport in updating]
    handled = statistics.median(took for _, took in uploads)
    engine.shut_down()
    return RoundCost(
        update_ns=statistics.median(update_ns),
        upload_ns=handled / length,
        last_byte_ns=handled,  # nothing of a message can be looked at before it is whole
        summing_ns=summing_ns / length / count,
        result_ns=result_ns / length,
        update_bytes=uploads[0][0] / length,
        answer_bytes=answer_bytes / length,
    )


def _xaynet_settings(length: int, update_count: int) -> RoundSettings:
    def window(count: int) -> PhaseWindow:
        return PhaseWindow(min_count=count, max_count=count, min_seconds=0.0, max_seconds=_SECONDS)

    return RoundSettings(
        sum_probability=0.5,
        update_probability=0.5,
        mask_config=MaskConfigPair.of(CONFIG),
        model_length=length,
        sum=window(1),
        update=window(update_count),
        sum2=window(1),
    )


def _join(engine: CoordinatorEngine, key: SigningKeyPair, task: bytes) -> tuple[TickParticipant, _TimedTransport]:
    transport = _TimedTransport(engine)
    participant = TickParticipant(transport, signing_key=key, threads=1, choose_task=take_assigned_task(task))
    return participant, transport


def _tick_with(participant: TickParticipant, transport: _TimedTransport, model: np.ndarray[Any, Any]) -> int:
    """Return the participant's own nanoseconds from the weights to the message."""
    while not participant.should_set_model:
        participant.tick()
    return elapsed_ns(lambda: participant.set_model(model)) + _tick_until_sent(participant, transport)


def _tick_until_sent(participant: TickParticipant, transport: _TimedTransport) -> int:
    """Return the participant's own nanoseconds until it has sent one more message."""
    sent, outside, begin = len(transport.sent), transport.outside_ns, time.perf_counter_ns()
    while len(transport.sent) == sent:
        participant.tick()
    return time.perf_counter_ns() - begin - (transport.outside_ns - outside)


# ---- pet/1 ----------------------------------------------------------------------------------------------------------


class _Pet1Rounds:
    """A coordinator of pet/1 in this process: what would be requests are calls."""

    def __init__(self, settings: Pet1Settings) -> None:
        self.now = time.time()
        self.machine = Pet1Coordinator(settings, now_seconds=self.now, entropy=os.urandom, round_id=int(self.now), threads=1)
        self.published: list[Any] = []
        self.collect()

    def collect(self) -> None:
        self.machine.advance_time(self.now)
        self.published += iter(self.machine.next_event, None)

    def post(self, body: bytes) -> int:
        """Take a sealed message; return the nanoseconds that it took."""
        keys = self.machine.encryption_keys
        assert keys is not None, "a round is open"

        def take() -> None:
            self.machine.receive(self.machine.profile.open_message(body, keys, self.machine.accepted_tag), self.now)
            self.collect()

        return elapsed_ns(take)

    def latest(self, kind: type[Any]) -> Any:
        """Return the last thing of a kind that was published."""
        return [event for event in self.published if isinstance(event, kind)][-1]


def play_pet1(models: Sequence[np.ndarray[Any, Any]]) -> RoundCost:
    """Play a round of pet/1 with a committee of five."""
    assert isinstance(PET1_CONFIG, FieldConfig), "it is a config of pet-1"
    length, count = len(models[0]), len(models)
    keys = [SigningKeyPair.generate() for _ in range(count)]
    member_keys = [SigningKeyPair.generate() for _ in range(PLAN.member_count)]
    enrolment = Enrolment(
        version=1,
        plan=PLAN,
        min_updates=count,
        members=tuple(key.public_key for key in member_keys),
        participants=tuple(sorted(key.public_key for key in keys)),
    )
    rounds = _Pet1Rounds(
        Pet1Settings(
            config=PET1_CONFIG,
            model_length=length,
            served_enrolment=enrolment.to_bytes() + bytes(64),
            min_updates=count,
            min_count=count,
            max_count=count,
        )
    )
    common: dict[str, Any] = {
        "policy": EnrolmentPolicy(digest=enrolment.digest),
        "entropy": os.urandom,
        "store": lambda _state: None,
        "threads": 1,
    }
    members = [MemberMachine(signing_key=key, **common) for key in member_keys]
    announced = rounds.latest(RoundAnnounced)
    coordinator_key = RoundRecord.from_bytes(announced.record).coordinator_key
    for member in members:
        message = member.join(announced.record, announced.enrolment, int(rounds.now))
        assert message is not None, "every one of these is a member"
        rounds.post(seal(message, coordinator_key))
    updates = [
        _update_pet1(rounds, UpdateParticipant(signing_key=key, **common), model)
        for key, model in zip(keys, models, strict=True)
    ]
    summing_ns, answers = _answer_pet1(rounds, members, coordinator_key)
    if not any(isinstance(event, TotalPublished) for event in rounds.published):
        raise PetError("bench: expected a model of the round, got none")
    return RoundCost(
        update_ns=statistics.median(each[0] for each in updates) / length,
        upload_ns=statistics.median(each[1] for each in updates) / length,
        last_byte_ns=statistics.median(each[2] for each in updates),
        summing_ns=statistics.median(summing_ns) / length / count,
        result_ns=sum(took for _, took in answers) / length,
        update_bytes=updates[0][3] / length,
        answer_bytes=answers[0][0] / length,
    )


def _update_pet1(rounds: _Pet1Rounds, participant: UpdateParticipant, model: np.ndarray[Any, Any]) -> tuple[int, int, int, int]:
    """Send an update; return nanoseconds of the participant, of the coordinator, of its last leaf, and bytes."""
    announced, committee = rounds.latest(RoundAnnounced), rounds.latest(CommitteePublished).committee
    participant.join(announced.record, announced.enrolment, int(rounds.now))
    begin = time.perf_counter_ns()
    update = participant.mask(committee, model)
    masked_ns, begin = time.perf_counter_ns() - begin, time.perf_counter_ns()
    rounds.machine.open_update(update.sealed, rounds.now)
    taken_ns, last_ns = time.perf_counter_ns() - begin, 0
    for index in range(update.leaf_count):  # one by one, as they arrive
        leaf = b"".join(build_piece(update.header.digest, range(index, index + 1), update.vector))
        last_ns = elapsed_ns(partial(rounds.machine.take_piece, leaf, rounds.now))
        taken_ns += last_ns
    rounds.collect()
    return masked_ns, taken_ns, last_ns, len(update.sealed) + len(update.vector)


def _answer_pet1(
    rounds: _Pet1Rounds, members: Sequence[MemberMachine], coordinator_key: bytes
) -> tuple[list[int], list[tuple[int, int]]]:
    """Let all members check and answer; return nanoseconds of each, and bytes and the coordinator's time of each answer."""
    committee = rounds.latest(CommitteePublished).committee
    headers = [event.header for event in rounds.published if isinstance(event, HeaderPublished)]
    manifest = rounds.latest(ManifestPublished).manifest
    times: list[int] = []
    for member in members:
        begin = time.perf_counter_ns()
        member.receive_committee(committee)
        for header in headers:
            member.receive_header(header)
        member.receive_manifest(manifest)
        check = seal(member.sign_check(), coordinator_key)
        times.append(time.perf_counter_ns() - begin)
        rounds.post(check)
    certificate, answers = rounds.latest(CertificatePublished).certificate, []
    for number, member in enumerate(members):
        begin = time.perf_counter_ns()
        answer = member.answer(certificate)
        assert answer is not None, "every box was good"
        body = seal(answer, coordinator_key)
        times[number] += time.perf_counter_ns() - begin
        answers.append((len(body), rounds.post(body)))
    return times, answers
