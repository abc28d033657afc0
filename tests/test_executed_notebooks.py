"""The notebooks that keep their outputs run, on a kernel of Jupyter, and print what stands in them."""

import importlib.util
import sys
from pathlib import Path

import pytest

import pet

ROOT = Path(__file__).parents[1]
NEEDS = {
    "flower_before_and_after": ["flwr", "ray", "sklearn"],
    "pytorch_with_lora": ["torch", "peft", "sklearn"],
}


def test_all_are_here():
    assert {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")} == set(NEEDS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("flower_before_and_after", marks=pytest.mark.long),
        pytest.param("pytorch_with_lora", marks=pytest.mark.very_long),  # PEFT takes ten seconds to import
    ],
)
@pytest.mark.filterwarnings(
    "ignore::UserWarning:zmq", "ignore::DeprecationWarning:jupyter_client", "ignore::RuntimeWarning:zmq"
)
def test_outputs_are_what_it_prints(name, monkeypatch):
    missing = [each for each in ["nbclient", "ipykernel", *NEEDS[name]] if importlib.util.find_spec(each) is None]
    if missing:
        pytest.skip(f"without {', '.join(missing)} (.ci/run and .ci/long run this in environments that have it)")
    monkeypatch.setenv("PYTHONPATH", str(Path(pet.__file__).parents[1]))  # for the kernel, and the processes of Ray
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "docs")])
    from execute_notebooks import execute, nbformat

    path = ROOT / "docs" / "notebooks" / f"{name}.ipynb"
    stored, found = nbformat.read(path, as_version=4), execute(path)
    assert [cell.get("outputs") for cell in found.cells] == [cell.get("outputs") for cell in stored.cells]
