"""`pet bench`: every kernel is measured, figures carry their circumstances, and the plot is drawn."""

import json
import re
import sys

import pytest
from programs import require_program
from quick_benches import make_quick, measure_ceiling

from pet import cli, kernels
from pet.commands import bench_ceiling, bench_options

BENCH = ["bench", "--configs", "prime-f32-b0-m3"]
KERNELS = ["expand", "update", "mask sum", "mask only", "aggregate 1", "aggregate 8", "unmask", "fractions"]
FIELD_KERNELS = ["expand", "update", "mask sum", "aggregate 1", "unmask", "multiply-add", "inner product"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    make_quick(monkeypatch)


@pytest.mark.long
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
    assert before != "portable"
    assert cli.run([*BENCH, "--sizes", "10", "--backends", "portable"]) == 0
    assert kernels.active_backend() == before


def test_fields_are_measured_beside_groups(monkeypatch, tmp_path):
    ceiling = bench_ceiling.Ceiling(
        flags="", threads=1, vector_bytes=16, keystream_ns_per_kib=1024.0, memory_gb_per_s=2.0, reads_gb_per_s=4.0
    )
    monkeypatch.setattr(bench_ceiling, "measure_ceiling", lambda backend, threads: ceiling)
    report_file = tmp_path / "bench.json"
    configs = ["pet-1/z32,f32,bound=0.001,models=10", "prime-f32-b0-m3", "pet-1/z64,int,models=15"]
    given = ", ".join([*configs, "PET-1/z64,f64,BOUND=2,models=3"])
    arguments = ["bench", "--sizes", "300", "--configs", given, "--backends", "portable", "--threads", "2"]
    assert cli.run([*arguments, "--json", str(report_file)]) == 0
    results = json.loads(report_file.read_text())["results"]
    kernels_of = {config: [result["kernel"] for result in results if result["config"] == config] for config in configs}
    weights = [*FIELD_KERNELS[:3], "encode", "aggregate 1", "decode", *FIELD_KERNELS[4:]]
    assert list(kernels_of.values()) == [weights, KERNELS, FIELD_KERNELS]
    assert {result["config"] for result in results} == {*configs, "pet-1/z64,f64,bound=2,models=3"}
    assert {result["threads"] for result in results if result["kernel"] == "expand"} == {2}
    limits = [(result["limit"], result["ceiling_ns"]) for result in results if result["kernel"] in ("mask sum", "encode")]
    expected = [("keystream", 4), ("memory", 4), ("keystream", 112.7), ("keystream", 8), ("keystream", 8), ("memory", 8)]
    assert limits == [(limit, pytest.approx(nanoseconds, rel=0.01)) for limit, nanoseconds in expected]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            ("--sizes", value)
            for value in ("0", "many", "1.5", "nan", "inf", "1e3,", "", "1e12", "1e999999999", "1," * 100 + "1")
        ),
        *(("--peer-size", value) for value in ("1,2", "1e12", "-1")),
        *(("--threads", value) for value in ("0", "257", "two", "1e2", "9" * 5000)),
        *(("--peer-seeds", value) for value in ("2", "1001", "some")),
        *(
            ("--configs", value)
            for value in ("prime-f16-b0-m3", "", "pet-1/z32,f32", "pet-1/z32,f32,bound=1,models=10,b0", "models=10")
        ),
        ("--backends", "sse9"),
        ("--plot", "bench.jpeg"),
    ],
)
def test_bad_values_are_usage_errors(capsys, option, value):
    assert cli.run(["bench", option, value]) == 2
    assert option in capsys.readouterr().err


def test_a_size_beyond_the_memory_is_refused_before_anything_is_allocated(capsys, monkeypatch):
    monkeypatch.setattr(bench_options, "usable_bytes", lambda: 10_000_000_000)
    monkeypatch.setattr("pet.commands.bench.make_cases", None)
    assert cli.run(["bench", "--sizes", "1e4,1e9", "--configs", "pet-1/z64,int,models=9,prime-f64-bmax-m3"]) == 2
    expected = (
        "expected at most 1,[0-9,]{7} weights of prime-f64-bmax-m3 for this machine's memory .10 GB can be used., got 1e9"
    )
    assert re.search(expected, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("compiler", "backend"),
    [
        ("clang", "portable"),
        *(
            pytest.param("gcc", name, marks=pytest.mark.long)
            for name in kernels.available_backends()
            if name == "portable" or name.startswith("avx")
        ),
    ],
)
def test_the_ceiling_is_plausible(compiler, backend, monkeypatch):
    require_program(compiler)
    monkeypatch.setenv("CC", compiler)
    ceiling = measure_ceiling(backend, 1)
    assert 10 < ceiling.keystream_ns_per_kib < 10_000
    assert 0.1 < ceiling.memory_gb_per_s < 10_000
    assert 0.1 < ceiling.reads_gb_per_s < 10_000


def test_without_a_compiler_figures_stand_without_ceilings(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    report_file = tmp_path / "bench.json"
    assert cli.run([*BENCH, "--sizes", "100", "--backends", "portable", "--json", str(report_file)]) == 0
    assert "No ceilings: expected a C compiler (cc, gcc, clang) on the path, got none." in capsys.readouterr().out
    report = json.loads(report_file.read_text())
    assert report["ceilings"] == []
    assert all(result["ceiling_ns"] is None and result["share"] is None for result in report["results"])


def test_a_compiler_that_fails_is_quoted(capsys, monkeypatch):
    monkeypatch.setenv("CC", f"{sys.executable} -c 'import sys; sys.exit(\"no headers here\")'")
    assert cli.run([*BENCH, "--sizes", "100", "--backends", "portable"]) == 0
    assert "expected the probe to compile, got no headers here" in capsys.readouterr().out


def test_the_ceiling_of_a_case():
    ceiling = bench_ceiling.Ceiling(
        flags="", threads=1, vector_bytes=16, keystream_ns_per_kib=1024.0, memory_gb_per_s=2.0, reads_gb_per_s=4.0
    )
    assert ceiling.nanoseconds("keystream", 10.0) == 10
    assert ceiling.nanoseconds("memory", 10.0) == 5
    assert ceiling.nanoseconds("reads", 10.0) == 2.5


def test_the_better_of_two_measurements_is_the_ceiling(monkeypatch):
    """The probe runs before and after the kernels; what disturbs one of the two must not flatter them."""
    usual = {"flags": "", "threads": 1, "vector_bytes": 16}
    first = bench_ceiling.Ceiling(**usual, keystream_ns_per_kib=150.0, memory_gb_per_s=30.0, reads_gb_per_s=9.0)
    second = bench_ceiling.Ceiling(**usual, keystream_ns_per_kib=400.0, memory_gb_per_s=12.0, reads_gb_per_s=25.0)
    measured = iter([first, second])
    monkeypatch.setattr(bench_ceiling, "measure_ceiling", lambda backend, threads: next(measured))
    assert cli.run([*BENCH, "--sizes", "10", "--backends", "portable"]) == 0
    assert list(measured) == []
    assert first.best_of(second) == bench_ceiling.Ceiling(
        **usual, keystream_ns_per_kib=150.0, memory_gb_per_s=30.0, reads_gb_per_s=25.0
    )
