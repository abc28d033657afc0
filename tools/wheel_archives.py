"""Archives with the same bytes for the same content, and what must be in a wheel."""

import gzip
import hashlib
import struct
import tarfile
import zipfile
from pathlib import Path

from wheel_targets import Target

#: No module of ours comes near it; one with debug symbols, 5 MB, does not pass.
MAX_MODULE_BYTES = 2 * 2**20


class Mismatch(Exception):  # noqa: N818 - it is one
    """A file is not what it must be."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def normalise_archive(source: Path, target: Path, epoch: int) -> Path:
    """Write a .tar.gz again with its files sorted, one time stamp, no owner, and modes 644 or 755; return the new one."""
    with (
        tarfile.open(source) as opened,
        target.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=epoch) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.GNU_FORMAT) as written,
    ):
        for member in sorted(opened.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            written.addfile(member, opened.extractfile(member) if member.isfile() else None)
    return target


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a source distribution into a new folder; return its only folder."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def check_wheel(wheel: Path, target: Target) -> None:
    """Hold a wheel to its target.

    Raises:
        Mismatch: no module or another machine's, one that was left over, a wrong tag, or debug symbols.
    """
    if not wheel.name.endswith(".whl") or target.tag not in wheel.stem.rpartition("-")[2].split("."):
        raise Mismatch(f"{wheel.name}: expected the platform {target.tag}")
    if wheel.stem.split("-")[-3:-1] != ["cp311", "abi3"]:
        raise Mismatch(f"{wheel.name}: expected a wheel for Python's stable interface, cp311-abi3")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        found = [name for name in names if name.startswith("pet/kernels/_native.") or name.endswith("_pure.txt")]
        if found != [target.module]:
            raise Mismatch(
                f"{wheel.name}: expected the compiled module {target.module} alone, got {', '.join(found) or 'none'}"
            )
        module = opened.read(target.module)
    if not module.startswith(target.magic):
        raise Mismatch(f"{wheel.name}: expected a module for {target.name}, got a file that begins with {module[:20].hex()}")
    if len(module) > MAX_MODULE_BYTES:
        raise Mismatch(f"{wheel.name}: expected a module of at most {MAX_MODULE_BYTES} bytes, got {len(module)}")
    if target.zig.startswith("aarch64-macos"):
        _check_macos(wheel.name, module)
    if target.is_windows:
        _check_windows(wheel.name, module)
    strangers = [name for name in names if not name.startswith(("pet/", "pet_protocol-"))]
    if strangers:
        raise Mismatch(f"{wheel.name}: expected the package pet alone, got {', '.join(strangers)}")


#: Load commands of a Mach-O file: a library to load, the signature, the oldest system.
_LOAD_DYLIB, _CODE_SIGNATURE, _BUILD_VERSION = 0xC, 0x1D, 0x32


def _check_macos(name: str, module: bytes) -> None:
    """Hold a Mach-O file to macOS 11.0, its system library alone, and a signature, without which arm64 does not load it."""
    commands: dict[int, list[bytes]] = {}
    offset = 32  # behind the header
    for _ in range(struct.unpack_from("<I", module, 16)[0]):
        kind, size = struct.unpack_from("<2I", module, offset)
        commands.setdefault(kind, []).append(module[offset : offset + size])
        offset += size
    oldest = [struct.unpack_from("<I", command, 12)[0] for command in commands.get(_BUILD_VERSION, [])]
    if oldest != [11 << 16]:
        raise Mismatch(f"{name}: expected a module for macOS 11.0 or later, got {oldest}")
    libraries = [command[24:].rstrip(b"\0").decode() for command in commands.get(_LOAD_DYLIB, [])]
    if libraries != ["/usr/lib/libSystem.B.dylib"]:
        raise Mismatch(f"{name}: expected the system library alone, got {', '.join(libraries)}")
    if _CODE_SIGNATURE not in commands:
        raise Mismatch(f"{name}: expected a signed module, got one without a signature")


def _check_windows(name: str, module: bytes) -> None:
    """Hold a PE file to x86-64, and to Python's stable interface and what every Windows has since 10."""
    try:
        libraries = _imported_libraries(module)
    except (struct.error, ValueError) as error:
        raise Mismatch(f"{name}: expected a module for Windows on x86-64, got a damaged one: {error}") from None
    strangers = [
        one for one in libraries if one not in ("python3.dll", "kernel32.dll") and not one.startswith("api-ms-win-crt-")
    ]
    if strangers or "python3.dll" not in libraries:
        raise Mismatch(f"{name}: expected python3.dll and libraries of the system alone, got {', '.join(libraries)}")


def _imported_libraries(module: bytes) -> list[str]:
    """Return the libraries of the import table of a PE file, in lower case.

    Source: PE Format (Microsoft), "Optional Header Data Directories", "Import Directory Table".
    """
    (header,) = struct.unpack_from("<I", module, 0x3C)
    signature, machine, section_count, option_bytes = struct.unpack_from("<4sHH12xH", module, header)
    if (signature, machine) != (b"PE\0\0", 0x8664):
        raise ValueError(f"machine {machine:#x}")
    options = header + 24
    (table,) = struct.unpack_from("<I", module, options + 120)
    sections = [struct.unpack_from("<4I", module, options + option_bytes + 40 * number + 8) for number in range(section_count)]

    def place(address: int) -> int:
        return next(raw + address - begin for size, begin, _, raw in sections if begin <= address < begin + size)

    libraries, entry = [], place(table)
    while name := struct.unpack_from("<I", module, entry + 12)[0]:
        begin = place(name)
        libraries.append(module[begin : module.index(b"\0", begin)].decode("ascii").lower())
        entry += 20
    return libraries
