"""Copies of this repository, built and installed for real: what the tests of this folder share."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from pet import kernels
from pet._installation import COMPILED_BACKENDS

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


def copy_kernel_tests(folder: Path) -> Path:
    """Copy the sources and the tests of the kernels, without those that build something themselves."""
    copy_sources(folder)
    ignored = shutil.ignore_patterns(
        "__pycache__", "test_kernel_sanitizers.py", "test_kernel_memory_use.py", "test_kernel_neon*.py"
    )
    for name in ("kernels", "vectors", "install"):
        shutil.copytree(REPOSITORY / "tests" / name, folder / "tests" / name, ignore=ignored)
    for path in (REPOSITORY / "tests").glob("*.py"):
        if not path.name.startswith("test_") or path.name == "test_masking_vectors.py":
            shutil.copy(path, folder / "tests")
    return folder


def run_kernel_tests(folder: Path, *paths: str, thinned_to: int, **environment: str) -> str:
    """Run the tests in a copy on the variants of its compiled module that this machine can run; return what they printed.

    Of the tests that differ in parameters alone, one in `thinned_to` is run (tests/thinned.py).
    """
    tested = " or ".join(name for name in kernels.available_backends() if name in COMPILED_BACKENDS)
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "thinned", "-k", tested, *paths)
    environment |= {"PYTHONPATH": f"{folder}:{folder / 'tests'}", "PYTEST_ADDOPTS": "", "THINNED_TO": str(thinned_to)}
    return succeed(*command, folder=folder, **environment)


def write_quick_compiler(path: Path, compiler: str = "cc") -> Path:
    """Write a compiler that takes half the time: it optimises as much as fortified functions need.

    That all of it compiles without warnings with the flags of setup.py is held by .ci/run, as it installs with -Werror.
    """
    path.write_text(f'#!/bin/sh\nexec {compiler} "$@" -O1\n')
    path.chmod(0o700)
    return path


def run(*command: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; an environment variable of this process that could decide the outcome is not inherited."""
    inherited = {name: value for name, value in os.environ.items() if name not in CLEARED}
    return subprocess.run(
        command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, timeout=900, check=False
    )


def succeed(*command: str | Path, folder: Path, **environment: str) -> str:
    """Run a command that must succeed; return what it printed, errors last."""
    done = run(*command, folder=folder, **environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a folder, which is then the first place that imports look in."""
    return run(sys.executable, "-c", code, folder=folder, **environment)


def assert_hardened(module: Path) -> None:
    """Read an ELF file: what setup.py asks the compiler and the linker for must be in it."""

    def readelf(option: str) -> str:
        return subprocess.run(
            ["readelf", "-W", option, str(module)], capture_output=True, text=True, check=True, timeout=60
        ).stdout

    segments = {line.split()[0]: line.split() for line in readelf("--program-headers").splitlines() if "0x" in line}
    assert "GNU_RELRO" in segments
    assert segments["GNU_STACK"][6] == "RW", "no executable stack"
    assert "BIND_NOW" in readelf("--dynamic"), "full RELRO"
    assert "TEXTREL" not in readelf("--dynamic"), "position-independent code"
    assert " DYN " in readelf("--file-header")
    symbols = readelf("--dyn-syms")
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__mem\w+_chk", symbols), "fortified"
    sections = readelf("--sections")
    assert ".debug" not in sections
    assert ".symtab" not in sections
