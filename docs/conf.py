"""How Sphinx builds the site: `sphinx-build -W -b html docs build/site`, with the extra `docs`."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

import pet

sys.path.insert(0, str(Path(__file__).parent))
from site_parts import NotebookParser, OpenApi

project = "pet"
release = version = pet.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"pet {pet.__version__}"
exclude_patterns = ["*.py"]
#: The pages are written for a reader of the repository too: links lead to headings by their text, and to files of it.
myst_heading_anchors = 4
suppress_warnings = ["myst.xref_missing", "myst.header", "misc.highlighting_failure", "toc.not_included"]
#: Attributes stand in the docstring of their class.
napoleon_use_ivar = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_mock_imports = ["torch"]


def _show_the_tree(_app: object, what: str, name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Make the tree of exceptions a literal block: it is drawn with characters, and no list."""
    if what == "module" and name == "pet.errors":
        lines[1:] = ["", "::", "", *(f"    {line}" for line in lines[1:]), ""]


def setup(app: Sphinx) -> None:
    """Register what this file adds."""
    app.connect("autodoc-process-docstring", _show_the_tree)
    app.add_directive("openapi", OpenApi)
    app.add_source_suffix(".py", "notebook")
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
