"""Every refusal has the reason that docs/spec/profile.md names: which test shows each, held to the page and to the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from pet1_tables import PAGE, ROOT, sources_in
from vector_files import load_vectors

ATTACKS, COORDINATOR = "pet1/test_pet1_attacks_on_", "pet1/test_pet1_coordinator.py"
DUTIES = "pet1/test_pet1_coordinator_duties.py"
LEDGER, PARTICIPANT = "pet1/test_pet1_ledger.py", "pet1/test_pet1_participant.py"
OF_MEMBERS = (COORDINATOR, "test_what_is_refused_of_members")
SEALED = (COORDINATOR, "test_the_sealed_part_is_judged_before_the_vector")
#: Files of vectors, and the tests that go through all their refusals.
NEGATIVE = ("pet1/negative.json", "pet1/test_pet1_refusals.py", "test_objects_that_the_vectors_refuse")
FEDERATION = ("pet1/federation.json", "pet1/test_pet1_federation.py", "test_enrolments_that_the_vectors_refuse")
CALLS = ("pet1/federation.json", "pet1/test_pet1_federation.py", "test_answers_to_the_call")

#: File and test of each reason; where a test goes through vectors, their file first.
REASONS: dict[str, tuple[str, str] | tuple[str, str, str]] = {
    "already_registered": OF_MEMBERS,
    "answered_before": (LEDGER, "test_sets_of_the_vectors"),
    "check_already_submitted": OF_MEMBERS,
    "damaged_leaf": (DUTIES, "test_a_damaged_leaf_ends_the_round_rather_than_all_rounds"),
    "decryption": SEALED,
    "enrolment_expired": FEDERATION,
    "enrolment_rolled_back": (ATTACKS + "records.py", "test_rolled_back_enrolment"),
    "incomplete_update": (DUTIES, "test_updates_that_stay_incomplete_are_counted_when_their_phase_ends"),
    "integer_out_of_range": ("test_field_masking.py", "test_what_the_vectors_refuse"),
    "invalid_call_signature": CALLS,
    "invalid_element": (COORDINATOR, "test_an_update_with_an_invalid_element_is_closed_for_good"),
    "invalid_header_signature": NEGATIVE,
    "invalid_point": NEGATIVE,
    "invalid_signature": NEGATIVE,
    "length_mismatch": (COORDINATOR, "test_updates_in_one_are_taken_whole_or_not_at_all"),
    "malformed_answer": (PARTICIPANT, "test_answers_are_read_strictly"),
    "malformed_call": CALLS,
    "malformed_certificate": NEGATIVE,
    "malformed_check": NEGATIVE,
    "malformed_committee": NEGATIVE,
    "malformed_enrolment": NEGATIVE,
    "malformed_headers": ("pet1/test_pet1_header_batches.py", "test_a_length_beyond_the_end_reserves_nothing"),
    "malformed_manifest": NEGATIVE,
    "malformed_round": NEGATIVE,
    "malformed_share_header": NEGATIVE,
    "malformed_sum": NEGATIVE,
    "manifest_order": NEGATIVE,
    "mask_already_submitted": OF_MEMBERS,
    "no_quorum": (COORDINATOR, "test_check_ends_with_a_quorum_and_fails_without"),
    "no_weight": (DUTIES, "test_scalars_that_vanish_fail_the_round"),
    "not_a_member": OF_MEMBERS,
    "not_all_or_nothing": FEDERATION,
    "not_enrolled": NEGATIVE,
    "not_selected": NEGATIVE,
    "too_few_again": (LEDGER, "test_most_peers_of_an_earlier_round_come_again"),
    "too_few_answers": (COORDINATOR, "test_sum2_ends_with_the_threshold_and_a_spare_and_fails_below"),
    "too_few_changes": (LEDGER, "test_sets_of_the_vectors"),
    "too_few_members": (COORDINATOR, "test_sum_waits_for_a_spare_member_and_ends_with_the_least_at_last"),
    "too_few_peers": ("pet1/test_pet1_federation.py", "test_plans_and_members_by_the_number_of_peers"),
    "too_few_updates": (COORDINATOR, "test_a_round_with_too_few_good_updates_fails"),
    "too_many_parts": ("pet1/test_pet1_enrolment.py", "test_a_plan_with_too_many_parts_is_refused_by_its_name"),
    "too_many_updates": (COORDINATOR, "test_updates_beyond_the_most_and_updates_that_stay_incomplete"),
    "total_out_of_range": (COORDINATOR, "test_rubbish_in_a_vector_fails_the_round"),
    "unacceptable_terms": (PARTICIPANT, "test_numbers_that_a_participant_does_not_agree_to"),
    "unconfirmed_peer": FEDERATION,
    "unexpected_tag": NEGATIVE,
    "unfounded_complaint": NEGATIVE,
    "unknown_enrolment": FEDERATION,
    "unknown_update": NEGATIVE,
    "unknown_upload": (COORDINATOR, "test_pieces_of_an_update"),
    "unknown_version": NEGATIVE,
    "unproven_complaint": NEGATIVE,
    "unproven_key": NEGATIVE,
    "unseen_result": (LEDGER, "test_others_have_to_know_the_set_of_a_round_that_a_peer_was_in"),
    "update_already_submitted": SEALED,
    "weak_plan": NEGATIVE,
    "weight_out_of_range": ("test_field_masking.py", "test_what_the_vectors_refuse"),
    "wrong_certificate": OF_MEMBERS,
    "wrong_committee": NEGATIVE,
    "wrong_coordinator_key": NEGATIVE,
    "wrong_leaf": (COORDINATOR, "test_pieces_of_an_update"),
    "wrong_model": (ATTACKS + "records.py", "test_another_model_for_one_participant"),
    "wrong_participant": NEGATIVE,
    "wrong_phase": (COORDINATOR, "test_updates_beyond_the_most_and_updates_that_stay_incomplete"),
    "wrong_plan": FEDERATION,
    "wrong_root": NEGATIVE,
    "wrong_round": (ATTACKS + "members.py", "test_two_rounds_under_one_number"),
    "wrong_share": (COORDINATOR, "test_a_wrong_share_is_named_or_fails_the_round"),
    "wrong_slot": NEGATIVE,
    "wrong_vector": NEGATIVE,
}

#: Reasons of the caller's own errors, which have a text and no reason in the library.
OWN_ERRORS = {"integer_out_of_range", "weight_out_of_range", "too_few_peers"}
#: What stands between back-quotes in the page and is no reason.
OTHER_WORDS = re.compile(r"pet_|crypto_|(clipped_count|evidence_rounds|least_changed|max_updates|on_clip|unchecked_groups)$")


def reasons_of_the_page() -> set[str]:
    named = re.findall(r"`(?:02 )?([a-z0-9]+(?:_[a-z0-9]+)+)`", PAGE)
    return {name for name in named if not OTHER_WORDS.match(name)}


def reasons_of_the_code() -> Iterator[str]:
    """Yield what objects and machines of the profile refuse with."""
    places = {"require": 1, "RemoteProtocolError": 0, "RoundFailure": 0}
    for path in [*(ROOT / "pet" / "pet1").glob("*.py"), *(ROOT / "pet" / "protocol").glob("pet1_*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in places:
                argument = node.args[places[node.func.id]]
                if isinstance(argument, ast.Constant):
                    yield argument.value
                elif isinstance(argument, ast.Name) and argument.id in constants:
                    yield constants[argument.id]


def test_every_reason_is_in_the_table() -> None:
    named, raised = reasons_of_the_page(), set(reasons_of_the_code())
    assert raised - named <= {"decryption", "malformed_committee"}, "a reason that the page does not name"
    assert named - raised - {"too_few_answers", "too_many_parts"} <= OWN_ERRORS | {
        *("incomplete_update", "no_weight", "total_out_of_range", "wrong_share", "weak_plan"),
    }
    assert set(REASONS) == named | raised


def test_every_reason_has_a_test_that_names_it() -> None:
    for reason, where in REASONS.items():
        *vectors, path, test = where
        assert test in sources_in(path), reason
        if reason in OWN_ERRORS:
            continue
        source = str(load_vectors(vectors[0])) if vectors else sources_in(path)[test]
        assert re.search(rf"\b{reason}\b", source), f"{test} does not name {reason}"
