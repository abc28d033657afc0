"""The cffi build of pet.kernels._native: what Python sees of the C code.

The declarations come out of pet_kernels.h, between its two markers, and nowhere else; in API mode the compiler holds them
against the header once more. A number stands for all of them, so that a module that was built from others is known at once
(pet/kernels/_compiled.py). This file knows no kernel and no compiler flag (setup.py has those).
"""

import hashlib
from pathlib import Path

from cffi import FFI

HEADER = Path("native/pet_kernels.h")  # builds run in the directory of setup.py
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"

DECLARATIONS = HEADER.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
NUMBER = int.from_bytes(hashlib.sha256(DECLARATIONS.encode()).digest()[:4], "big")

ffibuilder = FFI()
ffibuilder.cdef(DECLARATIONS + "\n#define PET_DECLARATIONS ...\n")
ffibuilder.set_source(
    "pet.kernels._native",
    f'#include "pet_kernels.h"\n#define PET_DECLARATIONS {NUMBER:#010x}u',
    include_dirs=["native"],
    depends=["native/pet_kernels.h"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
