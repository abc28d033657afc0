"""Real builds of real wheels: what is in them, how they are tagged, and how a build fails."""

import fcntl
import re
import shutil
import sys
import sysconfig
import tarfile
import zipfile

import pytest
from builds import OFFLINE, PIP, REPOSITORY, assert_hardened, copy_sources, python, run, succeed, write_quick_compiler

from pet import kernels
from pet._installation import PURE_MARKER

pytestmark = pytest.mark.long

MODULE = "pet/kernels/_native.abi3.so"
MARKER = f"pet/kernels/{PURE_MARKER}"
PLATFORM = re.sub(r"[-.]", "_", sysconfig.get_platform())
SHOW = "import pet; print(pet.kernels.active_backend(), pet.__file__)"
NO_COMPILER = {"CC": "/bin/false"}
PURE = {**NO_COMPILER, "PET_ALLOW_PURE": "1"}


def plant_leftovers(tree):
    """Leave what an earlier build may have left: a removed module, a compiled module and a marker, objects that are none."""
    implementation = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    built, objects = tree / "build" / f"lib.{implementation}", tree / "build" / f"temp.{implementation}" / "native"
    (built / MODULE).parent.mkdir(parents=True)
    objects.mkdir(parents=True)
    for path in (built / "pet/removed_long_ago.py", built / MODULE, built / MARKER, tree / MODULE, tree / MARKER):
        path.write_text("left over\n")
    for source in (tree / "native").glob("*.c"):
        (objects / f"{source.stem}.o").write_text("no object\n")


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """Give a folder that all processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "builds"
    folder.mkdir(exist_ok=True)
    return folder


def build_once(folder, build):
    """Return the only file in a folder, which is built where no process has built it yet."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            build()
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="session")
def archive(shared):
    """Build a source distribution, in a clone that somebody has built in place."""

    def build():
        tree = copy_sources(shared / "clone")
        for name in (MODULE, MARKER):
            (tree / name).write_text("built in place\n")
        succeed(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", shared / "archive", folder=tree)

    return build_once(shared / "archive", build)


def unpack(archive, folder):
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture
def unpacked(archive, tmp_path):
    return unpack(archive, tmp_path)


def build_wheel(tree, folder, **environment):
    succeed(*PIP, "wheel", *OFFLINE, "--wheel-dir", folder, tree, folder=tree, **environment)
    (path,) = folder.iterdir()
    return path


def build_after_others(archive, folder, **environment):
    """Build a wheel from the source distribution, in a folder where earlier builds left all kinds of things."""
    tree = unpack(archive, folder.with_suffix(".tree"))
    plant_leftovers(tree)
    build_wheel(tree, folder, **environment)


@pytest.fixture(scope="session")
def wheel(archive, shared):
    # Without one of the variants: it takes half of the compiler's time, and is in what the tests run with.
    tools = {"CC": str(write_quick_compiler(shared / "compiler")), "PET_WITHOUT": "avx512"}
    return build_once(shared / "wheel", lambda: build_after_others(archive, shared / "wheel", **tools))


@pytest.fixture(scope="session")
def pure_wheel(archive, shared):
    return build_once(shared / "pure_wheel", lambda: build_after_others(archive, shared / "pure_wheel", **PURE))


@pytest.fixture(scope="session")
def site(wheel, tmp_path_factory):
    """Install the wheel into a folder."""
    folder = tmp_path_factory.mktemp("site")
    succeed(*PIP, "install", *OFFLINE, "--target", folder, wheel, folder=folder)
    return folder


def test_a_source_distribution_has_the_sources_alone(archive):
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {f"native/{path.name}" for path in (REPOSITORY / "native").glob("*.[ch]")} <= names
    assert {"setup.py", "native/build_native.py", "LICENSE", "README.md", "pet/py.typed"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc", PURE_MARKER))]


def test_the_readme_of_a_package_index_leads_nowhere_that_does_not_exist(archive):
    """An index has no other file of the repository, and no anchors at headings."""
    with tarfile.open(archive) as opened:
        (name,) = [name for name in opened.getnames() if re.fullmatch(r"[^/]+/PKG-INFO", name)]
        description = opened.extractfile(name).read().decode()
    assert "Description-Content-Type: text/markdown" in description
    assert re.findall(r"\]\((?!https://)[^)]*\)", description) == []
    assert "<!--" not in description
    assert "docs/security.md says who learns what." in description


def test_a_source_distribution_has_all_that_its_test_command_reads():
    """Files that git has, and nothing else, are grafted: MANIFEST.in names every folder of them."""
    listed = (REPOSITORY / "MANIFEST.in").read_text()
    folders = {"native", "tests", "benchmarks", "docs", "examples", "tools", ".ci"}
    assert set(re.findall(r"^graft (\S+)$", listed, re.MULTILINE)) == folders
    assert {path.name for path in REPOSITORY.iterdir() if path.is_dir() and (path.name in folders)} == folders


def test_a_wheel_has_its_module_and_says_so(wheel):
    assert wheel.name.endswith(f"-cp311-abi3-{PLATFORM}.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        assert [name for name in names if name.startswith("pet/kernels/_native")] == [MODULE]
        assert opened.getinfo(MODULE).file_size < 2**20, "without debug symbols"
    assert MARKER not in names
    assert "pet/removed_long_ago.py" not in names


def test_a_wheel_of_what_was_never_built_is_refused(unpacked, tmp_path):
    done = run(
        sys.executable, "setup.py", "-q", "bdist_wheel", "--skip-build", "--dist-dir", tmp_path / "wheels", folder=unpacked
    )
    assert done.returncode != 0
    assert "wheel: expected the compiled module or the marker of a build without it, got both or none" in done.stderr
    assert not list((tmp_path / "wheels").glob("*"))


def test_an_installed_wheel_runs_its_kernels(site, tmp_path):
    done = python(SHOW, tmp_path, PYTHONPATH=str(site))
    best = next(name for name in kernels.available_backends() if name != "avx512")
    assert done.stdout.split() == [best, str(site / "pet" / "__init__.py")]
    assert done.stderr == ""


def test_an_installed_wheel_measures_itself_beside_its_ceilings(site, tmp_path):
    """The probe's source is in the wheel, and is found from any folder; what `pet bench` does with it has tests of its own."""
    code = "from pet.commands.bench_ceiling import measure_ceiling; print(measure_ceiling('portable', 1).keystream_ns_per_kib)"
    assert float(succeed(sys.executable, "-c", code, folder=tmp_path, PYTHONPATH=str(site))) > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ELF files are Linux'")
def test_the_module_is_hardened_and_stripped(site):
    assert_hardened(site / MODULE)


def test_a_wheel_without_kernels_says_so(pure_wheel):
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(pure_wheel) as opened:
        names = opened.namelist()
        (record,) = [name for name in names if name.endswith(".dist-info/WHEEL")]
        assert "Root-Is-Purelib: true" in opened.read(record).decode()
    assert not [name for name in names if name.endswith((".so", "removed_long_ago.py"))]
    assert MARKER in names


def test_an_installed_wheel_without_kernels_runs_and_warns(pure_wheel, tmp_path):
    succeed(*PIP, "install", *OFFLINE, "--target", tmp_path / "site", pure_wheel, folder=tmp_path)
    done = python(SHOW, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.stdout.split() == ["numba", str(tmp_path / "site" / "pet" / "__init__.py")]
    assert done.stderr.count("pet is installed without its compiled kernels") == 1


def test_of_two_wheels_the_one_with_kernels_is_taken(wheel, pure_wheel, tmp_path):
    house = tmp_path / "house"
    house.mkdir()
    for path in (wheel, pure_wheel):
        shutil.copy(path, house)
    succeed(*PIP, "install", *OFFLINE, "--find-links", house, "--target", tmp_path / "site", "pet-protocol", folder=tmp_path)
    assert (tmp_path / "site" / MODULE).exists()


def test_a_cached_wheel_without_kernels_warns_and_can_be_replaced(archive, tmp_path):
    """pip takes a wheel that it built from an archive before; nothing in a wheel can prevent that, so it must not be silent."""
    requirement = f"pet-protocol @ {archive.as_uri()}"

    def install(place, *options, **environment):
        environment["PIP_CACHE_DIR"] = str(tmp_path / "cache")
        return run(
            *PIP, "install", *OFFLINE, *options, "--target", tmp_path / place, requirement, folder=tmp_path, **environment
        )

    assert install("first", **PURE).returncode == 0
    assert install("cached", **NO_COMPILER).returncode == 0, "it came from the cache: nothing was compiled"
    warning = python(SHOW, tmp_path, PYTHONPATH=str(tmp_path / "cached")).stderr
    assert "pip install --no-cache-dir --force-reinstall" in warning
    failed = install("anew", "--no-cache-dir", "--force-reinstall", **NO_COMPILER)
    assert failed.returncode != 0, "what the warning advises compiles"
    assert "the kernels of pet do not compile here" in failed.stdout + failed.stderr


NO_HEADER = "echo 'masking.c:1:10: fatal error: no such header' >&2; exit 1", "masking.c:1:10: fatal error: no such header"


@pytest.mark.parametrize(
    ("script", "message", "options"),
    [
        (*NO_HEADER, ()),
        (*NO_HEADER, ("-e",)),  # pip's options change what pip shows, whatever the compiler says
        (*NO_HEADER, ("-q",)),
        ("exit 3", "failed with exit status 3", ()),
        (None, "No such file or directory", ()),
    ],
)
def test_a_failed_compilation_fails_the_installation(unpacked, tmp_path, script, message, options):
    compiler = tmp_path / "compiler"
    if script is not None:
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o700)
    place = () if "-e" in options else ("--target", tmp_path / "site")
    done = run(*PIP, "install", *OFFLINE, *place, *options, unpacked, folder=tmp_path, CC=str(compiler))
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert message in output
    assert "error: the kernels of pet do not compile here" in output
    assert "PET_ALLOW_PURE=1" in output
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize(
    ("failing", "what"), [("*_native*", "the code that cffi wrote"), ("*-shared*", "linking"), ("*dispatch*", "a library")]
)
def test_every_step_of_the_build_can_fail(unpacked, tmp_path, failing, what):
    """A compiler that compiles nothing takes no time; it fails at one step."""
    compiler = tmp_path / "compiler"
    steps = f'case "$*" in {failing}) echo "broken here" >&2; exit 1;; esac'
    output = 'while [ $# -gt 0 ]; do if [ "$1" = -o ]; then : > "$2"; fi; shift; done'
    compiler.write_text(f"#!/bin/sh\n{steps}\n{output}\n")
    compiler.chmod(0o700)
    tools = {"CC": str(compiler), "LDSHARED": f"{compiler} -shared", "AR": str(compiler)}
    # What pip runs; pip itself takes longer than that.
    command = (sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", tmp_path / "wheels")
    done = run(*command, folder=unpacked, **tools)
    assert done.returncode != 0, what
    assert "broken here" in done.stdout + done.stderr
    assert "error: the kernels of pet do not compile here" in done.stdout + done.stderr
    succeed(*command, folder=unpacked, PET_ALLOW_PURE="1", **tools)
    (made,) = (tmp_path / "wheels").iterdir()
    assert made.name.endswith("-py3-none-any.whl")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PET_ALLOW_PURE", "yes", "PET_ALLOW_PURE: expected 1, 0 or nothing, got 'yes'"),
        ("PET_WITHOUT", "avx2,sse", "PET_WITHOUT: expected names out of avx512, avx2, neon, joined with commas, got 'sse'"),
    ],
)
def test_unknown_values_are_refused(unpacked, variable, value, message):
    done = run(sys.executable, "setup.py", "-q", "build_clib", folder=unpacked, **{variable: value})
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_an_editable_install_is_found_from_its_own_root(unpacked, tmp_path, mode):
    """Without a compiler, with one, and without again: module and marker take each other's place."""
    succeed(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", folder=tmp_path)
    interpreter = tmp_path / "venv" / "bin" / "python"
    succeed(
        interpreter, "-c", SHARE_PACKAGES.format(path=[path for path in sys.path if "site-packages" in path]), folder=tmp_path
    )
    settings = ("--config-settings", f"editable_mode={mode}")
    install = (*PIP, "--python", interpreter, "install", *OFFLINE, *settings, "-e", unpacked)
    # In strict mode the root of the clone is no part of the installation: it has links to the files in a folder of build/.
    folders = (unpacked, tmp_path) if mode == "lenient" else (tmp_path,)
    with_kernels = {"PET_WITHOUT": "avx512, avx2,neon", "CC": str(write_quick_compiler(tmp_path / "compiler"))}
    for environment in (PURE, with_kernels, PURE) if mode == "lenient" else (PURE, with_kernels):
        succeed(*install, folder=tmp_path, **environment)
        for folder in folders:
            done = run(interpreter, "-c", SHOW, folder=folder)
            backend, file = done.stdout.split()
            assert backend == ("numba" if environment is PURE else "portable")
            assert ("without its compiled kernels" in done.stderr) is (environment is PURE)
            assert file.startswith(str(unpacked))


#: The packages of the environment that the tests run in, without its editable pet.
SHARE_PACKAGES = """
import pathlib, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "shared.pth").write_text("\\n".join({path!r}))
"""
