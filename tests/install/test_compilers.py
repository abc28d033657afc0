"""Other compilers than the one that pet is installed with here: no warning, and the tests of the kernels once more.

The compiler for 64-bit Arm has its own: tests/kernels/test_kernel_neon.py.
"""

import sys

import pytest
from builds import assert_hardened, copy_kernel_tests, run_kernel_tests, succeed, write_quick_compiler
from programs import require_program

from pet.kernels import _native


@pytest.mark.parametrize("thinned_to", [pytest.param(8, marks=pytest.mark.long), pytest.param(1, marks=pytest.mark.very_long)])
@pytest.mark.parametrize("compiler", ["clang"])
def test_the_kernels_compile_without_warnings_and_pass_their_tests(compiler, thinned_to, tmp_path):
    """In the long test with the optimisations that warnings and hardening need; with all of them in the very long one."""
    command = require_program(compiler)
    if thinned_to > 1:
        command = str(write_quick_compiler(tmp_path / "compiler", command))
    folder = copy_kernel_tests(tmp_path / "copy")
    build = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
    succeed(*build, folder=folder, CC=command, CFLAGS="-Werror")
    module = folder / "pet" / "kernels" / _native.__file__.rpartition("/")[2]
    assert compiler.encode() in module.read_bytes(), "compilers leave their name in the section .comment"
    if sys.platform.startswith("linux"):
        assert_hardened(module)
    code = "from pet.kernels import _native; print(_native.__file__)"
    assert succeed(sys.executable, "-c", code, folder=folder).strip() == str(module)
    assert " passed" in run_kernel_tests(folder, "tests/kernels", "tests/test_masking_vectors.py", thinned_to=thinned_to)
