"""The notebooks run from top to bottom, and are notebooks."""

import subprocess
import sys
from pathlib import Path

import pytest
from programs import require_program

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    if path.stem == "three_hospitals":
        require_program("nats-server")
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_becomes_a_notebook(path):
    jupytext = pytest.importorskip("jupytext")
    cells = jupytext.read(path).cells
    kinds = [cell.cell_type for cell in cells]
    assert kinds[0] == "markdown"
    assert cells[0].source.startswith("# ")
    assert kinds.count("code") >= 4
    assert kinds.count("markdown") >= 4


def test_all_four_are_there():
    assert len(NOTEBOOKS) == 4
