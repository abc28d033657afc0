"""Draw the state diagram in docs/protocol.md from the table in pet/protocol/phases.py.

Run it after a change of the table; a test fails until the document is up to date. It reads and writes that one document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pet.protocol.phases import ACCEPTED_TAG, TRANSITIONS, Phase, Trigger

DOCUMENT: Final = Path(__file__).parent / "protocol.md"
BEGIN: Final = "<!-- state diagram: begin, made by docs/make_state_diagram.py -->\n"
END: Final = "<!-- state diagram: end -->\n"


def state_diagram() -> str:
    """Return the table as mermaid text."""
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


def with_generated_parts(document: str) -> str:
    """Return the document with the diagram of the table as it is now.

    Raises:
        ValueError: one of the two markers is missing.
    """
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    if BEGIN not in document or END not in rest:
        raise ValueError(f"docs/protocol.md: expected the markers {BEGIN.strip()!r} and {END.strip()!r} around the diagram")
    return f"{before}{BEGIN}```mermaid\n{state_diagram()}```\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_generated_parts(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
