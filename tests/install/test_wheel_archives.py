"""What tools/build_wheels refuses to hand out, and that it writes the same bytes for the same content."""

import io
import struct
import tarfile
import zipfile

import pytest
from wheel_archives import MAX_MODULE_BYTES, Mismatch, check_wheel, digest, normalise_archive, unpack
from wheel_targets import TARGETS

LINUX, ARM, WINDOWS = TARGETS["linux-x86_64"], TARGETS["linux-aarch64"], TARGETS["windows-amd64"]
NAME = "pet_protocol-9-cp311-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"


def wheel(folder, modules, name=NAME):
    path = folder / name
    with zipfile.ZipFile(path, "w") as written:
        written.writestr("pet/__init__.py", "")
        for module, content in modules.items():
            written.writestr(module, content)
    return path


def test_a_wheel_with_its_module_passes(tmp_path):
    check_wheel(wheel(tmp_path, {LINUX.module: LINUX.magic + bytes(100)}), LINUX)


@pytest.mark.parametrize(
    ("modules", "name", "message"),
    [
        ({}, NAME, "expected the compiled module pet/kernels/_native.abi3.so alone, got none"),
        ({"pet/kernels/_pure.txt": b""}, NAME, "alone, got pet/kernels/_pure.txt"),
        ({LINUX.module: LINUX.magic, "pet/kernels/_native.pyd": b""}, NAME, "alone, got .*_native.pyd"),
        ({LINUX.module: ARM.magic}, NAME, "expected a module for linux-x86_64, got a file that begins with 7f454c46"),
        ({LINUX.module: b""}, NAME, "expected a module for linux-x86_64"),
        ({LINUX.module: LINUX.magic + bytes(MAX_MODULE_BYTES)}, NAME, "expected a module of at most"),
        (
            {LINUX.module: LINUX.magic},
            "pet_protocol-9-cp311-abi3-linux_x86_64.whl",
            "expected the platform manylinux_2_17_x86_64",
        ),
        ({LINUX.module: LINUX.magic}, NAME.replace("abi3", "cp311"), "cp311-abi3"),
        ({LINUX.module: LINUX.magic, "tests/test_x.py": b""}, NAME, "expected the package pet alone, got tests/test_x.py"),
    ],
)
def test_a_wheel_that_is_not_what_it_must_be_is_refused(tmp_path, modules, name, message):
    with pytest.raises(Mismatch, match=message):
        check_wheel(wheel(tmp_path, modules, name), LINUX)


def pe_file(*libraries, machine=0x8664):
    """Write the smallest PE file that has an import table: one section, at the same place in the file as in memory."""
    header, options, section_at = 0x40, 0x40 + 24, 0x40 + 24 + 240
    module = bytearray(0x400)
    module[:2] = b"MZ"
    struct.pack_into("<I", module, 0x3C, header)
    struct.pack_into("<4sHH12xH", module, header, b"PE\0\0", machine, 1, 240)
    struct.pack_into("<I", module, options + 120, 0x200)
    struct.pack_into("<4I", module, section_at + 8, 0x200, 0x200, 0x200, 0x200)
    name_at = 0x200 + 20 * (len(libraries) + 1)
    for number, library in enumerate(libraries):
        struct.pack_into("<I", module, 0x200 + 20 * number + 12, name_at)
        module[name_at : name_at + len(library)] = library.encode()
        name_at += len(library) + 1
    return bytes(module)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (pe_file("python3.dll", "KERNEL32.dll", "api-ms-win-crt-heap-l1-1-0.dll"), None),
        (pe_file("python311.dll", "KERNEL32.dll"), "expected python3.dll and libraries of the system alone, got python311.dll"),
        (pe_file("python3.dll", "libgcc_s_seh-1.dll"), "got python3.dll, libgcc_s_seh-1.dll"),
        (pe_file("python3.dll", machine=0xAA64), "expected a module for Windows on x86-64, got a damaged one: machine 0xaa64"),
        (b"MZ", "got a damaged one"),
    ],
    ids=["good", "one version", "a compiler's", "another machine", "cut off"],
)
def test_a_wheel_for_windows_loads_python_and_the_system_alone(tmp_path, module, message):
    made = wheel(tmp_path, {WINDOWS.module: module}, "pet_protocol-9-cp311-abi3-win_amd64.whl")
    if message is None:
        check_wheel(made, WINDOWS)
    else:
        with pytest.raises(Mismatch, match=message):
            check_wheel(made, WINDOWS)


def test_an_archive_has_the_same_bytes_for_every_packer_and_time(tmp_path):
    digests = []
    for number, names in enumerate((["b", "a"], ["a", "b"])):
        source = tmp_path / f"{number}.tar.gz"
        with tarfile.open(source, "w:gz") as written:
            for name in names:
                member = tarfile.TarInfo(f"pet-9/{name}")
                member.size, member.mtime, member.uid, member.uname = 1, 1000 * number, number, f"user{number}"
                member.mode = (0o600, 0o664)[number]
                written.addfile(member, io.BytesIO(name.encode()))
        made = normalise_archive(source, tmp_path / f"{number}.normal.tar.gz", 1_700_000_000)
        digests.append(digest(made))
    assert digests[0] == digests[1]
    tree = unpack(made, tmp_path / "unpacked")
    assert [(path.name, path.read_text(), path.stat().st_mode & 0o777) for path in sorted(tree.iterdir())] == [
        ("a", "a", 0o644),
        ("b", "b", 0o644),
    ]
