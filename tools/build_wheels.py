"""Build the source distribution, and from it, unpacked anew for each, the wheels: the work of tools/build_wheels.

The same commit gives the same bytes: time stamps are those of the commit (SOURCE_DATE_EPOCH), and no path of this machine gets
into a file. Linux is compiled with gcc, which the tests and benchmarks run with, and needs nothing newer than glibc 2.17;
macOS and Windows are cross-compiled with zig, inspected, and run nowhere here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wheel_archives import Mismatch, check_wheel, digest, normalise_archive, unpack
from wheel_sbom import write_sbom
from wheel_targets import TARGETS, Target

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run the command; the exit status is 0 once every file is built and passed its checks."""
    parser = argparse.ArgumentParser(
        description="Build the source distribution and the wheels into a folder, with their SBOMs."
    )
    parser.add_argument(
        "--targets", default=",".join(TARGETS), help=f"names, joined with commas (default: {','.join(TARGETS)})"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder, emptied first (default: dist)")
    parser.add_argument("--twice", action="store_true", help="build everything twice, and compare the bytes")
    parser.add_argument("--no-smoke-test", action="store_true", help="do not install and run the wheel for this machine")
    options = parser.parse_args()
    unknown = [name for name in options.targets.split(",") if name not in TARGETS]
    if unknown:
        parser.error(f"--targets: expected names out of {', '.join(TARGETS)}, got {', '.join(unknown)}")
    targets = [TARGETS[name] for name in options.targets.split(",")]
    os.umask(0o022)  # modes are part of an archive
    try:
        built = build_all(targets, options.output)
        if options.twice:
            with tempfile.TemporaryDirectory() as folder:
                compare(built, build_all(targets, Path(folder) / "again"))
        if not options.no_smoke_test:
            smoke_test(built)
    except (Mismatch, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in built:
        print(f"{digest(path)}  {path.name}")
    return 0


def build_all(targets: list[Target], output: Path) -> list[Path]:
    """Build into an emptied folder; return the source distribution and the wheels."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        epoch = copy_commit(folder / "commit")
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "PET_ALLOW_PURE": "0", "PYTHONHASHSEED": "0"}
        run(
            "-m", "build", "--no-isolation", "--sdist", "--outdir", folder / "sdist", folder / "commit", environment=environment
        )
        (made,) = (folder / "sdist").iterdir()
        archive = normalise_archive(made, output / made.name, epoch)
        built = [archive]
        for target in targets:
            print(f"building for {target.name}", flush=True)
            tree = unpack(archive, folder / target.name)
            wheel = build_wheel(target, tree, folder / f"{target.name}-wheel", output, environment)
            built.append(wheel)
        for path in built:
            write_sbom(path, epoch)
    return built


def copy_commit(folder: Path) -> int:
    """Copy what is committed, or all files of an unpacked source distribution; return the time stamp for everything."""
    if not (ROOT / ".git").exists():
        shutil.copytree(
            ROOT, folder, ignore=shutil.ignore_patterns(".venv*", "dist", "build", "__pycache__", "*.so", "*.egg-info")
        )
        return int((ROOT / "PKG-INFO").stat().st_mtime)
    git = shutil.which("git") or "git"
    folder.mkdir()
    archive = subprocess.run([git, "-C", ROOT, "archive", "HEAD"], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)  # noqa: S607 - wherever it is
    return int(subprocess.run([git, "-C", ROOT, "log", "-1", "--format=%ct"], check=True, capture_output=True).stdout)


def build_wheel(target: Target, tree: Path, folder: Path, output: Path, environment: dict[str, str]) -> Path:
    """Build the wheel of a target, give it its final tag, and check what is in it."""
    settings = {**environment, **target.environment(folder.with_suffix(".tools"))}
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", folder, tree, environment=settings)
    (made,) = folder.iterdir()
    if not target.has_auditwheel:
        wheel = Path(shutil.copy(made, output))
    else:
        # "auto" takes the oldest policy that the wheel meets, on every machine; check_wheel knows which one that must be.
        repair = ("-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir", folder / "repaired", made)
        run(*repair, environment=environment)
        (repaired,) = (folder / "repaired").iterdir()
        wheel = Path(shutil.copy(repaired, output))
    check_wheel(wheel, target)
    return wheel


def compare(built: list[Path], again: list[Path]) -> None:
    """Compare two builds byte for byte."""
    for one, other in zip(built, again, strict=True):
        if one.name != other.name or one.read_bytes() != other.read_bytes():
            raise Mismatch(f"{one.name}: expected the same bytes from a second build, got {digest(one)} and {digest(other)}")
    print("the second build gave the same bytes")


def smoke_test(built: list[Path]) -> None:
    """Install the wheel for this machine into an environment of its own, and run a round with it."""
    wheels = [wheel for wheel in built if f"_{os.uname().machine}." in wheel.name and "linux" in wheel.name]
    for wheel in wheels:
        with tempfile.TemporaryDirectory() as name:
            interpreter = Path(name) / "venv" / "bin" / "python"
            run("-m", "venv", interpreter.parents[1])
            subprocess.run([interpreter, "-m", "pip", "install", "-q", wheel], check=True, cwd=name)
            subprocess.run([interpreter, ROOT / "tools" / "wheel_check.py"], check=True, cwd=name)


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run Python, quietly unless it fails."""
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        done.check_returncode()


if __name__ == "__main__":
    sys.exit(main())
