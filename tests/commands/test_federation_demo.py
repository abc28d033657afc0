"""`pet federation demo` as people run it: servers in processes of their own, the table, nothing left behind."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from programs import require_program

from pet.commands.federation_demo import SCHEMA, deal, load_rows
from pet.federation.statistics import Statistics


def run_demo(tmp_path, **environment):
    return subprocess.run(
        [sys.executable, "-m", "pet", "federation", "demo"],
        capture_output=True,
        text=True,
        timeout=150,
        env={"PYTHONPATH": ":".join(sys.path), "TMPDIR": str(tmp_path), "HOME": str(tmp_path), **environment},
        check=False,
    )


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
    assert list(tmp_path.iterdir()) == []


def test_without_a_broker_it_says_what_to_install(tmp_path):
    done = run_demo(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: nats-server: expected it on the PATH, got none; Debian and Ubuntu have it: apt-get install nats-server\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_parts_are_unequal_and_the_schema_takes_them():
    rows = load_rows()
    parts = deal(rows)
    assert [Statistics.of(part, SCHEMA).rows for part in parts] == [30, 112, 300]
    for name, column in rows.items():
        np.testing.assert_array_equal(np.sort(np.concatenate([part[name] for part in parts])), np.sort(column))
