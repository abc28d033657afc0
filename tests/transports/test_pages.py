"""What all pages that people look at share: one look, one script, and a policy that lets nothing else run."""

import re
from pathlib import Path

import pytest
from browsers import contrast

import pet
from pet.transports.pages import read_page

ROOT = Path(pet.__file__).parent
PAGES = sorted(ROOT.rglob("*.html"))
STYLE = (ROOT / "transports" / "page.css").read_text()


def test_there_are_the_two_pages():
    assert [page.name for page in PAGES] == ["peer_page.html", "live_page.html"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_loads_and_runs_nothing_but_its_own(path):
    page = read_page(".".join(path.parent.relative_to(ROOT.parent).parts), path.name)
    assert STYLE in page.text
    assert "const connection = {" in page.text
    assert not re.search(r"https?://|<link|<img|@import|url\(|innerHTML =|insertAdjacent|document\.write|eval\(", page.text)
    assert not re.search(r"\son\w+=|\sstyle=", page.text), "the policy would refuse them"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert len(re.findall(r"(?:script|style)-src 'sha256-[^ ]+'", policy)) == 2
    assert "unsafe" not in policy
    assert "opacity" not in page.text, "it would lower the contrast"
    colours = re.findall(r"#[0-9a-f]{3,8}\b", path.read_text())
    assert colours == [], "colours stand in page.css, where the next test sees them"


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_colours_have_the_contrast_of_wcag_aa_in_both_modes():
    modes = [
        {name: rgb(colour) for name, colour in re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)}
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    ]
    assert [len(mode) for mode in modes] == [8, 8]
    for mode in modes:
        for name in ("text", "quiet", "done", "bad", "now"):
            assert contrast(mode[name], mode["page"]) >= 4.5, (name, mode)
        assert contrast(mode["on-now"], mode["now"]) >= 4.5
        assert contrast(mode["line"], mode["page"]) >= 3, "borders and bars"
