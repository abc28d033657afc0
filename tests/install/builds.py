"""Copies of this repository, built and installed for real: what the tests of this folder share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
#: What the builds and the imports of the tests must not take over from the environment that the tests run in.
CLEARED: Final = ("PET_BACKEND", "PET_WITHOUT", "PET_ALLOW_PURE", "CC", "CFLAGS", "LDFLAGS", "PYTHONPATH", "LD_PRELOAD")
#: Installs without a network: setuptools and cffi are those that the tests run with.
PIP: Final = (sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check")
OFFLINE: Final = ("--no-index", "--no-deps", "--no-build-isolation")


def copy_sources(folder: Path) -> Path:
    """Copy what a clone has, as far as installing needs it, without anything that was built in it."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "_pure.txt")
    for name in ("native", "pet"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / name)
    return folder


def run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; an environment variable of this process that could decide the outcome is not inherited."""
    inherited = {name: value for name, value in os.environ.items() if name not in CLEARED}
    return subprocess.run(
        command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


def succeed(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run a command that must succeed; return what it printed, errors last."""
    done = run(*command, folder=folder, **environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder, which is then the first place that imports look in."""
    return run(sys.executable, "-c", code, folder=folder, **environment)
