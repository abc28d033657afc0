"""Runs the notebooks that keep their outputs, and writes what they print into them. The others are Python files with cells.

    python docs/execute_notebooks.py docs/notebooks/flower_before_and_after.ipynb

It needs nbclient and ipykernel, and what the notebook says. tests/test_executed_notebooks.py holds that the outputs are right.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient


def execute(path: Path) -> Any:
    """Return a notebook as it is after a run from top to bottom, with what its cells print and nothing else of their outputs.

    Raises:
        CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
        cell.execution_count = number + 1
    for cell in notebook.cells:
        cell.metadata = {}  # times of this run, and what editors leave
    notebook.metadata.language_info = {"name": "python"}  # not the version of this one
    return notebook


def main() -> None:
    """Run what the command line names."""
    for name in sys.argv[1:]:
        nbformat.write(execute(Path(name)), name)


if __name__ == "__main__":
    main()
