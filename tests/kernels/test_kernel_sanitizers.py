"""The compiled kernels under the address and undefined-behaviour sanitizers: the tests of this folder once more, in a copy.

The copy is compiled with the sanitizers and run in another process, into which their libraries must be loaded first.
"""

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from pet import kernels

REPOSITORY = Path(__file__).parents[2]
#: This file, and the one that looks at what setup.py compiles.
NOT_COPIED = (Path(__file__).name, "test_kernel_memory_use.py")
VARIANTS = ("avx2", "avx512", "neon")  # each is native/<name>.c, and perhaps native/<name>_memory.c


def run(*command: str, directory: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def copy_repository(directory: Path) -> None:
    for folder in ("native", "pet", "tests/kernels", "tests/vectors"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__", *NOT_COPIED)
        shutil.copytree(REPOSITORY / folder, directory / folder, ignore=ignored)
    for file in ("pyproject.toml", "tests/conftest.py", "tests/vector_files.py"):
        shutil.copy(REPOSITORY / file, directory / file)


def compile_with_sanitizers(directory: Path, compiler: str, monkeypatch) -> None:
    """Compile all C files at once: the variants' own flags are what this machine has."""
    monkeypatch.chdir(directory)
    runpy.run_path("native/build_native.py")["ffibuilder"].emit_c_code("_native.c")
    absent = [name for name in VARIANTS if name not in kernels.available_backends()]
    sources = [path.name for path in Path("native").glob("*.c") if path.stem.removesuffix("_memory") not in absent]
    flags = ["-std=gnu11", "-O1", "-g", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    flags += ["-march=native", "-Inative", f"-I{sysconfig.get_path('include')}"]
    flags += [f"-DPET_WITHOUT_{name.upper()}" for name in absent]
    files = ["_native.c", *(f"native/{name}" for name in sources), "-o", "pet/kernels/_native.abi3.so"]
    run(compiler, *flags, *files, directory=directory)


def test_no_sanitizer_complains(tmp_path, monkeypatch):
    compiler = os.environ.get("CC", "cc")
    copy_repository(tmp_path)
    compile_with_sanitizers(tmp_path, compiler, monkeypatch)
    libraries = [run(compiler, f"-print-file-name=lib{name}.so", directory=tmp_path).strip() for name in ("asan", "ubsan")]
    # NEON is cross-compiled and emulated, with sanitizers of its own: tests/kernels/test_kernel_neon.py.
    tested = " or ".join(("portable", *(name for name in VARIANTS if name in kernels.available_backends())))
    output = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", tested, "tests/kernels"),
        directory=tmp_path,
        PYTHONPATH=str(tmp_path),
        LD_PRELOAD=" ".join(libraries),
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter keeps what it has at exit
        PYTEST_ADDOPTS="",
    )
    assert " passed" in output
