"""What is known of messages and phases before they come: sizes that bound what is received, and windows for people.

Source: docs/spec/profile.md 10, 12, 16.
"""

from __future__ import annotations

from pet1_rounds import vector_round
from pet1_sessions import settings_of

from pet.messages import HEADER_BYTES
from pet.pet1.checks import check_bytes, count_complaints, sum2_bytes
from pet.protocol.pet1_round import phase_windows
from pet.protocol.phases import Phase


def test_sizes_of_members_messages() -> None:
    round_ = vector_round("3of5")
    for message in round_.checks().values():
        assert len(message) == check_bytes(count_complaints(message))
    for answer in round_.entry["sum2"].values():
        assert len(bytes.fromhex(answer)) == sum2_bytes(round_.record.vector_bytes) > HEADER_BYTES


def test_windows_for_people_say_what_the_machine_goes_by() -> None:
    round_ = vector_round("3of5")
    plan, participants = round_.enrolment.plan, len(round_.enrolment.participants)
    windows = phase_windows(settings_of(round_, min_count=4, max_count=1000))
    assert {phase: (window.min_count, window.max_count) for phase, window in windows.items()} == {
        Phase.SUM: (plan.quorum, plan.member_count),
        Phase.UPDATE: (4, participants),
        Phase.CHECK: (plan.quorum, plan.member_count),
        Phase.SUM2: (plan.threshold * plan.groups, plan.member_count),
    }
