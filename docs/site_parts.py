"""What the site shows beside Markdown: OpenAPI files as tables, and notebooks as pages.

Notebooks are Python files with `# %%` cells, or Jupyter's own with what they printed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from myst_parser.parsers.sphinx_ import MystParser

_METHODS: Final = ("get", "post", "put", "delete")


class OpenApi(Directive):
    """`{openapi} openapi/federation.yaml`, relative to docs/."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the tables."""
        path = Path(__file__).parent / self.arguments[0]
        self.state.document.settings.record_dependencies.add(str(path))
        lines = tables(yaml.safe_load(path.read_text(encoding="utf-8")))
        parent = nodes.container()
        self.state.nested_parse(StringList(lines, str(path)), 0, parent)
        return parent.children


def tables(document: dict[str, Any]) -> list[str]:
    """Return Markdown: for each tag a table of its operations, with parameters and answers."""
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                operation = item[method]
                rows = by_tag.setdefault(operation["tags"][0], [])
                rows.append(_row(document, method, path.removeprefix("/symetry/rest/{cid}"), operation))
    head = ["", "| request | what | parameters | answers |", "|---|---|---|---|"]
    return [line for tag, rows in by_tag.items() for line in ["", f"**{tag}**", *head, *rows]]


def _row(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [_resolved(document, parameter) for parameter in operation.get("parameters", [])]
    names = ", ".join(f"`{found['name']}`" + ("" if found.get("required") else "?") for found in parameters)
    return f"| `{method.upper()} {path}` | {operation['summary']} | {names} | {', '.join(operation['responses'])} |"


def _resolved(document: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    for name in found.get("$ref", "#").removeprefix("#").strip("/").split("/"):
        document = document[name] if name else found
    return document


class NotebookParser(MystParser):
    """Reads a notebook as Markdown."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document."""
        is_jupyter = document["source"].endswith(".ipynb")
        super().parse((jupyter_markdown if is_jupyter else notebook_markdown)(inputstring), document)


def jupyter_markdown(source: str) -> str:
    """Return the cells of a notebook of Jupyter: Markdown as it is, code in fences, and what it printed after it."""
    pages = []
    for cell in json.loads(source)["cells"]:
        text = "".join(cell["source"])
        pages.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        pages += [f"```text\n{''.join(output['text'])}```" for output in cell.get("outputs", [])]
    return "\n\n".join(pages) + "\n"


def notebook_markdown(source: str) -> str:
    """Return the cells of a notebook: those in Markdown without their `#`, all others in fences."""
    pages = []
    for cell in source.split("# %%")[1:]:
        kind, _, body = cell.partition("\n")
        if kind.strip() == "[markdown]":
            pages.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        elif body.strip():
            pages.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(pages) + "\n"
