"""The snippets of flower.md run."""

import pytest

flwr = pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

from documents import run_by  # noqa: E402


def test_the_two_changed_places():
    names = {}
    block, _ = run_by("tests/flower/test_flower_docs.py", "docs/flower.md")
    exec(block.code, names)
    assert isinstance(names["strategy"], flwr.serverapp.strategy.Strategy)
    assert names["app"].__class__ is flwr.clientapp.ClientApp


def test_the_digest_that_nodes_pin(tmp_path, monkeypatch, capsys):
    from test_flower_attacks import Federation

    federation = Federation(tmp_path, pin="enrolment")
    monkeypatch.chdir(tmp_path)
    _, block = run_by("tests/flower/test_flower_docs.py", "docs/flower.md")
    exec(block.code, {})
    digest, *described = capsys.readouterr().out.splitlines()
    assert digest == federation.grid.contexts[1000].node_config["pet-enrolment"]
    assert "A single update can be read by any 3 of" in described[0]
