"""What a compiler for Windows needs of Python there: the sizes of types, and what python3.dll exports."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

#: In place of the pyconfig.h of this machine: Windows on x86-64, as compilers with the GNU interface see it.
_CONFIGURATION = {
    **dict.fromkeys(("MS_WINDOWS", "MS_WIN64", "MS_WIN32", "NT_THREADS", "WITH_THREAD", "HAVE_DECLSPEC_DLL"), ""),
    **dict.fromkeys(("Py_ENABLE_SHARED", "HAVE_LONG_LONG", "STDC_HEADERS", "HAVE_PROTOTYPES"), "1"),
    **{f"HAVE_{name}_H": "1" for name in ("STDDEF", "STDARG", "STDINT", "INTTYPES", "ERRNO", "STDLIB", "STRING", "WCHAR")},
    **{f"HAVE_SYS_{name}_H": "1" for name in ("TYPES", "STAT")},
    **{f"SIZEOF_{name}": "2" for name in ("SHORT", "WCHAR_T")},
    **{f"SIZEOF_{name}": "4" for name in ("INT", "LONG", "FLOAT", "OFF_T", "PID_T")},
    **{f"SIZEOF_{name}": "8" for name in ("LONG_LONG", "VOID_P", "SIZE_T", "TIME_T", "FPOS_T", "DOUBLE")},
    "ALIGNOF_LONG": "4",
    "ALIGNOF_SIZE_T": "8",
    "ALIGNOF_MAX_ALIGN_T": "8",
}
#: Of Python's stable interface, what the code that cffi writes calls; a name that is missing here does not link.
_FUNCTIONS = (
    *("PyArg_UnpackTuple", "PyErr_Occurred", "PyEval_RestoreThread", "PyEval_SaveThread", "PyFloat_AsDouble"),
    *("PyImport_ImportModule", "PyLong_FromLong", "PyLong_FromUnsignedLongLong", "PyLong_FromVoidPtr"),
    *("PyObject_CallMethod", "PyObject_Free", "PyObject_Malloc", "_Py_Dealloc"),
)


def write_python(folder: Path) -> tuple[Path, Path]:
    """Write headers and an import library into a new folder; return the folder of the headers, and the library."""
    headers, library = folder / "include", folder / "libpython3.a"
    shutil.copytree(sysconfig.get_path("include"), headers)
    lines = [f"#define {name} {value}\n" for name, value in _CONFIGURATION.items()]
    (headers / "pyconfig.h").write_text(f"#ifndef Py_CONFIG_H\n#define Py_CONFIG_H\n{''.join(lines)}#endif\n")
    definition = folder / "python3.def"
    definition.write_text("\n".join(["LIBRARY python3.dll", "EXPORTS", *_FUNCTIONS, ""]))
    tool = (sys.executable, "-m", "ziglang", "dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library)
    subprocess.run(tool, check=True)
    return headers, library
