"""`pet federation demo` as people run it: servers in processes of their own, the table, nothing left behind."""

import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from programs import require_program

from pet import cli
from pet.commands.federation_demo import SCHEMA, deal, load_rows
from pet.federation.statistics.statistics import Statistics


def start_demo(tmp_path, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "pet", "federation", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "TMPDIR": str(tmp_path), "HOME": str(tmp_path), **environment},
    )


def run_demo(tmp_path, **environment):
    demo = start_demo(tmp_path, **environment)
    stdout, stderr = demo.communicate(timeout=150)
    return subprocess.CompletedProcess(demo.args, demo.returncode, stdout, stderr)


@pytest.mark.long
def test_the_demo_merges_what_nobody_shows(tmp_path):
    server = require_program("nats-server")
    done = run_demo(tmp_path, PATH=str(Path(server).parent))
    assert (done.returncode, done.stderr) == (0, "")
    (difference,) = re.findall(r"differ by ([0-9.e-]+) at most, at all three peers", done.stdout)
    assert float(difference) < 1e-9
    federated = re.findall(r"(-?[0-9]+\.[0-9]{7}) +(-?[0-9]+\.[0-9]{7}) *$", done.stdout, re.MULTILINE)
    assert len(federated) == len(SCHEMA)
    assert all(one == other for one, other in federated)
    for name in ("anna", "bert", "cleo"):
        assert f"  {name}: Sync completed successfully, round 1 with 3 peers" in done.stdout
    assert "two that collude know the third's" in done.stdout
    assert list(tmp_path.iterdir()) == []


#: What exists in the demo's folder when it has come so far, and the signal that it gets then. At the last one, three servers
#: run, and starting them takes most of the time.
MOMENTS = [
    pytest.param("", signal.SIGTERM, marks=pytest.mark.long),
    pytest.param("broker/nats-server.conf", signal.SIGINT, marks=pytest.mark.long),
    pytest.param("anna/server.log", signal.SIGHUP, marks=pytest.mark.long),
    pytest.param("cleo/state/federations.sqlite3", signal.SIGTERM, marks=pytest.mark.very_long),
]


def start_demo_until(moment, folder):
    """Start the demo in a folder of its own, and return it once it has come so far."""
    folder.mkdir()
    demo = start_demo(folder, PATH=str(Path(require_program("nats-server")).parent))
    deadline = time.monotonic() + 60
    while not list(folder.glob(f"pet-federation-*/{moment}")):
        assert demo.poll() is None, demo.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return demo


def left_of(folder):
    """Return what is left of a demo: files, and processes that were started with something of its folder."""
    processes = [one.info for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
    return list(folder.iterdir()) + processes


@pytest.mark.parametrize(("moment", "wanted"), MOMENTS)
def test_a_signal_at_any_moment_leaves_no_process_and_no_folder(tmp_path, moment, wanted):
    folder = tmp_path / "ended"
    demo = start_demo_until(moment, folder)
    demo.send_signal(wanted)
    demo.send_signal(wanted)  # people press it twice
    demo.communicate(timeout=120)
    assert demo.returncode == 128 + wanted
    assert left_of(folder) == []


@pytest.mark.parametrize("moment", [pytest.param(moment.values[0], marks=moment.marks) for moment in MOMENTS[1:]])
def test_what_nobody_can_clean_up_after_is_cleaned_up_by_another_process(tmp_path, moment):
    """SIGKILL ends the demo at once; its broker and its servers notice nothing."""
    folder = tmp_path / "killed"
    demo = start_demo_until(moment, folder)
    assert len(left_of(folder)) > 1
    demo.kill()
    demo.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while left_of(folder):
        assert time.monotonic() < deadline, left_of(folder)
        time.sleep(0.05)


def test_without_a_broker_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cli.run(["federation", "demo"]) == 1
    assert (
        capsys.readouterr().err
        == "error: nats-server: expected it on the PATH, got none; Debian and Ubuntu have it: apt-get install nats-server\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_parts_are_unequal_and_the_schema_takes_them():
    rows = load_rows()
    parts = deal(rows)
    assert [Statistics.of(part, SCHEMA).rows for part in parts] == [30, 112, 300]
    for name, column in rows.items():
        np.testing.assert_array_equal(np.sort(np.concatenate([part[name] for part in parts])), np.sort(column))
