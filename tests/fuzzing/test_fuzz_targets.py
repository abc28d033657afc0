"""A short run of every fuzzing target, guided by coverage, from the inputs that are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import targets
from programs import require_program

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", targets.TARGETS)
def test_inputs_that_are_kept_pass(name):
    target = targets.TARGETS[name]()
    for file in sorted((HERE / "corpus" / name).glob("*")):
        target(file.read_bytes())


@pytest.mark.parametrize(
    ("decoder_runs", "path_runs"),
    [
        pytest.param(5000, 300, marks=pytest.mark.long, id="short"),
        pytest.param(50_000, 3000, marks=pytest.mark.very_long, id="longer"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="atheris has wheels for Linux")
def test_a_short_campaign_finds_nothing(tmp_path, decoder_runs, path_runs):
    runs = ["--decoder-runs", str(decoder_runs), "--path-runs", str(path_runs)]
    command = [sys.executable, str(HERE / "campaign.py"), "--targets", "all_decoders,message_path", *runs]
    finished = subprocess.run([*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.count("executions") == 2


@pytest.mark.parametrize(
    "left_out", [pytest.param("avx512", marks=pytest.mark.long), pytest.param("", marks=pytest.mark.very_long)]
)
def test_a_short_run_over_the_kernels_finds_nothing(left_out):
    """One variant beside the portable code says that the fuzzer works; compiling all of them takes most of the time."""
    require_program("clang")
    command = [sys.executable, str(HERE / "fuzz_native.py"), "--unoptimised", "-runs=1000", "-print_final_stats=1"]
    environment = {**os.environ, "PET_WITHOUT": left_out}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, errors="replace")
    assert finished.returncode == 0, finished.stdout + finished.stderr[-4000:]
    assert "stat::number_of_executed_units: 1000" in finished.stderr


@pytest.mark.long
def test_a_wrong_decoder_is_found(tmp_path):
    """A fuzzer that finds nothing in a planted bug proves nothing."""
    program = tmp_path / "planted.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import atheris\n"
        "with atheris.instrument_imports(include=['pet.messages']):\n"
        "    import targets\n"
        "from pet.messages import RoundParameters\n"
        "to_bytes = RoundParameters.to_bytes\n"
        "RoundParameters.to_bytes = lambda self: to_bytes(self)[:-1] + b'?'\n"
        "atheris.Setup(sys.argv, targets.TARGETS['parameters']())\n"
        "atheris.Fuzz()\n"
    )
    command = [sys.executable, str(program), str(HERE / "corpus" / "parameters"), "-runs=1000", f"-artifact_prefix={tmp_path}/"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode != 0
    assert "AssertionError" in finished.stderr + finished.stdout
