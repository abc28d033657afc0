"""The snippets of README.md and docs/*.md, and what the documents say about each of them: how it is run, or why it is not.

A snippet is a block in a fence, in `python` or `sh`. It runs as it stands, after those before it on its page, unless an HTML
comment above it says otherwise:

    <!-- not run: reason -->        tests/test_docs.py lists these
    <!-- run by: path of a file --> another test, or a script of CI, runs it
    <!-- goes on: text -->          its last command is a server; what follows waits until it has printed the text
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
LANGUAGES = ("python", "sh")

_BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NOTE = re.compile(r"<!-- (not run|run by|goes on): (.*) -->")


@dataclass(frozen=True, kw_only=True)
class Block:
    """What stands in one fence.

    Attributes:
        line: of its first line of code, from 1.
        notes: what the comments above it say, by kind.
    """

    page: str
    line: int
    language: str
    code: str
    notes: dict[str, str]


def blocks(page: str) -> list[Block]:
    """Return every fenced block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start(3)) + 1,
            language=found[2],
            code=found[3],
            notes=dict(_NOTE.findall(found[1])),
        )
        for found in _BLOCK.finditer(text)
    ]


def snippets(page: str) -> list[Block]:
    """Return the snippets of a page."""
    return [block for block in blocks(page) if block.language in LANGUAGES]


def run_by(path: str, page: str) -> list[Block]:
    """Return the snippets of a page that a file has to run."""
    return [block for block in snippets(page) if block.notes.get("run by") == path]
