"""A copy of pet without its compiled module says what it is, unless that is what somebody asked for."""

import shutil
import sys
from pathlib import Path

import pytest
from builds import copy_sources, python, run

from pet import _installation, kernels
from pet.kernels import _native
from pet.kernels._compiled import DECLARATIONS

#: The pet that these tests run with.
BUILT = Path(_native.__file__).resolve().parents[1]
SHOW = "import pet; print(pet.kernels.active_backend())"


@pytest.fixture(scope="session")
def unbuilt(tmp_path_factory):
    return copy_sources(tmp_path_factory.mktemp("unbuilt"))


def test_a_source_tree_without_kernels_says_so(unbuilt):
    done = python("import pet", unbuilt)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith("pet.errors.KernelsNotBuiltError: this is the source tree; its kernels are not built: ")
    assert "pip install -e ." in error


def test_it_is_an_import_error(unbuilt):
    code = "try:\n import pet\nexcept ImportError as error:\n print([kind.__name__ for kind in type(error).__mro__])"
    assert {"PetError", "BackendError", "ImportError"} <= set(eval(python(code, unbuilt).stdout))


def test_it_names_the_pet_that_it_hides(unbuilt, tmp_path):
    shutil.copytree(BUILT, tmp_path / "site" / "pet", ignore=shutil.ignore_patterns("__pycache__"))
    error = python("import pet", unbuilt, PYTHONPATH=str(tmp_path / "site")).stderr.splitlines()[-1]
    assert f"it hides the pet that is installed in {(tmp_path / 'site' / 'pet').resolve()}" in error


def test_it_names_a_hidden_editable_install(unbuilt):
    """Those are found by finders of their own, asked after the path."""
    code = f"""
import sys, importlib.util

class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, {str(BUILT / "__init__.py")!r}) if name == "pet" else None

sys.meta_path.append(Editable)
import pet
"""
    assert f"it hides the pet that is installed in {BUILT}" in python(code, unbuilt).stderr.splitlines()[-1]


def test_it_hides_nothing_where_nothing_is_installed(unbuilt):
    code = f"import sys; sys.path.insert(0, {str(unbuilt)!r}); import pet"
    error = run(sys.executable, "-I", "-S", "-c", code, folder=unbuilt).stderr.splitlines()[-1]
    assert "its kernels are not built" in error, "it needs no other package to say so"
    assert "hides" not in error


def test_a_copy_of_the_package_is_refused_too(unbuilt, tmp_path):
    """As an image of a container has it, whose recipe copies the folder beside an application."""
    shutil.copytree(unbuilt / "pet", tmp_path / "pet")
    done = python("import pet", tmp_path)
    assert "this is a copy of pet's Python files; its kernels are not built" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", [pytest.param("numba", marks=pytest.mark.long), "reference"])
def test_a_back_end_without_module_can_be_asked_for(unbuilt, name):
    done = python(SHOW, unbuilt, PET_BACKEND=name)
    assert (done.stdout.strip(), done.stderr) == (name, "")


@pytest.mark.parametrize("name", _installation.COMPILED_BACKENDS)
def test_a_compiled_back_end_cannot(unbuilt, name):
    assert "its kernels are not built" in python("import pet", unbuilt, PET_BACKEND=name).stderr


def test_an_unknown_back_end_is_an_error_of_the_first_use(unbuilt):
    assert python("import pet", unbuilt, PET_BACKEND="cuda").returncode == 0
    assert (
        "expected one of avx512, avx2, neon, portable, numba, reference, got 'cuda'"
        in python(SHOW, unbuilt, PET_BACKEND="cuda").stderr
    )


def test_a_module_built_in_place_is_found(unbuilt, tmp_path):
    shutil.copytree(unbuilt, tmp_path / "built")
    shutil.copy(_native.__file__, tmp_path / "built" / "pet" / "kernels")
    done = python(SHOW + "; print(pet.__file__)", tmp_path / "built")
    assert done.stdout.split() == [kernels.available_backends()[0], str(tmp_path / "built" / "pet" / "__init__.py")]
    assert done.stderr == ""


def test_a_module_that_does_not_load_is_an_error(unbuilt, tmp_path):
    """Of another processor, in a folder that two machines share, say: falling back would be slow in silence."""
    shutil.copytree(unbuilt, tmp_path / "broken")
    (tmp_path / "broken" / "pet" / "kernels" / "_native.abi3.so").write_bytes(b"no module")
    done = python(SHOW, tmp_path / "broken")
    assert "BackendError: the compiled kernels of pet do not load: " in done.stderr
    assert python(SHOW, tmp_path / "broken", PET_BACKEND="numba").stdout.strip() == "numba"


def test_a_module_of_other_sources_is_an_error(unbuilt, tmp_path):
    """As after an update of a source tree that was not built again: it would fail where a function has changed."""
    shutil.copytree(unbuilt, tmp_path / "updated")
    shutil.copy(_native.__file__, tmp_path / "updated" / "pet" / "kernels")
    python_file = tmp_path / "updated" / "pet" / "kernels" / "_compiled.py"
    other = python_file.read_text().replace(f"0x{DECLARATIONS:08X}", "0x00000001")
    python_file.write_text(other)
    error = python(SHOW, tmp_path / "updated").stderr.splitlines()[-1]
    assert "the compiled kernels of pet do not load: they were built from other sources" in error
    assert "pip install -e ." in error


@pytest.mark.parametrize(
    ("blocked", "engine"),
    [pytest.param("", "numba", marks=pytest.mark.long), ("numba", "Python integers, about a thousand times slower")],
)
def test_a_build_without_kernels_on_purpose_warns_once(unbuilt, tmp_path, blocked, engine):
    shutil.copytree(unbuilt / "pet", tmp_path / "pet")
    (tmp_path / "pet" / "kernels" / _installation.PURE_MARKER).write_text("on purpose\n")
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked.split()!r}));"
    assert python(block + "import pet", tmp_path).stderr == ""
    done = python(block + SHOW + "; pet.kernels.select_backend(None)", tmp_path)
    assert done.stdout.strip() == ("reference" if blocked else "numba")
    assert done.stderr.count(f"pet is installed without its compiled kernels and runs on {engine}; ") == 1
    assert "pip install --no-cache-dir --force-reinstall" in done.stderr
