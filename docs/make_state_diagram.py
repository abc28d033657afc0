"""Draw the state diagrams in docs/protocol.md from the tables in pet/protocol/phases.py and participant_state.py.

Run it after a change of a table; a test fails until the document is up to date. It reads and writes that one document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pet.protocol.participant_state import PARTICIPANT_TRANSITIONS, ParticipantState, ParticipantTrigger
from pet.protocol.phases import ACCEPTED_TAG, TRANSITIONS, Phase, Trigger

DOCUMENT: Final = Path(__file__).parent / "protocol.md"


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which a diagram stands."""
    return f"<!-- {name}: begin, made by docs/make_state_diagram.py -->\n", f"<!-- {name}: end -->\n"


def coordinator_diagram() -> str:
    """Return the coordinator's table as mermaid text."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.IDLE.value}"]
    lines += [f"    {phase.value}: {phase.value}, takes {tag.name} messages" for phase, tag in ACCEPTED_TAG.items()]
    lines += [
        f"    {start.value} --> {end.value}: {trigger.value}"
        for (start, trigger), end in TRANSITIONS.items()
        if trigger is not Trigger.SHUT_DOWN
    ]
    # As arrows these would hide the rest.
    sources = ", ".join(start.value for start, trigger in TRANSITIONS if trigger is Trigger.SHUT_DOWN)
    lines += [f"    {Phase.SHUTDOWN.value} --> [*]", f"    note left of {Phase.SHUTDOWN.value}: reached from {sources}"]
    return "\n".join(lines) + "\n"


def participant_diagram() -> str:
    """Return the participant's table as mermaid text."""
    lines = ["stateDiagram-v2", f"    [*] --> {ParticipantState.AWAITING.value}"]
    lines += [
        f"    {start.value} --> {end.value}: {trigger.value.replace('_', ' ')}"
        for (start, trigger), end in PARTICIPANT_TRANSITIONS.items()
        if trigger is not ParticipantTrigger.ROUND_CHANGED
    ]
    # It leads to one state from every one.
    assert {state for state, trigger in PARTICIPANT_TRANSITIONS if trigger is ParticipantTrigger.ROUND_CHANGED} == set(
        ParticipantState
    )
    target = PARTICIPANT_TRANSITIONS[ParticipantState.AWAITING, ParticipantTrigger.ROUND_CHANGED]
    lines.append(f"    {ParticipantState.AWAITING.value} --> {target.value}: round changed")
    lines.append(f"    note right of {target.value}: reached from every state when the round changed")
    return "\n".join(lines) + "\n"


DIAGRAMS: Final = {"state diagram": coordinator_diagram, "participant diagram": participant_diagram}


def with_generated_parts(document: str) -> str:
    """Return the document with the diagrams of the tables as they are now.

    Raises:
        ValueError: a marker is missing.
    """
    for name, draw in DIAGRAMS.items():
        begin, end = markers(name)
        before, _, rest = document.partition(begin)
        _, _, after = rest.partition(end)
        if begin not in document or end not in rest:
            raise ValueError(f"docs/protocol.md: expected the markers {begin.strip()!r} and {end.strip()!r} around the diagram")
        document = f"{before}{begin}```mermaid\n{draw()}```\n{end}{after}"
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(with_generated_parts(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
