"""The app of examples/flower on a SuperLink with four SuperNodes. On the simulation engine, a notebook has it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import free_port

pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

APP = Path(__file__).parents[2] / "examples" / "flower"


CONNECTION = """
[superlink]
default = "tests"

[superlink.tests]
address = "127.0.0.1:{port}"
insecure = true
"""


class Programs:
    """Flower's programs, with a folder of their own for what they keep."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.bin = Path(sys.executable).parent
        root = str(Path(__file__).parents[2])
        own = {
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PYTHONPATH": root,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }
        self.environment = os.environ | own
        (folder / "home").mkdir()

    def start(self, name, *arguments):
        """Start a program that runs until the test ends."""
        log = self.stack.enter_context((self.folder / f"{name}-{len(list(self.folder.iterdir()))}.log").open("wb"))
        process = subprocess.Popen([self.bin / name, *arguments], env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        self.stack.callback(process.wait, 30)
        self.stack.callback(process.terminate)

    def logs(self):
        return "".join(path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log"))


@pytest.mark.very_long  # fifty processes
@pytest.mark.timeout(600)
def test_a_superlink_with_four_supernodes(tmp_path):
    port, result = free_port(), tmp_path / "result.json"
    project = shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    with contextlib.ExitStack() as stack:
        programs = Programs(tmp_path, stack)
        (tmp_path / "home" / "config.toml").write_text(CONNECTION.format(port=port))
        programs.start("flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(port))
        for index in range(4):
            programs.start(
                "flower-supernode",
                "--insecure",
                "--superlink",
                f"127.0.0.1:{port}",
                "--port",
                str(free_port()),
                "--node-config",
                f"partition-id={index} num-partitions=4",
            )
        deadline = time.monotonic() + 60
        while True:
            ended = subprocess.run(
                [programs.bin / "flwr", "run", project, "tests", "--run-config", f'result="{result}" rounds=2'],
                env=programs.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if ended.returncode == 0:
                break
            assert time.monotonic() < deadline, ended.stdout + ended.stderr + programs.logs()
            time.sleep(1)
        deadline = time.monotonic() + 480
        while not result.exists() or not result.read_text():
            assert time.monotonic() < deadline, programs.logs()
            time.sleep(0.5)
        found = json.loads(result.read_text())
        assert found["accuracy"] > 0.5
        assert len(found["metrics"]) == 2
        assert all("train_loss" in each for each in found["metrics"])
