"""The README says what is so: its Python runs, its links lead somewhere, it has exactly two set-up commands."""

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


@pytest.mark.parametrize("page", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_there_are_two_set_up_commands():
    assert len(re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)) == 2
    assert README.count("<!-- demo command -->") == README.count("<!-- test command -->") == 1
