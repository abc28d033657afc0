"""`pet bench`: every kernel is measured, figures carry their circumstances, and the plot is drawn."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pet import cli, kernels
from pet.commands import bench_ceiling
from pet.commands.bench_kernels import Case, Workload, measure
from pet.mask_config import MaskConfig

KERNELS = ["expand", "update", "mask sum", "mask only", "aggregate 1", "aggregate 8", "unmask", "fractions"]


def test_figures_come_with_their_circumstances(capsys, tmp_path):
    report_file, plot_file = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = ["bench", "--sizes", "1e2,200", "--configs", "prime-f32-b0-m3,prime-i64-b0-m3", "--backends", "portable"]
    assert cli.run([*arguments, "--threads", "2", "--json", str(report_file), "--plot", str(plot_file)]) == 0
    report = json.loads(report_file.read_text())
    assert [result["kernel"] for result in report["results"]] == KERNELS * 4
    assert {result["size"] for result in report["results"]} == {100, 200}
    assert {result["threads"] for result in report["results"] if result["kernel"] == "mask sum"} == {2}
    assert all(0 < result["best_ns"] <= result["median_ns"] for result in report["results"])
    assert {"cpu", "cores", "platform", "versions", "command", "unit", "ceilings"} < set(report)
    assert plot_file.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    for kernel in KERNELS:
        assert kernel in out


def test_the_back_end_in_use_stays():
    before = kernels.active_backend()
    assert cli.run(["bench", "--sizes", "10", "--backends", "reference"]) == 0
    assert kernels.active_backend() == before


@pytest.mark.parametrize(
    ("option", "value"),
    [("--sizes", "0"), ("--sizes", "many"), ("--configs", "prime-f16-b0-m3"), ("--backends", "sse9"), ("--peer-size", "1,2")],
)
def test_bad_values_are_usage_errors(capsys, option, value):
    assert cli.run(["bench", option, value]) == 2
    assert option in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="the only wheel of the real SDK is for Linux")
def test_peers_are_compared_in_the_same_run(tmp_path):
    """In a process of its own, as a user has it: the imports of the peers are not ours to keep free of warnings."""
    report_file = tmp_path / "bench.json"
    sizes = ["--sizes", "10", "--peer-size", "2000", "--peer-seeds", "3"]
    command = [sys.executable, "-m", "pet", "bench", *sizes, "--backends", "portable", "--peers", "--json", str(report_file)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    peers = json.loads(report_file.read_text())["peers"]
    real = [peer for peer in peers if peer["peer"].startswith("xaynet-sdk-python ")]
    flower = [peer for peer in peers if peer["peer"].startswith("flwr ")]
    assert len(real) == 3
    assert len(flower) == 2 or "Not compared with flwr" in finished.stdout
    assert all(peer["length"] == 2000 and peer["peer_ns"] > 0 and peer["pet_ns"] > 0 for peer in peers)
    masking, posting, _ = real
    assert masking["peer_ns"] < posting["peer_ns"], "masking is a part of it"
    assert "times faster" in finished.stdout


def test_the_ceiling_is_plausible():
    ceiling = bench_ceiling.measure_ceiling("portable", 1)
    assert ceiling is not None, "tests run from the repository, with the compiler that pet was built with"
    assert 10 < ceiling.keystream_ns_per_kib < 10_000
    assert 0.1 < ceiling.memory_gb_per_s < 10_000


def test_the_ceiling_of_a_case():
    ceiling = bench_ceiling.Ceiling(flags="", threads=1, vector_bytes=16, keystream_ns_per_kib=1024.0, memory_gb_per_s=2.0)
    usual = {"name": "", "limit_bytes": 10.0, "units": 1, "threads": 1, "run": int}
    assert ceiling.nanoseconds(Case(limit="keystream", **usual)) == 10
    assert ceiling.nanoseconds(Case(limit="memory", **usual)) == 5


@pytest.mark.parametrize("config", ["prime-f32-b0-m3", "power2-f64-bmax-m12", "integer-i32-bmax-m3", "prime-i64-bmax-m12"])
def test_a_workload_unmasks_to_its_own_model(config):
    workload = Workload(MaskConfig.parse(config), 50)
    assert np.allclose(workload.unmask(), workload.weights, rtol=1e-6, atol=1e-9)
    for _ in range(3):
        workload.aggregate(8)


def test_a_slow_case_is_timed_in_few_passes():
    calls = []
    timing = measure(Case(name="", limit="memory", limit_bytes=1, units=1, threads=1, run=lambda: calls.append(0)))
    assert 5 <= timing.passes <= 200
    assert len(calls) == timing.passes + 1
    assert timing.best <= timing.median
