"""Every page and every section of a specification that code and documents cite exists."""

import re
from pathlib import Path

import pytest
from in_turn import in_turn

import pet

ROOT = Path(pet.__file__).parent.parent
FOLDERS = ["pet", "native", "tests", "benchmarks", "examples", "docs"]
SUFFIXES = {".py", ".c", ".h", ".md", ".html", ".toml"}
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
FILES += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "setup.py")]

SECTION = r"\d+(?:\.\d+)?[a-z]?"
#: One section, or several: "1.5, 1.7 and 2", "2.4 - 2.17", "14.1 to 14.3".
SECTIONS = rf"{SECTION}(?:(?:,| and|,? -| to)\s+{SECTION})*(?![\w/])"
CITATION = re.compile(rf"(?:docs/spec/(?P<page>\w+)\.md|\bspec)(?:,?\s+(?:section\s+)?(?P<sections>{SECTIONS}))")
RANGE = re.compile(rf"({SECTION})(?:,? -| to)\s+({SECTION})")
PAGE = re.compile(r"\bdocs/[\w/-]+\.(?:md|py|svg|png)\b")
#: A line that ends with a citation goes on in the next one, behind its indentation or comment sign.
CONTINUED = re.compile(r"\n[ \t]*(?:\*|#:?|//)?[ \t]*")


def span(first: str, last: str) -> list[str]:
    """Return the sections from one to another of the same chapter, or the chapters."""
    if "." not in first:
        return [str(number) for number in range(int(first), int(last) + 1)]
    chapter, begin = first.split(".")
    assert last.split(".")[0] == chapter, f"{first} to {last}: two chapters"
    return [f"{chapter}.{number}" for number in range(int(begin), int(last.split(".")[1]) + 1)]


def sections_of(page: str) -> set[str]:
    """Return the numbers of all headings of a specification."""
    headings = re.findall(
        rf"^##+ ({SECTION})\.?( - {SECTION})? ", (ROOT / "docs/spec" / page).read_text(encoding="utf-8"), re.M
    )
    return {number for first, to in headings for number in (span(first, to.removeprefix(" - ")) if to else [first])}


def cited_in(text: str, own: str) -> list[tuple[str, str]]:
    """Return (page, section) of each citation in a text; `own` is the page that "spec" alone means there."""
    found = []
    for match in CITATION.finditer(CONTINUED.sub(" ", text)):
        page = f"{match['page'] or own}.md"
        for first, last in RANGE.findall(match["sections"]):
            found += [(page, number) for number in span(first, last)]
        found += [(page, number) for number in re.findall(SECTION, match["sections"])]
    return found


def cited(path: Path) -> list[tuple[str, str]]:
    parts = path.relative_to(ROOT).parts
    own = "federation" if "federation" in parts or path.name == "federation.md" else "pet"
    return cited_in(path.read_text(encoding="utf-8"), own)


KNOWN = {path.name: sections_of(path.name) for path in (ROOT / "docs/spec").glob("*.md")}


def test_the_specifications_have_the_sections_that_everybody_knows():
    assert {"1.7", "4.7", "14.3", "15.1"} <= KNOWN["pet.md"]
    assert {"1.9", "2.9", "2.16", "4.1", "5.4", "8"} <= KNOWN["federation.md"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see docs/spec/pet.md 8.1 and 8.2.", ["pet 8.1", "pet 8.2"]),
        ("(spec 6.1, 6.2)", ["own 6.1", "own 6.2"]),
        ("docs/spec/federation.md\n    # 5.1", ["federation 5.1"]),
        ("docs/spec/federation.md 2.8 - 2.10.", [f"federation {number}" for number in ("2.8", "2.9", "2.10", "2.8", "2.10")]),
    ],
)
def test_citations_are_found_in_all_their_forms(text, expected):
    assert [f"{page.removesuffix('.md')} {number}" for page, number in cited_in(text, "own")] == expected


@in_turn("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_cited_exists(path):
    missing = [f"docs/spec/{page} {number}" for page, number in cited(path) if number not in KNOWN[page]]
    missing += [page for page in PAGE.findall(path.read_text(encoding="utf-8")) if not (ROOT / page).exists()]
    assert not missing, f"cited, but not there: {', '.join(missing)}"


def test_every_source_line_names_a_page_or_an_address():
    lines = [
        (path.relative_to(ROOT), line)
        for path in FILES
        if path.suffix in {".py", ".c", ".h"} and "tests" not in path.relative_to(ROOT).parts
        for line in re.findall(r"^\W*Source: .*", path.read_text(encoding="utf-8"), re.M)
    ]
    assert len(lines) > 50
    bad = [
        f"{path}: {line.strip()}"
        for path, line in lines
        if not re.search(r"docs/[\w/-]+\.md|https://|none; the format is ours", line)
    ]
    assert not bad, bad
