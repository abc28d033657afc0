"""The tables of plans in the documents are those of the code (docs/spec/profile.md 1.3, 6.5)."""

import contextlib
import io
import re
from pathlib import Path

from documents import blocks, run_by

from pet import Plan
from pet.pet1.federation import federation_plan

DOCS = Path(__file__).parents[2] / "docs"


def header_bytes(plan: Plan) -> int:
    """Return the size of a share header with all slots taken (docs/spec/profile.md 9.1)."""
    boxes = sum(16 + 32 * len(plan.held_parts(slot)) for slot in range(plan.member_count))
    return 208 + 32 * plan.part_count + boxes + 64


def test_plans_of_the_specification() -> None:
    text = (DOCS / "spec/profile.md").read_text(encoding="utf-8")
    row = r"^\| \**(\d+) x \((\d+) of (\d+)\), (\d+)[^|]*\| (\d+), (\d+) \| (\d+) / ([^|]+?) \| (\d+), (\d+) \| (\d+) \|$"
    rows = re.findall(row, text, re.M)
    assert len(rows) == 7
    for groups, threshold, members, quorum, passive, active, before, _, parts, held, size in rows:
        plan = Plan(groups=int(groups), members=int(members), threshold=int(threshold), quorum=int(quorum))
        assert (plan.passive, plan.active) == (int(passive), int(active))
        assert (plan.part_count, len(plan.held_parts(0))) == (int(parts), int(held))
        assert (plan.member_count - plan.quorum, header_bytes(plan)) == (int(before), int(size))


def test_plans_for_people() -> None:
    text = (DOCS / "committees.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"\| (\d+) x \((\d+) of (\d+)\)(?:, (?:all )?(\d+) sign)? \|.*\| (\d+) / (\d+) \| (\d+) bytes \|$", text, re.M
    )
    assert len(rows) == 4
    for groups, threshold, members, quorum, before, after, size in rows:
        plan = Plan(groups=int(groups), members=int(members), threshold=int(threshold), quorum=int(quorum or members))
        assert (plan.member_count - plan.quorum, plan.members - plan.threshold) == (int(before), int(after))
        assert header_bytes(plan) == int(size)
    assert f"{federation_plan(32).part_count} for 32 of them" in text


def test_the_snippet_for_people_prints_what_stands_below_it() -> None:
    (snippet,) = run_by("tests/pet1/test_pet1_documents.py", "docs/committees.md")
    output = blocks("docs/committees.md")[-1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet.code, "docs/committees.md", "exec"), {})
    assert printed.getvalue() == output.code
