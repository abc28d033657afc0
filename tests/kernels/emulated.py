"""The kernels of another processor as a back-end of this one: native/driver.c in an emulator, spoken to through pipes.

The static libraries are those that setup.py builds for that processor, so its flags and the choice of the variant are tested
with them.
"""

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from pet.errors import AggregationError, UnmaskError
from pet.kernels import Decoding, Encoding
from pet.kernels._compiled import check, lib

REPOSITORY = Path(__file__).parents[2]
DRIVER_SOURCE = REPOSITORY / "tests/kernels/native/driver.c"
COMPILER, ARCHIVER, EMULATOR = "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ar", "qemu-aarch64"
#: Where the cross-compiler's package has the libraries of the other processor.
SYSTEM_ROOT = "/usr/aarch64-linux-gnu"
NAME_BYTES: Final = 32
NUMBER, BUFFER, SAME_BUFFER = range(3)  # kinds of arguments
DATA_TYPES: Final = {"float32": lib.PET_F32, "float64": lib.PET_F64, "int32": lib.PET_I32, "int64": lib.PET_I64}


def run(*command: str | Path, **environment: str) -> None:
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def build_driver(folder: Path) -> Path:
    """Compile the kernels as setup.py does on 64-bit Arm, and the driver with them; linked statically, it needs no library."""
    libraries = folder / "libraries"
    places = ["--build-clib", str(libraries), "--build-temp", str(folder / "objects")]
    environment = {
        "CC": COMPILER,
        "AR": ARCHIVER,
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        "PET_WITHOUT": "",
        "CFLAGS": "-Werror",
    }
    run(sys.executable, "setup.py", "-q", "build_clib", *places, **environment)
    driver = folder / "driver"
    archives = [libraries / f"libpet_{name}.a" for name in ("dispatch", "neon", "portable")]
    run(COMPILER, "-static", "-O2", "-Inative", DRIVER_SOURCE, *archives, "-o", driver)
    return driver


def remembered_driver(folder: Path, build: Callable[[Path], Path]) -> Path:
    """Return a driver in a folder that processes and sessions share; built if no session built it of these sources.

    Args:
        folder: where drivers are kept, for example in pytest's cache.
        build: takes an empty folder and returns the driver in it.
    """
    sources = [*sorted((REPOSITORY / "native").glob("*.[ch]")), REPOSITORY / "setup.py", DRIVER_SOURCE, Path(__file__)]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = folder / f"{build.__name__}-{digest}"
        built = place / "path"
        if not built.exists():
            for other in folder.glob(f"{build.__name__}-*"):
                shutil.rmtree(other)
            place.mkdir()
            built.write_text(str(build(place)))
        return Path(built.read_text())


def build_sanitized_driver(folder: Path) -> Path:
    """Compile everything with the address and undefined-behaviour sanitizers; their libraries come with the compiler."""
    driver = folder / "sanitized"
    names = "dispatch", "neon", "neon_fields", "portable", "masking", "unmasking", "fractions", "fields", "portable_fields"
    sources = [f"native/{name}.c" for name in names]
    flags = [
        "-std=gnu11",
        "-ffp-contract=off",
        "-Og",  # in half the time of -O1
        "-g1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
        "-Inative",
    ]
    run(COMPILER, *flags, *sources, DRIVER_SOURCE, "-o", driver)
    return driver


@contextmanager
def start_neon(driver: Path) -> Iterator["EmulatedBackend"]:
    """Run a driver, and see that it ends as it should."""
    backend = EmulatedBackend([EMULATOR, "-L", SYSTEM_ROOT, driver], lib.PET_VARIANT_NEON)
    yield backend
    backend.close()


def integer_bytes(value: int) -> bytearray:
    return bytearray(value.to_bytes(-(-value.bit_length() // 8), "little"))


def span(array: np.ndarray) -> np.ndarray:
    """Return the bytes between the first and the last element: with gaps, where an array is a range of a total."""
    if array.flags.c_contiguous or array.size == 0:
        return array.reshape(-1).view(np.uint8)
    size = sum((length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)) + array.itemsize
    return np.lib.stride_tricks.as_strided(array.view(np.uint8), (size,), (1,))


class EmulatedBackend:
    """A `Backend` of pet/kernels/_arrays.py whose kernels run elsewhere, without those of fractions, which all variants share.

    Args:
        command: what starts the driver.
        variant: one of enum pet_variant.
    """

    name = "neon"

    def __init__(self, command: Sequence[str | Path], variant: int) -> None:
        self._variant = variant
        # What is left at the end is none of the sanitizer's business here; looking for it needs what emulators lack.
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def close(self) -> None:
        """End the process; it must have been content to the end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0
        self._process.stdout.close()

    def call(self, kernel: str, *arguments: Any, variant: int | None = None) -> int:
        """Call a kernel: numbers, and arrays or byte arrays, which come back as the kernel left them."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        all_arguments = [self._variant if variant is None else variant, *arguments]
        header = [kernel.encode().ljust(NAME_BYTES, b"\0"), struct.pack("<Q", len(all_arguments))]
        buffers: dict[int, np.ndarray] = {}
        for i, argument in enumerate(all_arguments):
            if isinstance(argument, (int, np.integer)):
                header.append(struct.pack("<QQQ", NUMBER, int(argument), 0))
                continue
            whole = np.frombuffer(argument, dtype=np.uint8) if isinstance(argument, (bytes, bytearray)) else span(argument)
            same = [k for k, other in buffers.items() if (other.ctypes.data, other.nbytes) == (whole.ctypes.data, whole.nbytes)]
            if same and whole.nbytes:
                header.append(struct.pack("<QQQ", SAME_BUFFER, same[0], 0))
                continue
            header.append(struct.pack("<QQQ", BUFFER, whole.nbytes, whole.ctypes.data % 64))
            buffers[i] = whole
        stdin.write(b"".join([*header, *(buffer.tobytes() for buffer in buffers.values())]))
        stdin.flush()
        size = 8 + sum(buffer.nbytes for buffer in buffers.values())
        answer = stdout.read(size)
        assert len(answer) == size, f"{kernel}: the driver ended"
        offset = 8
        for buffer in buffers.values():
            if buffer.flags.writeable:
                buffer[:] = np.frombuffer(answer, dtype=np.uint8, count=buffer.nbytes, offset=offset)
            offset += buffer.nbytes
        return int.from_bytes(answer[:8], "little")

    def best_variant(self) -> str:
        """Return the name of the variant that is chosen when none is asked for."""
        name = np.zeros(16, dtype=np.uint8)
        self.call("pet_variant_name", name, variant=lib.PET_VARIANT_BEST)
        return name.tobytes().rstrip(b"\0").decode()

    def covers(self, order: int) -> bool:
        return bool(self.call("pet_variant_covers", integer_bytes(order)))

    def expand(self, elements: np.ndarray, seed: bytes, position: int, order: int) -> int:
        after = np.array([position], dtype=np.uint64)
        check(self.call("pet_expand", elements, len(elements), seed, after, integer_bytes(order)))
        return int(after[0])

    def sum_masks(self, total: np.ndarray, seeds: bytes, positions: np.ndarray, order: int) -> None:
        arguments = *planes(total), seeds, len(positions), positions, integer_bytes(order)
        check(self.call("pet_sum_masks", *arguments))

    def mask_weights(self, masked: np.ndarray, weights: np.ndarray, elements: np.ndarray, encoding: Encoding) -> int:
        clipped_count, bad_index = np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
        arguments = masked, *model(weights), elements, *encoding_parts(encoding), clipped_count, bad_index
        check(self.call("pet_mask_weights", *arguments), int(bad_index[0]))
        return int(clipped_count[0])

    def update(
        self, masked: np.ndarray, weights: np.ndarray, seed: bytes, position: int, encoding: Encoding
    ) -> tuple[int, int]:
        after = np.array([position], dtype=np.uint64)
        clipped_count, bad_index = np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
        arguments = masked, *model(weights), seed, after, *encoding_parts(encoding), clipped_count, bad_index
        status = self.call("pet_update", *arguments)
        check(status, int(bad_index[0]))
        return int(after[0]), int(clipped_count[0])

    def find_invalid(self, elements: np.ndarray, order: int) -> int:
        return self.call("pet_find_invalid", elements, len(elements), integer_bytes(order))

    def aggregate(self, total: np.ndarray, vectors: Sequence[np.ndarray], order: int) -> None:
        bad_vector = np.zeros(1, dtype=np.uint64)
        joined = np.concatenate(vectors)
        status = self.call("pet_aggregate", *planes(total), len(vectors), joined, integer_bytes(order), bad_vector)
        check(status, int(bad_vector[0]))

    def subtract(self, total: np.ndarray, elements: np.ndarray, order: int) -> None:
        check(self.call("pet_subtract", *planes(total), elements, integer_bytes(order)))

    def reduce(self, total: np.ndarray, bound: int, order: int) -> None:
        check(self.call("pet_reduce", *planes(total), bound, integer_bytes(order)))

    def pack(self, elements: np.ndarray, total: np.ndarray, order: int) -> None:
        check(self.call("pet_pack", elements, *planes(total), integer_bytes(order)))

    def unmask_elements(self, elements: np.ndarray, total: np.ndarray, mask: np.ndarray, order: int) -> None:
        arguments = elements, *planes(total)[:2], mask, len(mask), integer_bytes(order)
        check(self.call("pet_unmask_elements", *arguments))

    def unmask(self, model: np.ndarray, total: np.ndarray, mask: np.ndarray, decoding: Decoding) -> None:
        bad_index = np.zeros(1, dtype=np.uint64)
        data_type = DATA_TYPES[model.dtype.name]
        arguments = model, data_type, *planes(total)[:2], mask, len(mask), *decoding_parts(decoding), bad_index
        check(self.call("pet_unmask", *arguments), int(bad_index[0]))

    def field_expand_add(self, vector: np.ndarray, first: int, keys: bytes, order: int, factor: int) -> None:
        check(self.call("pet_field_expand_add", vector, first, len(vector), keys, len(keys) // 32, factor, order))

    def field_encode(
        self, elements: np.ndarray, weights: np.ndarray, scalar: float, bound: float, levels: int, order: int
    ) -> int:
        clipped_count, bad_index = np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
        arguments = *model(weights), bits(scalar), bits(bound), levels, order, clipped_count, bad_index
        check(self.call("pet_field_encode", elements, *arguments), int(bad_index[0]))
        return int(clipped_count[0])

    def field_decode(self, out: np.ndarray, elements: np.ndarray, bound: float, highest: int, unit: int, order: int) -> None:
        bad_index, data_type = np.zeros(1, dtype=np.uint64), DATA_TYPES[out.dtype.name]
        arguments = elements, len(elements), bits(bound), highest, bits(float(unit)), order, bad_index
        status = self.call("pet_field_decode", out, data_type, *arguments)
        if status == lib.PET_OUT_OF_RANGE:
            raise UnmaskError("out_of_range", f"weight {bad_index[0]}: expected a total of at most {highest}, got more")
        check(status)

    def field_add(self, total: np.ndarray, vector: np.ndarray, order: int) -> None:
        self._change("pet_field_add", total, vector, order)

    def field_subtract(self, total: np.ndarray, vector: np.ndarray, order: int) -> None:
        self._change("pet_field_subtract", total, vector, order)

    def _change(self, name: str, total: np.ndarray, vector: np.ndarray, order: int) -> None:
        bad_index = np.zeros(1, dtype=np.uint64)
        status = self.call(name, total, vector, len(vector), order, bad_index)
        if status == lib.PET_INVALID_ELEMENT:
            raise AggregationError("invalid_object", f"element {bad_index[0]} is not below the order of the group", 0)
        check(status)

    def field_multiply_add(self, total: np.ndarray, vector: np.ndarray, factor: int, order: int) -> None:
        check(self.call("pet_field_multiply_add", total, vector, len(vector), factor, order))

    def field_dot(self, left: np.ndarray, right: np.ndarray, order: int) -> int:
        result = np.zeros(1, dtype=np.uint64)
        check(self.call("pet_field_dot", result, left, right, len(left), order))
        return int(result[0])

    def field_find_above(self, elements: np.ndarray, highest: int, order: int) -> int:
        return self.call("pet_field_find_above", elements, len(elements), highest, order)


def bits(value: float) -> int:
    return int(np.float64(value).view(np.uint64))


def planes(total: np.ndarray) -> tuple[np.ndarray, int, int]:
    return total, total.strides[0] // 8, total.shape[1]


def model(weights: np.ndarray) -> tuple[np.ndarray, int, int]:
    return weights, DATA_TYPES[weights.dtype.name], len(weights)


def encoding_parts(encoding: Encoding) -> list[bytearray]:
    values = encoding.order, encoding.offset, encoding.scale_numerator, encoding.scale_denominator
    return [integer_bytes(value) for value in values]


def decoding_parts(decoding: Decoding) -> list[bytearray]:
    lowest, highest = min(max(decoding.lowest, 0), decoding.order), min(decoding.highest, decoding.order)
    values = decoding.order, decoding.offset, decoding.numerator, decoding.denominator, lowest, highest
    return [integer_bytes(value) for value in values]
