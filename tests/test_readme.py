"""The README says what is so: its Python runs, its links lead somewhere, it has exactly two set-up commands."""

import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_round_in_ten_lines_runs(capsys):
    code = re.search(r"```python\n(import numpy.*?unmask.*?)```", README, re.DOTALL)
    assert code is not None
    exec(compile(code[1], "README.md", "exec"), {})
    assert [round(float(number), 6) for number in capsys.readouterr().out.strip(" []\n").split()] == [0.15, 0.2, 0.25]


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def without_code(text):
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


@functools.cache
def anchors(page):
    """Return the anchors of a page's headings, as hosts of repositories and the site make them."""
    headings = re.findall(
        r"^#{1,6} (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    plain = (re.sub(r"[*`]|\[|\]\([^)]*\)", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(found), f"{page.name}: {target}, of {sorted(anchors(found))}"


def test_what_is_in_a_fence_of_text_is_not_wider_than_a_phone():
    """And there is no table, which a package index shows as wide as it is."""
    assert re.findall(r"^\|", README, re.MULTILINE) == []
    blocks = re.findall(r"^```text\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert blocks
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 45


def test_there_are_two_set_up_commands():
    assert len(re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)) == 2
    assert README.count("<!-- demo command -->") == README.count("<!-- test command -->") == 1
