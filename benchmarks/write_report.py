"""Write docs/benchmarks.md: run the benchmarks on this machine, draw the charts, and put all figures where the page has room.

    python benchmarks/write_report.py                      everything: less than ten minutes on an idle machine
    python benchmarks/write_report.py --only peers,memory  some of it

A part of the page stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; what is outside is by hand and stays. Run it in
an environment with the extras bench and peers, on a machine that does nothing else: the page says how busy it was.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report_charts
import report_text

from pet import kernels

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGE = DOCS / "benchmarks.md"
DEFAULT_CONFIG = "prime-f32-b0-m3"
FIELD_CONFIGS = "pet-1/z32,f32,bound=1,models=1000,pet-1/z64,f64,bound=1,models=1000"
#: The compiled back-ends of this machine; numba and the reference are no way to run pet that anybody would choose.
COMPILED = ",".join(name for name in kernels.available_backends() if name not in ("numba", "reference"))
BENCH_OPTIONS = {
    "kernels": f"--sizes 1e4,1e5,1e6,1e7 --configs {DEFAULT_CONFIG} --backends {COMPILED}",
    "widths": "--sizes 1e6 --configs prime-f32-b0-m6,power2-f32-b0-m3,prime-f32-b2-m3,prime-f64-b6-m6,prime-i64-b0-m3",
    "wide": "--sizes 1e4 --configs prime-f32-bmax-m3,prime-f64-bmax-m3",
    "fields": f"--sizes 1e4,1e6,1e7 --configs {FIELD_CONFIGS} --backends {COMPILED}",
    "peers": f"--sizes 1e4 --configs {DEFAULT_CONFIG} --peers --peer-size 1e6 --peer-seeds 10",
    "peers-small": f"--sizes 1e4 --configs {DEFAULT_CONFIG} --peers --peer-size 1e4 --peer-seeds 10",
}
SCRIPTS = {
    "threads": "thread_gains.py --seeds 8 --length 1000000 --threads 1 2 --passes 21",
    "memory": "peak_memory.py --updates 100 --length 1000000",
    "upload": "bench_upload.py --uploads 6",
}
PARTS = [*BENCH_OPTIONS, *SCRIPTS]
#: How busy the machine was in the minute before this program made it so.
LOAD_BEFORE = os.getloadavg()[0]


def run(arguments: list[str]) -> str:
    """Run a program of this environment in the repository's root and return what it prints."""
    print("+", *arguments, flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def bench_report(options: str, *more: str) -> dict[str, Any]:
    """Run `pet bench` and return its JSON."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bench.json"
        run(["-m", "pet", "bench", *options.split(), "--json", str(file), *more])
        report: dict[str, Any] = json.loads(file.read_text())
        report["command"] = f"pet bench {options}"
        return report


def make_kernels() -> dict[str, str]:
    sizes_chart = DOCS / "benchmarks-sizes.png"
    report = bench_report(BENCH_OPTIONS["kernels"], "--plot", str(sizes_chart))
    report_charts.shrink(sizes_chart)
    report_charts.draw_kernels(report, 1_000_000, DOCS / "benchmarks-kernels.png")
    return {
        "machine": report_text.machine(report, LOAD_BEFORE),
        "glance": report_text.glance(report, 1_000_000),
        "kernels": report_text.kernels(report),
    }


def make_fields() -> dict[str, str]:
    report = bench_report(BENCH_OPTIONS["fields"])
    return {"fields-glance": report_text.glance(report, 1_000_000), "fields": report_text.kernels(report)}


def make_peers() -> dict[str, str]:
    report = bench_report(BENCH_OPTIONS["peers"])
    report_text.require_peers(report)
    report_charts.draw_peers(report, DOCS / "benchmarks-peers.png")
    return {"peers": report_text.peers(report), "homomorphic": report_text.homomorphic(report)}


def make_table(name: str) -> dict[str, str]:
    report = bench_report(BENCH_OPTIONS[name])
    if "--peers" in BENCH_OPTIONS[name]:
        report_text.require_peers(report)
        return {name: report_text.peers(report)}
    return {name: report_text.kernels(report)}


def make_script(name: str) -> dict[str, str]:
    script, *arguments = SCRIPTS[name].split()
    printed = run([f"benchmarks/{script}", *arguments]).strip()
    return {name: report_text.script(f"python benchmarks/{SCRIPTS[name]}", name, printed)}


MAKERS: dict[str, Callable[[], dict[str, str]]] = {"kernels": make_kernels, "fields": make_fields, "peers": make_peers}


def make(name: str) -> dict[str, str]:
    """Return the texts of a part of the page, by the name of their markers."""
    if name in MAKERS:
        return MAKERS[name]()
    return make_script(name) if name in SCRIPTS else make_table(name)


def replace_part(page: str, name: str, text: str) -> str:
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE}: expected the markers of {name}, found none")
    return pattern.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    names = parser.parse_args().only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"--only: expected some of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    start = time.monotonic()
    for number, name in enumerate(names, 1):
        print(f"{number} of {len(names)}: {name}, after {time.monotonic() - start:.0f} s", flush=True)
        for marker, text in make(name).items():
            PAGE.write_text(replace_part(PAGE.read_text(), marker, text))
    print(f"{PAGE}: written in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the parts that were finished are in the page")
