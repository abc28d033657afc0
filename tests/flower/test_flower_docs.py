"""The snippet of flower.md runs."""

import pytest

flwr = pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

from documents import run_by  # noqa: E402


def test_the_two_changed_places():
    names = {}
    (block,) = run_by("tests/flower/test_flower_docs.py", "docs/flower.md")
    exec(block.code, names)
    assert isinstance(names["strategy"], flwr.serverapp.strategy.Strategy)
    assert names["app"].__class__ is flwr.clientapp.ClientApp
