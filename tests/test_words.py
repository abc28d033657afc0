"""Our prose uses the field's own terms: everyday phrases that stand for them are kept out (docs/map.md, Words).

Comments, docstrings, every other string (errors, log lines, help texts) and the documents are read; names of code are not.
"""

import ast
import re
from pathlib import Path

import pytest

import pet

ROOT = Path(pet.__file__).parent.parent
FOLDERS = ["pet", "native", "tests", "benchmarks", "examples", "docs"]
SUFFIXES = {".py", ".c", ".h", ".md", ".html", ".sh"}
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
FILES += [*sorted(ROOT.glob("*.md")), ROOT / ".ci/run"]

#: Phrase, and what to write in its place.
BANNED = {
    r"com(?:e|es|ing) on|came on": "make progress",
    r"(?:give|gives|gave|giving) way": "may be evicted",
    r"put(?:s|ting)? aside": "snapshot, reserve, keep",
    r"told": "reported, informed, announced, set up",
    r"in vain": "did not answer, did not happen in time",
    r"(?:has|have|with) \w+ hands full": "is busy",
    r"let(?:s|ting)? go of": "close, release, discard",
    r"so (?:many|long)(?! (?:as|that))": "a number of, this long",
    r"any more(?! than)": "no longer, from now on",
    r"(?:become|becomes|became) of": "the outcome of",
    r"whoever": "the caller, a participant that, anybody who",
    r"look(?:s|ing)? again": "wake, poll",
    r"wish(?:es|ed|ing)?": "request",
    r"(?-i:Say|Tell) whether": "return whether",
}
#: Finds all of them, and more, in what `letters_of` returns.
ANY_PHRASE = re.compile("|".join(re.sub(r"\(\?!.*", "", phrase).lower() for phrase in BANNED))
PATTERNS = {re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE): advice for phrase, advice in BANNED.items()}
#: A string or a comment of Python; the tokenizer of the library takes longer than all the rest of the search.
STRING_OR_COMMENT = re.compile(
    r"\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|#[^\n]*", re.DOTALL
)


def prose_of(path: Path) -> str:
    """Return what people read in a file: of Python the comments and strings, of everything else all."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    comments = [found for found in STRING_OR_COMMENT.findall(text) if found.startswith("#")]
    strings = [
        node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join(comments + strings)


def letters_of(text: str) -> str:
    """Return the words of a text without what may stand between them in its source: quotes, comment signs, escapes."""
    return re.sub(r"(?:\\[nrt]|[^a-z])+", " ", text.lower())


def banned_in(prose: str) -> list[str]:
    flat = re.sub(r"\s+(?:#:?|\*|//)?\s*", " ", prose)  # a phrase may stand across a line's end
    return [f"{found!r} (better: {advice})" for pattern, advice in PATTERNS.items() for found in pattern.findall(flat)]


@pytest.mark.parametrize(
    ("prose", "count"),
    [
        ("a body that does not come on", 1),
        ("an idle message gives\n    # way to others", 1),
        ("nobody is told, whoever asks", 2),
        ("so many bytes, for so long", 2),
        ("so long as it lasts, any more than that", 0),
        ("wishful", 0),
        ('"it looks "\n    "again"', 0),  # two strings, which are joined before they are searched
    ],
)
def test_phrases_are_found(prose, count):
    assert len(banned_in(prose)) == count
    assert ANY_PHRASE.search(letters_of(prose)) or not count


def test_prose_uses_the_terms_of_the_field():
    """A file is parsed only where a phrase could be: parsing takes most of the time."""
    suspects = [path for path in FILES if path != Path(__file__) and ANY_PHRASE.search(letters_of(path.read_text("utf-8")))]
    found = [f"{path.relative_to(ROOT)}: {phrase}" for path in suspects for phrase in banned_in(prose_of(path))]
    assert not found, "\n".join(found)
