"""What pyproject.toml cannot say: how the C code is compiled.

Each instruction set is its own static library, because its compiler flags must reach no other file. Where the C code does not
compile, pet installs without it and says so: numba, or at worst Python integers, then do the work.

PET_WITHOUT=avx2,avx512 (names joined with commas) leaves variants out. For another machine than this one set CC, AR and
_PYTHON_HOST_PLATFORM, as everywhere in Python: linux-aarch64, for example.
"""

import os
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LibError

COMMON = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Wshadow", "-fvisibility=hidden", "-fPIC"]
HEADERS = [str(path) for path in sorted(Path("native").glob("*.h"))]
#: What is compiled for, which need not be the machine that compiles: linux-x86_64, linux-aarch64, macosx-14.0-arm64, win-amd64.
MACHINE = sysconfig.get_platform().rpartition("-")[2].lower()

AVX2 = ["-mavx2", "-mbmi", "-mbmi2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
#: Flags of every variant of a machine; the files are native/<name>.c and, where there is one, native/<name>_memory.c.
X86_64 = {"avx512": AVX512, "avx2": AVX2}
AARCH64 = {"neon": []}  # which every such machine has
VARIANT_FLAGS = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}.get(MACHINE, {})
LEFT_OUT = [name for name in os.environ.get("PET_WITHOUT", "").split(",") if name]


def library(name, sources, *flags):
    """Describe a static library of files in native/, compiled with flags of its own."""
    return f"pet_{name}", {
        "sources": [f"native/{source}.c" for source in sources if Path(f"native/{source}.c").exists()],
        "include_dirs": ["native"],
        "cflags": [*COMMON, *flags],
        "obj_deps": {"": HEADERS},
    }


class LoudBuildClib(build_clib):
    """Build the static libraries; go on without them if that fails."""

    def run(self):
        """Run the command."""
        try:
            super().run()
        except (CompileError, LibError) as error:
            self.warn(f"the kernels of pet do not compile here ({error}): it will run on numba, or very slowly")


class LoudBuildExt(build_ext):
    """Build the module, which is optional; say plainly if it is missing."""

    def run(self):
        """Run the command."""
        super().run()
        for extension in self.extensions:
            if not Path(self.get_ext_fullpath(extension.name)).exists() and not self.editable_mode:
                self.warn(f"{extension.name} was not built: pet will run on numba, or very slowly")


setup(
    cffi_modules=["native/build_native.py:ffibuilder"],
    cmdclass={"build_clib": LoudBuildClib, "build_ext": LoudBuildExt},
    # Linkers take what is missing from the libraries to the right.
    libraries=[
        library("dispatch", ["dispatch"], *(f"-DPET_WITHOUT_{name.upper()}" for name in LEFT_OUT)),
        *(library(name, [name, f"{name}_memory"], *flags) for name, flags in VARIANT_FLAGS.items() if name not in LEFT_OUT),
        library("portable", ["portable", "masking", "unmasking", "fractions"]),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
