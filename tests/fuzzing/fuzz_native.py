"""Compile the kernels with libFuzzer and the address sanitizer, and fuzz them; needs clang (Debian: clang, libclang-rt-14-dev).

python tests/fuzzing/fuzz_native.py -max_total_time=600             arguments are libFuzzer's
python tests/fuzzing/fuzz_native.py --unoptimised -runs=1000        compiled in a tenth of the time, for a short run
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["-std=gnu11", "-fsanitize=fuzzer,address", "-march=native", f"-I{ROOT / 'native'}"]


def build(folder: Path, optimisation: list[str]) -> Path:
    """Compile the program into a folder; variants that this machine cannot run, or PET_WITHOUT names, are left out."""
    from pet import kernels

    variants = ("avx2", "avx512", "neon")
    left_out = os.environ.get("PET_WITHOUT", "").split(",")
    absent = [name for name in variants if name not in kernels.available_backends() or name in left_out]
    sources = [path for path in sorted((ROOT / "native").glob("*.c")) if path.stem.partition("_")[0] not in absent]
    program = folder / "fuzz_kernels"
    definitions = [f"-DPET_WITHOUT_{name.upper()}" for name in absent]

    def compile_one(source: Path) -> Path:
        result = folder / f"{source.stem}.o"
        subprocess.run(["clang", *FLAGS, *optimisation, *definitions, "-c", str(source), "-o", str(result)], check=True)
        return result

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        objects = list(threads.map(compile_one, [*sources, ROOT / "tests/fuzzing/native/fuzz_kernels.c"]))
    subprocess.run(["clang", *FLAGS, *map(str, objects), "-o", str(program)], check=True)
    return program


def main() -> None:
    is_short = "--unoptimised" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--unoptimised"]
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder), ["-O0"] if is_short else ["-O1", "-g"])
        print("compiled", flush=True)
        sys.exit(subprocess.run([str(program), *arguments]).returncode)


if __name__ == "__main__":
    main()
