"""The cffi build of pet.kernels._native: what Python sees of the C code.

The declarations come out of pet_kernels.h, between its two markers, and nowhere else; in API mode the compiler holds them
against the header once more. This file knows no kernel and no compiler flag (setup.py has those).
"""

from pathlib import Path

from cffi import FFI

HEADER = Path("native/pet_kernels.h")  # builds run in the directory of setup.py
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"

ffibuilder = FFI()
ffibuilder.cdef(HEADER.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0])
ffibuilder.set_source(
    "pet.kernels._native",
    '#include "pet_kernels.h"',
    include_dirs=["native"],
    depends=["native/pet_kernels.h"],
    py_limited_api=True,
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
