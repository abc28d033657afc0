"""Kernels allocate nothing: what is compiled calls no allocator, and everything on the stack has a constant size."""

import os
import runpy
import subprocess
import sysconfig
from pathlib import Path

import emulated
import pytest
import setuptools
import setuptools.command.bdist_wheel  # before somebody takes its libraries off the path of a copied worker
from programs import require_program

from pet.kernels import _native

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(path.name for path in (REPOSITORY / "native").glob("*.c"))
#: All that the compiled module may take from the C library; functions of Python belong to the code that cffi wrote.
ALLOWED = {"memcpy", "memmove", "memset", "memcmp", "strcmp", "strlen"}
#: The same with a check of the size, and what ends the process where a check fails.
ALLOWED |= {f"__{name}_chk" for name in ALLOWED} | {"__stack_chk_fail"}


def test_no_kernel_calls_an_allocator():
    command = ["nm", "--dynamic", "--undefined-only", _native.__file__]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    wanted = {line.split()[1].partition("@")[0] for line in lines if line.split()[0] == "U"}
    assert "memcpy" in wanted
    assert {name for name in wanted if not name.startswith(("Py", "_Py"))} <= ALLOWED


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES)
def test_every_array_has_a_constant_size(source, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    variants = runpy.run_path("setup.py")
    name = source.removesuffix(".c").removesuffix("_memory").removesuffix("_fields")
    is_arm = name in variants["AARCH64"]
    compiler = os.environ.get("CC", "cc")
    if is_arm != (variants["MACHINE"] in ("aarch64", "arm64")) and name in {**variants["X86_64"], **variants["AARCH64"]}:
        if not is_arm:
            pytest.skip(f"{sysconfig.get_platform()} has no compiler for {source}")
        compiler = require_program(emulated.COMPILER)
    flags = {**variants["X86_64"], **variants["AARCH64"]}.get(name, [])
    warnings = ["-Wvla", "-Walloca", "-Werror"]
    emulated.run(compiler, "-std=c11", "-fsyntax-only", *warnings, *flags, "-Inative", f"native/{source}")
