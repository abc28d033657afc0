"""The table of phases, and that the documents say the same."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from coordinator_messages import BAD

from pet.errors import LocalProtocolError
from pet.messages import Tag
from pet.protocol.coordinator import DISCARDED, FAILURE_REASONS
from pet.protocol.phases import ACCEPTED_TAG, TRANSITIONS, XAYNET_PHASES, Phase, Trigger

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("trigger", Trigger)
def test_each_trigger_moves_as_the_table_says_or_is_refused(phase: Phase, trigger: Trigger) -> None:
    if (phase, trigger) in TRANSITIONS:
        assert XAYNET_PHASES.next_phase(phase, trigger) is TRANSITIONS[phase, trigger]
    else:
        with pytest.raises(LocalProtocolError, match=f"phase {phase.value}: expected .*, got '{trigger.value}'"):
            XAYNET_PHASES.next_phase(phase, trigger)


def test_all_phases_can_be_reached_and_only_shutdown_is_never_left() -> None:
    assert set(TRANSITIONS.values()) == XAYNET_PHASES.phases == set(Phase) - {Phase.CHECK}
    assert {start for start, _ in TRANSITIONS} == XAYNET_PHASES.phases - {Phase.SHUTDOWN}


def test_a_round_that_works_runs_through_the_phases_in_order() -> None:
    phase, seen = Phase.IDLE, []
    for trigger in (Trigger.PARAMETERS_DRAWN, *[Trigger.ENOUGH_MESSAGES] * 3, Trigger.MODEL_UNMASKED):
        phase = XAYNET_PHASES.next_phase(phase, trigger)
        seen.append(phase)
    assert seen == [Phase.SUM, Phase.UPDATE, Phase.SUM2, Phase.UNMASK, Phase.IDLE]


def test_messages_are_taken_in_the_three_collecting_phases_only() -> None:
    assert ACCEPTED_TAG == {Phase.SUM: Tag.SUM, Phase.UPDATE: Tag.UPDATE, Phase.SUM2: Tag.SUM2}


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_state_diagram", DOCS / "make_state_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_diagram_in_the_documents_is_that_of_the_table() -> None:
    document = (DOCS / "protocol.md").read_text(encoding="utf-8")
    assert load_script().with_generated_parts(document) == document, "run docs/make_state_diagram.py"


def test_a_document_without_markers_is_not_overwritten() -> None:
    with pytest.raises(ValueError, match="expected the markers"):
        load_script().with_generated_parts("# nothing here")


def test_the_documents_list_every_reason_of_a_refusal_and_of_a_failure() -> None:
    document = (DOCS / "protocol.md").read_text(encoding="utf-8")
    listed = {reason for row in re.findall(r"^\| (`.*?`) \|", document, re.MULTILINE) for reason in re.findall(r"`(\w+)`", row)}
    raised = {
        reason
        for name in ("wire", "mask_object", "messages/*", "protocol/round_machine", "protocol/intake", "protocol/strategies")
        for path in (DOCS.parent / "pet").glob(f"{name}.py")
        for reason in re.findall(r'RemoteProtocolError\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }
    published = {"malformed_parameters", "malformed_sums", "malformed_seeds"}  # these refuse a coordinator's answer
    assert raised - published <= listed
    assert {*FAILURE_REASONS, DISCARDED} <= listed
    assert {reason for _, _, reason in BAD.values()} <= listed
