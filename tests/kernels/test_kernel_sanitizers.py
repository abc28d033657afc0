"""The compiled kernels under the address and undefined-behaviour sanitizers: the tests of this folder once more, in a copy.

The copy is compiled with the sanitizers and run in another process, into which their libraries must be loaded first.
"""

import os
import runpy
import sysconfig
from pathlib import Path

import pytest
from builds import copy_kernel_tests, run_kernel_tests, succeed

from pet import kernels

VARIANTS = ("avx2", "avx512", "neon")  # each is native/<name>.c and native/<name>_*.c


def compile_with_sanitizers(directory: Path, compiler: str, monkeypatch) -> None:
    """Compile all C files at once: the variants' own flags are what this machine has."""
    monkeypatch.chdir(directory)
    runpy.run_path("native/build_native.py")["ffibuilder"].emit_c_code("_native.c")
    absent = [name for name in VARIANTS if name not in kernels.available_backends()]
    sources = [path.name for path in Path("native").glob("*.c") if path.stem.partition("_")[0] not in absent]
    flags = [
        "-std=gnu11",
        "-ffp-contract=off",
        "-Og",  # in half the time of -O1
        "-g1",  # the lines of a report, in less time than all variables
        "-shared",
        "-fPIC",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ]
    flags += ["-march=native", "-Inative", f"-I{sysconfig.get_path('include')}"]
    flags += [f"-DPET_WITHOUT_{name.upper()}" for name in absent]
    files = ["_native.c", *(f"native/{name}" for name in sources), "-o", "pet/kernels/_native.abi3.so"]
    succeed(compiler, *flags, *files, folder=directory)


@pytest.mark.parametrize("thinned_to", [pytest.param(4, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.very_long)])
def test_no_sanitizer_complains(thinned_to, tmp_path, monkeypatch):
    compiler = os.environ.get("CC", "cc")
    copy_kernel_tests(tmp_path)
    compile_with_sanitizers(tmp_path, compiler, monkeypatch)
    libraries = [succeed(compiler, f"-print-file-name=lib{name}.so", folder=tmp_path).strip() for name in ("asan", "ubsan")]
    # NEON is cross-compiled and emulated, with sanitizers of its own: tests/kernels/test_kernel_neon.py.
    output = run_kernel_tests(
        tmp_path,
        "tests/kernels",
        thinned_to=thinned_to,
        LD_PRELOAD=" ".join(libraries),
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter keeps what it has at exit
    )
    assert " passed" in output
