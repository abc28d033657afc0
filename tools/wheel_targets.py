"""The machines that wheels are built for, and the compilers that build them. It builds nothing."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from windows_python import write_python

#: Runs zig's compiler or archiver as CC or AR, which setuptools splits at blanks in some places and not in others.
_WRAPPER = '#!/bin/sh\nexec "{python}" -m ziglang {command} "$@"\n'


@dataclass(frozen=True)
class Target:
    """A machine.

    Attributes:
        name: as `--targets` takes it.
        host_platform: as Python calls it: what setup.py compiles for.
        module: the file in the wheel.
        magic: how the module begins, on this processor and system.
        tag: what the wheel's platform must be, after all checks.
        has_auditwheel: whether auditwheel knows the system.
        compiler: the prefix of gcc's and ar's names; None means zig.
        zig: zig's name of the target.
        link_flags: for linking the module with zig.
    """

    name: str
    host_platform: str
    module: str
    magic: bytes
    tag: str
    has_auditwheel: bool = False
    compiler: str | None = None
    zig: str = ""
    link_flags: str = ""

    @property
    def is_windows(self) -> bool:
        """Whether the system is Windows."""
        return self.host_platform.startswith("win-")

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the environment variables of a build; wrappers of zig are written into a folder."""
        if self.compiler is not None:
            gcc, archiver = f"{self.compiler}gcc", f"{self.compiler}ar"
            return {"_PYTHON_HOST_PLATFORM": self.host_platform, "CC": gcc, "AR": archiver, "LDSHARED": f"{gcc} -shared"}
        folder.mkdir()
        compile_flags, link_flags = "", self.link_flags
        if self.is_windows:
            headers, library = write_python(folder / "python")
            compile_flags, link_flags = f" -I{headers}", f"{link_flags} {library}"
        for tool, command in (("cc", f"cc -target {self.zig}{compile_flags}"), ("ar", "ar")):
            wrapper = folder / tool
            wrapper.write_text(_WRAPPER.format(python=sys.executable, command=command))
            wrapper.chmod(0o700)
        return {
            "_PYTHON_HOST_PLATFORM": self.host_platform,
            "CC": str(folder / "cc"),
            "AR": str(folder / "ar"),
            "LDSHARED": f"{folder / 'cc'} -shared {link_flags}".strip(),
            "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(folder / "cache")),
        }


def _linux(machine: str, elf_machine: int) -> Target:
    # 64 bits, little-endian, version 1, System V; a shared object; the machine.
    magic = b"\x7fELF\x02\x01\x01\x00" + bytes(8) + (3).to_bytes(2, "little") + elf_machine.to_bytes(2, "little")
    module = "pet/kernels/_native.abi3.so"
    return Target(
        f"linux-{machine}",
        f"linux-{machine}",
        module,
        magic,
        f"manylinux_2_17_{machine}",
        has_auditwheel=True,
        compiler=f"{machine}-linux-gnu-",
    )


#: A Mach-O file of 64 bits for an arm64 processor, any variant, and a bundle or a dynamic library.
_MACHO_ARM64 = bytes.fromhex("cffaedfe0c000001")
TARGETS = {
    target.name: target
    for target in (
        _linux("x86_64", 62),
        _linux("aarch64", 183),
        Target(
            "macos-arm64",
            "macosx-11.0-arm64",
            "pet/kernels/_native.abi3.so",
            _MACHO_ARM64,
            "macosx_11_0_arm64",
            zig="aarch64-macos.11.0",
            link_flags="-undefined dynamic_lookup",
        ),
        Target(
            "windows-amd64",
            "win-amd64",
            "pet/kernels/_native.pyd",
            b"MZ",
            "win_amd64",
            zig="x86_64-windows-gnu",
            link_flags="-s",
        ),
    )
}
