"""What pyproject.toml cannot say: how the C code is compiled, and how the README reads on a package index.

Each instruction set is its own static library, because its compiler flags must reach no other file. Where the C code does not
compile the build fails, unless PET_ALLOW_PURE=1: then pet installs without it, on numba or Python integers, and says so.

PET_WITHOUT=avx2,avx512 (names joined with commas) leaves variants out. For another machine than this one set CC, AR and
_PYTHON_HOST_PLATFORM, as everywhere in Python: linux-aarch64, for example. docs/install.md has the rest.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

#: Fortified functions check what they know the size of: level 3 is level 2 where the compiler or the C library is older.
#: Compilers for Windows have neither those checks nor -fPIC: all code there can be moved.
HARDENED = ["-fvisibility=hidden"]
if not sysconfig.get_platform().startswith("win"):
    HARDENED += ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3", "-fPIC"]
#: -g0 because Python's own flags ask for debug symbols: 4 MB of them. -ffp-contract=off because a product and the sum after it
#: are rounded apart: what pet-1 encodes is the same bits everywhere (docs/spec/profile.md 4.1).
COMMON = ["-std=c11", "-O3", "-ffp-contract=off", "-g0", "-Wall", "-Wextra", "-Wshadow", *HARDENED]
#: Relocations that are read-only before the first call, no executable stack, no symbols but those that are exported.
ELF_LINK = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--strip-all"]
HEADERS = [str(path) for path in sorted(Path("native").glob("*.h"))]
#: What is compiled for, which need not be the machine that compiles: linux-x86_64, linux-aarch64, macosx-14.0-arm64, win-amd64.
PLATFORM = sysconfig.get_platform()
MACHINE = PLATFORM.rpartition("-")[2].lower()

AVX2 = ["-mavx2", "-mbmi", "-mbmi2", "-mfma", "-mpopcnt"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
#: Flags of every variant of a machine; the files are native/<name>.c and, where there are any, native/<name>_fields.c and
#: native/<name>_memory.c.
X86_64 = {"avx512": AVX512, "avx2": AVX2}
AARCH64 = {"neon": []}  # which every such machine has
VARIANT_FLAGS = {"x86_64": X86_64, "amd64": X86_64, "aarch64": AARCH64, "arm64": AARCH64}.get(MACHINE, {})
#: Where the repository is public, for links on the package index; empty until then. Set it with the first upload.
REPOSITORY_URL = ""
#: Beside the module or in place of it; pet/_installation.py has the same name.
PURE_MARKER = "_pure.txt"


def index_readme(text, url):
    """Return the README for a package index, which has neither the other files of the repository nor anchors at headings.

    Links to files become absolute; without the address of the repository they stay as text, and pictures are left out.
    """

    def link(found):
        image, words, target = found.groups()
        if target.startswith("http"):
            return found[0]
        if not url or target.startswith("#"):
            return "" if image else words
        return f"{image}[{words}]({url}/{'raw' if image else 'blob'}/HEAD/{target})"

    text = re.sub(r"<!--.*?-->\n?", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"(!?)\[([^\]]*)\]\(([^)]*)\)", link, text))


def left_out():
    """Return the variants that PET_WITHOUT names."""
    names = [name.strip() for name in os.environ.get("PET_WITHOUT", "").split(",") if name.strip()]
    known = [*X86_64, *AARCH64]
    for name in names:
        if name not in known:
            sys.exit(f"PET_WITHOUT: expected names out of {', '.join(known)}, joined with commas, got {name!r}")
    return names


def allows_pure():
    """Return whether PET_ALLOW_PURE permits to install without the compiled kernels."""
    value = os.environ.get("PET_ALLOW_PURE", "")
    if value not in ("", "0", "1"):
        sys.exit(f"PET_ALLOW_PURE: expected 1, 0 or nothing, got {value!r}")
    return value == "1"


LEFT_OUT = left_out()
ALLOWS_PURE = allows_pure()


def library(name, sources, *flags):
    """Describe a static library of files in native/, compiled with flags of its own."""
    return f"pet_{name}", {
        "sources": [f"native/{source}.c" for source in sources if Path(f"native/{source}.c").exists()],
        "include_dirs": ["native"],
        "cflags": [*COMMON, *flags],
        "obj_deps": {"": HEADERS},
    }


def refuse(error):
    """Return the error of a build whose C code does not compile; the compiler's own messages stand above it in the output."""
    return CompileError(
        f"the kernels of pet do not compile here: {reason_of(error)}\n"
        "pet needs a C compiler and the headers of Python (Debian: apt install gcc libc6-dev python3-dev).\n"
        "PET_ALLOW_PURE=1 installs it without its kernels: on numba, or about a thousand times slower."
    )


def reason_of(error):
    """Return in a line why a command failed; newer versions of setuptools put the whole command into the error."""
    cause = error.args[0] if error.args else error
    if isinstance(cause, subprocess.CalledProcessError):
        return f"{cause.cmd[0]} failed with exit status {cause.returncode}"
    return str(cause)


class Build(build):
    """Build from the sources alone: an earlier build may have left objects with other flags, or modules since removed."""

    def run(self):
        """Run the command."""
        for folder in (Path(self.build_lib, "pet"), Path(self.build_temp, "native")):
            shutil.rmtree(folder, ignore_errors=True)
        super().run()


class BuildClib(build_clib):
    """Build the static libraries; keep the error, if there is one and PET_ALLOW_PURE allows it."""

    error = None

    def build_libraries(self, libraries):
        """Compile the files, as many at a time as there are cores; then make the libraries of what is compiled already."""
        Path(self.build_temp, "native").mkdir(parents=True, exist_ok=True)  # where all of them write
        files = [(source, info) for _, info in libraries for source in info["sources"]]
        files.sort(key=lambda each: each[0].endswith("_memory.c"), reverse=True)  # the longest first: none is left for one core
        try:
            with ThreadPoolExecutor(os.cpu_count()) as compilers:
                list(compilers.map(lambda each: self.compile_one(*each), files))
            super().build_libraries(libraries)
        except (BaseError, CCompilerError) as error:
            if not ALLOWS_PURE:
                raise refuse(error) from error
            self.error = error

    def compile_one(self, source, info):
        """Compile a file as build_clib does, which compiles what is older than its sources once more."""
        self.compiler.compile(
            [source],
            output_dir=self.build_temp,
            include_dirs=info["include_dirs"],
            extra_postargs=info["cflags"],
            debug=self.debug,
        )


class BuildExt(build_ext):
    """Build the module, or write the marker that says it was left out on purpose."""

    error = None

    def run(self):
        """Run the command."""
        self.run_command("build_clib")
        self.error = self.get_finalized_command("build_clib").error
        if self.error is None:
            try:
                super().run()
            except (BaseError, CCompilerError) as error:
                if not ALLOWS_PURE:
                    raise refuse(error) from error
                self.error = error
        for extension in self.extensions:
            self.leave_one(Path(self.get_ext_fullpath(extension.name)))

    def leave_one(self, module):
        """Leave the module or the marker where the module belongs, never both: an earlier build may have left the other."""
        marker = module.with_name(PURE_MARKER)
        if self.error is None:
            marker.unlink(missing_ok=True)
            return
        module.unlink(missing_ok=True)
        module.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("pet was built without its compiled kernels: PET_ALLOW_PURE=1, and the C code did not compile.\n")
        self.warn(f"PET_ALLOW_PURE=1: pet installs without its kernels, and will be slow: {reason_of(self.error)}")

    def get_ext_filename(self, fullname):
        """Return the file of the module; Python for Windows finds no other than .pyd."""
        path = super().get_ext_filename(fullname)
        return re.sub(r"(\.abi3)?\.so$", ".pyd", path) if PLATFORM.startswith("win") else path

    def get_outputs(self):
        """Return what was built."""
        return [self.built(path) for path in super().get_outputs()]

    def get_output_mapping(self):
        """Return where what was built stands in the source tree; editable installs in strict mode link it."""
        return {self.built(path): self.built(source) for path, source in super().get_output_mapping().items()}

    def built(self, path):
        """Return the path of what stands where the module belongs."""
        return path if self.error is None else str(Path(path).with_name(PURE_MARKER))

    def build_extension(self, extension):
        """Compile the code that cffi wrote, and link it with the libraries; always: they are not among its dependencies."""
        self.force = True
        extension.extra_compile_args = [*extension.extra_compile_args, "-O2", "-g0", *HARDENED]
        if PLATFORM.startswith("linux"):
            extension.extra_link_args = [*extension.extra_link_args, *ELF_LINK]
        super().build_extension(extension)


class BdistWheel(bdist_wheel):
    """Tag a wheel as what is in it: for one machine with the module, for any without."""

    holds_package = False  # editable installs ask for the tag of a wheel that they write themselves

    def run(self):
        """Run the command."""
        self.holds_package = True
        super().run()

    def get_tag(self):
        """Return the tag; in an editable install, whose wheel holds no package, that of the machine."""
        kernels = Path(self.bdist_dir, "pet", "kernels")
        if self.holds_package:
            has_module, is_pure = any(kernels.glob("_native.*")), (kernels / PURE_MARKER).exists()
            if has_module == is_pure:
                raise CompileError("wheel: expected the compiled module or the marker of a build without it, got both or none")
            self.root_is_pure = is_pure
        return super().get_tag()


setup(
    long_description=index_readme(Path("README.md").read_text(encoding="utf-8"), REPOSITORY_URL),
    long_description_content_type="text/markdown",
    cffi_modules=["native/build_native.py:ffibuilder"],
    cmdclass={"bdist_wheel": BdistWheel, "build": Build, "build_clib": BuildClib, "build_ext": BuildExt},
    # Linkers take what is missing from the libraries to the right.
    libraries=[
        library("dispatch", ["dispatch", "digests"], *(f"-DPET_WITHOUT_{name.upper()}" for name in LEFT_OUT)),
        *(
            library(name, [name, f"{name}_memory", f"{name}_fields"], *flags)
            for name, flags in VARIANT_FLAGS.items()
            if name not in LEFT_OUT
        ),
        library("portable", ["portable", "masking", "unmasking", "fractions", "fields", "portable_fields", "sodium"]),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
