"""The same app on Flower's own engines: the simulation, and a SuperLink with four SuperNodes."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from programs import free_port

pytest.importorskip("flwr", reason="without Flower (.ci/run runs these tests in an environment that has it)")

HERE = Path(__file__).parent
APP = '''
"""An app in Flower's layout; the two changed places are marked."""

import json

from digits_app import initial_arrays, make_app
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from pet.flower import SecureAggregation, pet_mod

client_app = make_app([pet_mod])  # changed
app = ServerApp()


@app.main()
def main(grid, context):
    strategy = FedAvg(min_train_nodes=4, min_available_nodes=4, min_evaluate_nodes=4)
    strategy = SecureAggregation(strategy, max_weight=900)  # changed
    result = strategy.start(grid=grid, initial_arrays=initial_arrays(), num_rounds=2)
    accuracies = [float(found["accuracy"]) for found in result.evaluate_metrics_clientapp.values()]
    metrics = [dict(found) for found in result.train_metrics_clientapp.values()]
    with open(context.run_config["result"], "w") as file:
        json.dump({"accuracies": accuracies, "metrics": metrics}, file)
'''
PROJECT = """
[project]
name = "digits"
version = "1.0"
dependencies = []

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "app:app"
clientapp = "app:client_app"

[tool.flwr.app.config]
result = "{result}"
"""


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    shutil.copy(HERE / "digits_app.py", folder)
    (folder / "pyproject.toml").write_text(PROJECT.format(result=tmp_path / "result.json"))
    return folder


def check(tmp_path):
    found = json.loads((tmp_path / "result.json").read_text())
    assert len(found["accuracies"]) == 2
    assert found["accuracies"][-1] > 0.5
    assert all("train_loss" in each for each in found["metrics"])


SIMULATION = """
import sys
sys.path.insert(0, {folder!r})
from app import app, client_app
from flwr.simulation import run_simulation
resources = {{"client_resources": {{"num_cpus": 1}}}}
run_simulation(server_app=app, client_app=client_app, num_supernodes=4, backend_config=resources)
"""


@pytest.mark.long
def test_the_simulation_engine(project, tmp_path):
    (project / "app.py").write_text(APP.replace('context.run_config["result"]', repr(str(tmp_path / "result.json"))))
    code = textwrap.dedent(SIMULATION.format(folder=str(project)))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=280, cwd=project)
    assert ended.returncode == 0, ended.stderr[-4000:]
    check(tmp_path)


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
def test_a_superlink_with_four_supernodes(project, tmp_path):
    port = free_port()
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
                [programs.bin / "flwr", "run", project, "tests"],
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
        while not (tmp_path / "result.json").exists():
            assert time.monotonic() < deadline, programs.logs()
            time.sleep(0.5)
        time.sleep(0.5)
        check(tmp_path)
