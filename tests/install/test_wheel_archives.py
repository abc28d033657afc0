"""What tools/build_wheels refuses to hand out, and that it writes the same bytes for the same content."""

import io
import tarfile
import zipfile

import pytest
from wheel_archives import MAX_MODULE_BYTES, Mismatch, check_wheel, digest, normalise_archive, unpack
from wheel_targets import TARGETS

LINUX, ARM = TARGETS["linux-x86_64"], TARGETS["linux-aarch64"]
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
