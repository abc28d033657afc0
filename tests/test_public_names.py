"""What `import pet` gives, and what it costs."""

import subprocess
import sys

import pet


def test_all_is_what_is_exported():
    modules = {"errors", "kernels", "shares"}
    public = {name for name in vars(pet) if not name.startswith("_")}
    own_modules = {name for name in public if type(vars(pet)[name]) is type(sys)} - modules
    assert set(pet.__all__) == (public - own_modules) | {"__version__"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_import_pulls_in_nothing_but_the_three_dependencies():
    loaded = run(
        "import sys; import pet;print(' '.join(sorted({name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)))"
    ).split()
    assert set(loaded) <= {"pet", "numpy", "cffi", "nacl", "_cffi_backend", "_sodium", "_distutils_hack", "__main__"} | {
        name for name in loaded if name.startswith(("__editable__", "__mp_main__", "_virtualenv", "a1_coverage"))
    }


def test_import_starts_no_thread_and_selects_no_back_end():
    assert run("import threading, pet, pet.kernels._backends as k; print(threading.active_count(), k._active)").split() == [
        "1",
        "None",
    ]
