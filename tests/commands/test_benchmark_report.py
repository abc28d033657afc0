"""docs/benchmarks.md and the script that writes it: every part has its place, charts are there, texts follow from figures."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from pet import cli
from pet.commands import bench_kernels, bench_memory
from pet.commands.bench_comparison import Comparison
from pet.commands.bench_results import report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
MADE_TOGETHER = {
    "kernels": ["machine", "glance", "kernels"],
    "fields": ["fields-glance", "fields"],
    "peers": ["peers", "homomorphic"],
}


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = ("report_text", "report_charts", "write_report")
    yield [importlib.import_module(name) for name in names]
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Run `pet bench`, briefly, and return its JSON, which no test changes."""
    file = tmp_path_factory.mktemp("report") / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_kernels, "CASE_SECONDS", 0.01)
        patch.setattr(bench_memory, "MIN_ROTATION_BYTES", 1 << 20)
        patch.setattr(bench_memory, "largest_cache_bytes", lambda: 0)
        assert cli.run(["bench", "--sizes", "1000", "--backends", "portable", "--json", str(file)]) == 0
    return {**json.loads(file.read_text()), "command": "pet bench"}


def comparisons(ratio):
    usual = {"length": 1000, "peer_ns": 12.0 * ratio, "pet_ns": 12.0}
    more = {"peer_bytes": 57.6, "pet_bytes": 6.0, "peer_error": 6e-9, "pet_error": 9e-11}
    made = [
        Comparison(peer="flwr 1", what="mask", **usual),
        Comparison(peer="tenseal 1", what="encrypt", **usual, **more),
        Comparison(peer="xaynet-sdk-python 1", what="sum", **usual),
    ]
    return {**report([], {}, made, []), "command": "pet bench --peers"}


def test_every_part_has_its_place_once(scripts):
    parts = [marker for part in scripts[2].PARTS for marker in MADE_TOGETHER.get(part, [part])]
    for marker in parts:
        assert PAGE.count(f"<!-- begin {marker} -->\n") == PAGE.count(f"<!-- end {marker} -->") == 1
    assert sorted(re.findall(r"<!-- begin (\S+) -->", PAGE)) == sorted(parts)


def test_every_part_is_filled_and_only_it_is_replaced(scripts):
    for marker in re.findall(r"<!-- begin (\S+) -->", PAGE):
        (text,) = re.findall(rf"<!-- begin {marker} -->\n(.*?)<!-- end {marker} -->", PAGE, re.DOTALL)
        assert len(text.strip()) > 40, marker
        changed = scripts[2].replace_part(PAGE, marker, r"new \1 text")
        assert changed.count(r"new \1 text") == 1
        assert len(changed) == len(PAGE) - len(text) + len(r"new \1 text") + 3


def test_charts_come_first_and_are_small():
    charts = re.findall(r"!\[([^]]+)\]\(([^)]+)\)", PAGE)
    assert len(charts) == 3
    assert PAGE.index(charts[1][1]) < PAGE.index("| ")
    for description, name in charts:
        assert len(description) > 20
        chart = ROOT / "docs" / name
        assert chart.read_bytes().startswith(b"\x89PNG")
        assert chart.stat().st_size < 150_000


@pytest.mark.long
def test_texts_and_charts_follow_from_figures(scripts, measured, tmp_path):
    text, charts, _ = scripts
    table = text.kernels(measured)
    assert all(f"| {kernel} |" in table for kernel in text.MEANINGS)
    assert {result["kernel"] for result in measured["results"]} == set(text.MEANINGS)
    glance = text.glance(measured, 1000)
    assert all(f"| {kernel} | {meaning} |" in glance for kernel, meaning in text.MEANINGS.items())
    configs = list(dict.fromkeys(result["config"] for result in measured["results"]))
    assert len(configs) == 3
    assert [glance.count(f"`{config}`, 1,000 weights") for config in configs] == [1, 1, 1]
    assert glance.index(configs[0]) < glance.index("fractions") < glance.index(configs[1]) < glance.index("inner product")
    charts.draw_kernels(measured, 1000, tmp_path / "kernels.png")
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("load", "is_shared"), [(0.1, False), (5.0, True)])
def test_a_busy_machine_is_reported(scripts, measured, load, is_shared):
    assert ("the machine was shared" in scripts[0].machine({**measured, "cores": 2}, load)) == is_shared


@pytest.mark.parametrize(("ratio", "words"), [(0.5, "pet was slower at: mask (flwr 1)"), (3.0, "pet was slower at nothing")])
def test_what_is_slower_is_said(scripts, tmp_path, ratio, words):
    found = comparisons(ratio)
    assert words in scripts[0].peers(found)
    assert "| bytes a weight, as sent | 57.6 | 6 |" in scripts[0].homomorphic(found)
    scripts[1].draw_peers(found, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 1000


def test_a_peer_that_is_missing_ends_the_program(scripts):
    found = comparisons(1.0)
    scripts[0].require_peers(found)
    found["peers"] = found["peers"][:2]
    with pytest.raises(SystemExit, match="missing xaynet-sdk-python"):
        scripts[0].require_peers(found)
