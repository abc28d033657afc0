"""The notebooks run from top to bottom, and are notebooks."""

import contextlib
import os
import signal
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
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # servers of a notebook that failed
        process.wait()
    assert process.returncode == 0, err
    assert len(out.splitlines()) > 2


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
