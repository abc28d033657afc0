"""What the tables of rules, reasons and attacks are held to: the page, and the tests that they name."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PAGE = (ROOT / "docs" / "spec" / "profile.md").read_text(encoding="utf-8")


@functools.cache
def sources_in(path: str) -> dict[str, str]:
    """Return the source of each test of a file in tests/, its parameters included."""
    text = (TESTS / path).read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found
