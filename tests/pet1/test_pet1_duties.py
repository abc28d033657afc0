"""docs/spec/profile.md 6, 9.2, 12 to 14: where each duty of each party stands in the code, and which test shows it.

The tables are held to the page (every rule of it is there), to the code and to the tests (what they name exists).
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from pet1_tables import PAGE, sources_in

PARTICIPANT, MEMBER, PEER = "pet1/test_pet1_participant.py", "pet1/test_pet1_member.py", "pet1/test_pet1_federation_peer.py"
COORDINATOR, DUTIES, SAVED = (
    f"pet1/test_pet1_{name}.py" for name in ("coordinator", "coordinator_duties", "saved_coordinator")
)
ON_MEMBERS, ON_RECORDS, KILLED = (
    "pet1/test_pet1_attacks_on_members.py",
    "pet1/test_pet1_attacks_on_records.py",
    "pet1/test_pet1_killed_member.py",
)
ENROLMENT, LEDGER, REFUSALS = "pet1/test_pet1_enrolment.py", "pet1/test_pet1_ledger.py", "pet1/test_pet1_refusals.py"
VECTORS = (REFUSALS, "test_objects_that_the_vectors_refuse")

_POLICY, _HEADER = "pet.pet1.enrolment:EnrolmentPolicy.accept", "pet.pet1.share_header:ShareHeader.from_bytes"
_JOIN, _MASK = "pet.protocol.pet1_participant:UpdateParticipant.join", "pet.protocol.pet1_participant:UpdateParticipant.mask"
_MEMBER, _PEER = "pet.protocol.pet1_member:MemberMachine.", "pet.protocol.pet1_federation_peer:Pet1Peer."
_RULES, _RECORD = "pet.protocol.pet1_rules:Pet1Rules.", "pet.protocol.pet1_saved_state:save_pet1_state"
_COORDINATOR, _WINDOWS = "pet.protocol.pet1_coordinator:Pet1Coordinator.", "pet.protocol.pet1_round:windows_of"

#: Where each rule stands, and the file and name of its test.
RULES: dict[str, tuple[str, tuple[str, str]]] = {
    "E1": (_POLICY, (ENROLMENT, "test_what_is_refused")),
    "E2": (_POLICY, (ON_RECORDS, "test_rolled_back_enrolment")),
    "E3": ("pet.pet1.enrolment:StrengthPolicy.require_strong", (ENROLMENT, "test_what_is_refused")),
    "E4": ("pet.pet1.enrolment:Enrolment.describe", (ENROLMENT, "test_who_must_collude_is_said_to_people")),
    "C1": ("pet.pet1.committee:Committee.from_bytes", VECTORS),
    "C2": ("pet.pet1.committee:Committee.of", (COORDINATOR, "test_sum_needs_enough_members_of_each_group")),
    "F1": (_PEER + "mask", (PEER, "test_each_step_is_in_the_ledger_before_anything_is_sent")),
    "F2": ("pet.pet1.ledger:RoundLedger.call", (LEDGER, "test_a_peer_says_what_it_has_answered_and_answers_no_older_call")),
    "F3": ("pet.pet1.ledger:LedgerEntry.is_dead", (LEDGER, "test_rounds_of_the_vectors_that_are_struck_out")),
    "F4": (_MEMBER + "note_call", (PEER, "test_a_call_answered_kills_what_is_older_also_after_a_restart")),
    "F5": (
        "pet.pet1.ledger:RoundLedger.require_hidden",
        (PEER, "test_sets_that_would_show_a_peer_are_refused_before_anything_is_signed"),
    ),
    **{f"S{number}": (_HEADER, VECTORS) for number in range(1, 8)},
    "U1": (_JOIN, (PARTICIPANT, "test_who_is_not_enrolled_or_not_selected_is_idle")),
    "U2": (_JOIN, (PARTICIPANT, "test_one_update_for_a_number_and_no_weights_twice")),
    "U3": (
        "pet.protocol.pet1_participant:UpdateParticipant.check_model",
        (ON_RECORDS, "test_another_model_for_one_participant"),
    ),
    "U4": (_MASK, (ON_MEMBERS, "test_own_keys_in_the_committee")),
    "U5": (
        "pet.protocol.pet1_participant:RoundTerms.require_met",
        (PARTICIPANT, "test_numbers_that_a_participant_does_not_agree_to"),
    ),
    "U6": (_MASK, (PARTICIPANT, "test_updates_are_those_of_the_vectors")),
    "U7": (_MASK, (PARTICIPANT, "test_what_is_not_durable_is_not_sent")),
    "U8": (_MASK, (PARTICIPANT, "test_one_update_for_a_number_and_no_weights_twice")),
    "U9": ("pet.pet1.inclusion:find_update", (DUTIES, "test_a_participant_asks_for_its_own_update")),
    "M1": (_MEMBER + "join", (MEMBER, "test_nobodys_slot")),
    "M2": (_MEMBER + "join", (MEMBER, "test_each_message_is_durable_before_it_is_sent")),
    "M3": (
        _MEMBER + "receive_committee",
        (MEMBER, "test_a_committee_without_its_own_sum_message_ends_the_round_for_a_member"),
    ),
    "M4": (_MEMBER + "receive_header", (MEMBER, "test_one_header_of_each_participant")),
    "M5": (_MEMBER + "sign_check", (ON_MEMBERS, "test_a_member_is_asked_twice_for_its_check")),
    "M6": (_MEMBER + "answer", (MEMBER, "test_one_root_a_round_before_and_after_a_restart")),
    "M7": (_MEMBER + "answer", (MEMBER, "test_a_member_without_a_good_seed_of_an_agreed_update_is_silent")),
    "M8": (_MEMBER + "answer", (KILLED, "test_no_key_ever_signs_two_roots_or_answers_two_certificates")),
    "M9": (_MEMBER + "end_round", (MEMBER, "test_round_numbers_only_grow_and_a_round_that_ended_is_not_joined_again")),
    "K1": (_COORDINATOR + "open_update", (COORDINATOR, "test_the_sealed_part_is_judged_before_the_vector")),
    "K2": (
        "pet.protocol.pet1_round:Pet1Round.list_updates",
        (COORDINATOR, "test_updates_beyond_the_most_and_updates_that_stay_incomplete"),
    ),
    "K3": ("pet.protocol.pet1_round:Pet1Round.checks_in_order", (COORDINATOR, "test_rounds_of_the_vectors")),
    "K4": ("pet.protocol.pet1_publications:announce_round", (COORDINATOR, "test_rounds_of_the_vectors")),
    "K5": (_COORDINATOR + "slots", (DUTIES, "test_a_wrong_answer_and_a_bad_update_are_kept_as_they_were_signed")),
    "K6": (
        "pet.protocol.pet1_evidence:Evidence.accused",
        (DUTIES, "test_a_wrong_answer_and_a_bad_update_are_kept_as_they_were_signed"),
    ),
    "K7": (_RULES + "finish", (DUTIES, "test_answers_are_compared_by_random_vectors_that_are_drawn_after_the_last_of_them")),
    "K8": (_RULES + "unfinished", (DUTIES, "test_updates_that_stay_incomplete_are_counted_when_their_phase_ends")),
}

#: Of each phase of section 12 where its end is decided, and the test of when.
PHASES: dict[str, tuple[str, tuple[str, str]]] = {
    "IDLE": (_RULES + "begin", (DUTIES, "test_the_next_round_starts_from_the_model_of_the_one_before")),
    "SUM": (_WINDOWS, (COORDINATOR, "test_sum_waits_for_a_spare_member_and_ends_with_the_least_at_last")),
    "UPDATE": (_WINDOWS, (COORDINATOR, "test_update_ends_with_the_most_at_once_with_enough_later_and_with_the_least_at_last")),
    "CHECK": (_WINDOWS, (COORDINATOR, "test_check_ends_with_a_quorum_and_fails_without")),
    "SUM2": (_WINDOWS, (COORDINATOR, "test_sum2_ends_with_the_threshold_and_a_spare_and_fails_below")),
    "UNMASK": (_RULES + "finish", (COORDINATOR, "test_a_wrong_share_is_named_or_fails_the_round")),
}

#: Of each row of section 14, by party and moment, where it is written before that moment, and its test.
DURABLE: dict[tuple[str, str], tuple[str, tuple[str, str]]] = {
    ("update participant", "Update is sent"): (_MASK, (PARTICIPANT, "test_what_is_not_durable_is_not_sent")),
    ("member", "Sum is sent"): (_MEMBER + "join", (MEMBER, "test_each_message_is_durable_before_it_is_sent")),
    ("member", "Check is sent"): (_MEMBER + "sign_check", (MEMBER, "test_each_message_is_durable_before_it_is_sent")),
    ("member", "Sum2 is sent"): (_MEMBER + "answer", (MEMBER, "test_each_message_is_durable_before_it_is_sent")),
    ("all", "an enrolment is used"): ("pet.protocol.pet1_peer:open_round", (ON_RECORDS, "test_rolled_back_enrolment")),
    ("peer of a federation", "a call is answered; Update, Sum2 are sent; a result is used"): (
        _PEER + "call",
        (PEER, "test_each_step_is_in_the_ledger_before_anything_is_sent"),
    ),
    ("coordinator", "a message is answered, a leaf is marked in the bitmap"): (
        _RECORD,
        (SAVED, "test_a_coordinator_that_is_killed_after_every_step_ends_with_the_same_sum"),
    ),
}


def section(number: str) -> str:
    """Return a section of the page, "6.5" or "12"."""
    level = "#" * (2 + number.count("."))
    return re.split(rf"^{level} {re.escape(number)}[. ]", PAGE, flags=re.M)[1].partition(f"\n{level} ")[0]


def rows(number: str) -> list[list[str]]:
    found = [line.strip("|").split(" | ") for line in section(number).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in found[1:]]


def rules_of_the_page() -> set[str]:
    found = set(re.findall(r"\b([UMK]\d)\s", section("13")))
    for letter, number in (("E", "6.1"), ("C", "6.3"), ("F", "6.5"), ("S", "9.2")):
        found |= set(re.findall(rf"(?:^|[.] |- )({letter}\d) ", section(number), flags=re.M))
    return found


def test_every_rule_of_the_page_is_in_the_table() -> None:
    assert rules_of_the_page() == set(RULES)
    assert {row[0] for row in rows("12") if re.fullmatch("[A-Z0-9]+", row[0])} == set(PHASES)
    assert {(row[0], row[1]) for row in rows("14")} == set(DURABLE)


def test_what_the_tables_name_exists() -> None:
    for rule, (place, (path, test)) in [*RULES.items(), *PHASES.items(), *DURABLE.items()]:
        module, name = place.split(":")
        found: Any = functools.reduce(getattr, name.split("."), importlib.import_module(module))
        assert callable(found), rule
        assert test in sources_in(path), rule
