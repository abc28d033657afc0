"""docs/spec/profile.md 17: every claim, and every attack, has a test; these tables say which, and are held to the page."""

from __future__ import annotations

import re

from pet1_tables import PAGE, sources_in

MEMBERS, RECORDS, SUMS = (f"pet1/test_pet1_attacks_on_{what}.py" for what in ("members", "records", "sums"))
RULES, COORDINATOR = "pet1/test_pet1_needs_its_rules.py", "pet1/test_pet1_coordinator.py"
SIMULATION = "simulation/test_pet1_simulation.py"
#: The same against the drivers of participants and members, as far as a peer of the network can play it.
OVER_NATS = "participant/test_pet1_over_nats.py"
DRIVERS, ENROLMENTS, OVER_HTTP = (
    "pet1/test_pet1_driver_attacks.py",
    "pet1/test_pet1_driver_enrolments.py",
    "participant/test_pet1_over_http.py",
)

#: File and test of each attack.
ATTACKS = {
    "own keys in the committee": [
        (MEMBERS, "test_own_keys_in_the_committee"),
        (DRIVERS, "test_a_committee_of_the_attackers_keys_is_refused"),
    ],
    "committee equivocation": [(MEMBERS, "test_committee_equivocation")],
    "split manifests (2 and 3 ways)": [
        (MEMBERS, "test_split_manifests"),
        (RULES, "test_a_split_in_three_shows_a_weighted_sum_unless_members_ask_for_a_certificate"),
        (DRIVERS, "test_a_member_that_is_shown_another_list_certifies_nothing_else"),
    ],
    "two rounds under one number": [
        (MEMBERS, "test_two_rounds_under_one_number"),
        (DRIVERS, "test_rounds_that_were_shown_before_are_not_joined_again"),
    ],
    "replayed header, box, proof, Check, Sum2": [(MEMBERS, "test_replays_of_the_round_before")],
    "copied E": [(MEMBERS, "test_copied_point_of_an_update")],
    "copied P": [
        (MEMBERS, "test_copied_member_point"),
        (RULES, "test_a_copied_point_opens_nothing_because_the_slot_is_in_the_key"),
    ],
    "order-2 and order-8 accusation": [(RULES, "test_points_of_small_order_accuse_nobody")],
    "z + l": [(MEMBERS, "test_scalars_that_are_not_reduced")],
    "complaint flood": [(MEMBERS, "test_complaint_flood"), (DRIVERS, "test_a_complaint_about_a_good_box_changes_nothing")],
    "last-second bad box": [(MEMBERS, "test_last_second_bad_box")],
    "silent victim": [(MEMBERS, "test_silent_victim"), (DRIVERS, "test_an_update_that_was_accepted_and_left_out_is_noticed")],
    "update outside the enrolment": [(RECORDS, "test_update_outside_the_enrolment")],
    "K reached with one key twice": [(RECORDS, "test_the_least_number_is_not_reached_with_one_key_twice")],
    "rolled-back enrolment": [
        (RECORDS, "test_rolled_back_enrolment"),
        (ENROLMENTS, "test_an_enrolment_that_was_replaced_does_not_come_back"),
    ],
    "downgrade to xaynet": [(RECORDS, "test_downgrade"), (ENROLMENTS, "test_a_coordinator_of_xaynets_profile_is_not_obeyed")],
    "other model to one participant": [
        (RECORDS, "test_another_model_for_one_participant"),
        (DRIVERS, "test_nobody_trains_from_another_model_than_the_records"),
    ],
    "wrong share (named, noticed, unnoticed at t)": [
        (SUMS, "test_wrong_shares"),
        (COORDINATOR, "test_a_wrong_share_is_named_or_fails_the_round"),
    ],
    "element >= p": [
        (SUMS, "test_elements_above_the_order"),
        (COORDINATOR, "test_an_update_with_an_invalid_element_is_closed_for_good"),
    ],
    "total out of range": [(COORDINATOR, "test_rubbish_in_a_vector_fails_the_round")],
    "restored member": [
        (RECORDS, "test_a_restored_member_counts_as_a_colluder"),
        ("pet1/test_pet1_member_files.py", "test_a_copy_from_a_backup_is_refused"),
    ],
    "state file of another round": [(RECORDS, "test_state_file_of_another_round_or_role")],
    "vector swapped, cut, reordered on the way": [(SUMS, "test_vectors_swapped_cut_and_reordered")],
    "leaf of another update": [(SUMS, "test_leaf_of_another_update")],
    "a second header": [
        (SUMS, "test_a_second_header"),
        (COORDINATOR, "test_the_sealed_part_is_judged_before_the_vector"),
        (DRIVERS, "test_a_second_header_of_one_participant_is_not_taken"),
    ],
    "an invented peer, a weaker plan or a smaller K in a federation's enrolment": [
        (RECORDS, "test_federation_enrolments_leave_nothing_free")
    ],
    "a call without one peer after all have answered": [(RECORDS, "test_a_call_without_one_peer_after_all_have_answered")],
}

#: File and test of each claim; a text says what is not built yet.
CLAIMS: dict[str, list[tuple[str, str]] | str] = {
    "derivation, slices, retries, all back-ends": [
        ("kernels/test_kernel_fields.py", "test_expansions_of_the_vectors"),
        ("kernels/test_kernel_fields.py", "test_any_slice_is_that_of_the_whole"),
        ("test_field_masking.py", "test_any_slice_of_a_mask_for_any_number_of_threads"),
    ],
    "encode, decode, bounds, extremes": [
        ("kernels/test_kernel_fields.py", "test_fixed_point_of_the_vectors"),
        ("test_field_masking.py", "test_the_mean_is_exact_within_the_bound_of_the_specification"),
    ],
    "integers": [("test_field_masking.py", "test_totals_of_integers_are_exact")],
    "vector digest, pieces": [
        ("pet1/test_pet1_leaves.py", "test_digests_of_the_vectors"),
        ("pet1/test_pet1_leaves.py", "test_pieces_come_in_any_order_and_only_what_is_wrong_is_dropped"),
        (COORDINATOR, "test_pieces_of_an_update"),
    ],
    "costs of 7.3": [(COORDINATOR, "test_the_sealed_part_is_judged_before_the_vector")],
    "every byte of a round": [
        (COORDINATOR, "test_rounds_of_the_vectors"),
        ("pet1/test_pet1_member.py", "test_messages_are_those_of_the_vectors"),
        ("pet1/test_pet1_participant.py", "test_updates_are_those_of_the_vectors"),
    ],
    "every refusal": [
        ("pet1/test_pet1_reasons.py", "test_every_reason_has_a_test_that_names_it"),
        ("pet1/test_pet1_refusals.py", "test_objects_that_the_vectors_refuse"),
        ("pet1/test_pet1_fed_badly.py", "test_every_truncation_is_refused"),
        ("pet1/test_pet1_fed_badly.py", "test_flipped_bits_raise_nothing_else"),
        (COORDINATOR, "test_what_is_refused_of_members"),
    ],
    "points, proofs, boxes": [
        ("pet1/test_pet1_boxes.py", "test_keys_boxes_and_proofs_are_those_of_the_vectors"),
        ("pet1/test_pet1_boxes.py", "test_proofs_that_the_vectors_refuse"),
    ],
    "1.3, passive and active": [
        ("pet1/test_pet1_views.py", "test_with_one_certified_set_a_coalition_learns_its_sum_or_nothing"),
        ("pet1/test_pet1_views.py", "test_without_a_certificate_a_threshold_is_not_enough"),
    ],
    "federations": [
        ("pet1/test_pet1_federation.py", "test_enrolments_that_the_vectors_refuse"),
        ("pet1/test_pet1_ledger.py", "test_no_combination_of_published_sums_is_of_fewer_peers_than_asked_for"),
        ("pet1/test_pet1_views.py", "test_two_rounds_of_a_federation_give_the_sums_of_those_that_enough_have_answered"),
        ("pet1/test_pet1_sequences.py", "test_no_sequence_of_three_rounds_shows_a_peer"),
        ("pet1/test_pet1_federation_peer.py", "test_a_call_answered_kills_what_is_older_also_after_a_restart"),
        ("simulation/test_pet1_federation_simulation.py", "test_sums_of_a_federation_show_no_single_peer_in_many_sequences"),
    ],
    "certificate": [
        (MEMBERS, "test_no_assignment_of_signers_makes_two_certificates_below_the_bound"),
        (MEMBERS, "test_fewer_liars_than_two_quorums_share_make_no_second_certificate"),
    ],
    "robustness": [(SIMULATION, "test_sums_are_exact_and_keys_sign_once_in_hundreds_of_rounds")],
    "kills": [
        (SIMULATION, "test_sums_are_exact_and_keys_sign_once"),
        (SIMULATION, "test_a_planted_mistake_is_found"),
        ("pet1/test_pet1_saved_coordinator.py", "test_a_coordinator_that_is_killed_after_every_step_ends_with_the_same_sum"),
        (OVER_HTTP, "test_a_member_that_is_killed_at_any_instant_never_signs_twice"),
    ],
    "attacks, one test each": [("pet1/test_pet1_section_17.py", "test_every_attack_has_a_test")],
    "oracle": [(MEMBERS, "test_a_member_is_asked_twice_for_its_check")],
    "real clients": "no program serves a round of pet/1 yet, so that no client can meet one",
    "transports": [
        (OVER_HTTP, "test_a_round_of_every_kind_of_participant_is_the_same_as_in_process"),
        (OVER_NATS, "test_a_round_of_every_kind_of_participant_is_the_same_as_over_http"),
    ],
}


def rows() -> dict[str, str]:
    """Return claim and test of each row of the section's table."""
    section = PAGE.partition("## 17. Tests")[2].partition("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+) \|$", section, re.M)
    return dict(found[1:])


def missing(named: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(path, test) for path, test in named if test not in sources_in(path)]


def test_every_claim_has_a_test() -> None:
    assert list(rows()) == list(CLAIMS)
    for claim, named in CLAIMS.items():
        assert isinstance(named, str) or (named and not missing(named)), claim


def test_every_attack_has_a_test() -> None:
    assert rows()["attacks, one test each"].split("; ") == list(ATTACKS)
    for attack, named in ATTACKS.items():
        assert named, attack
        assert not missing(named), attack
