"""Write docs/benchmarks.md: run the benchmarks on this machine and put their figures where the page has room for them.

    python benchmarks/write_report.py                      everything, about ten minutes
    python benchmarks/write_report.py --only peers,memory  some of it

A part of the page stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; what is outside is by hand and stays.
Run it in an environment with the extras bench and peers.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
KERNEL_COMMANDS = {
    "kernels": "--sizes 1e6,1e7 --configs prime-f32-b0-m3 --backends avx512,avx2,portable",
    "widths": "--sizes 1e6 --backends avx512,avx2 --configs "
    "prime-f32-b0-m6,power2-f32-b0-m3,prime-f32-b2-m3,prime-f64-b6-m6,prime-i64-b0-m3",
    "wide": "--sizes 1e4 --configs prime-f32-bmax-m3,prime-f64-bmax-m3 --backends avx512,avx2,portable",
    "peers": "--sizes 1e6 --configs prime-f32-b0-m3 --peers --peer-size 1e6 --peer-seeds 10",
    "peers-large": "--sizes 1e6 --configs prime-f32-b0-m3 --peers --peer-size 5e6 --peer-seeds 10",
}
SCRIPTS = {
    "threads": "thread_gains.py --seeds 8 --length 1000000 --threads 1 2 --passes 21",
    "memory": "peak_memory.py --updates 100 --length 1000000",
    "upload": "bench_upload.py --uploads 6",
}


def run(arguments: list[str]) -> str:
    """Run a program of this environment in the repository's root and return what it prints."""
    print("+", *arguments, flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def bench_report(options: str) -> dict[str, Any]:
    """Run `pet bench` and return its JSON."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "bench.json"
        run(["-m", "pet", "bench", *options.split(), "--json", str(file)])
        return json.loads(file.read_text())


def table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine_text(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"{report['cpu']}, {report['cores']} cores, {report['platform']}; {versions}."


def kernels_text(options: str) -> str:
    report = bench_report(options)
    ceilings = [
        f"{found['backend']}: keystream {found['keystream_ns_per_kib']:.0f} ns/KiB, memory {found['memory_gb_per_s']:.1f} GB/s"
        for found in report["ceilings"]
    ]
    rows = [
        [
            result["config"],
            result["backend"],
            f"{result['size']:,}",
            result["kernel"],
            f"{result['best_ns']:.3g}",
            f"{result['median_ns']:.3g}",
            f"{result['spread']:.0%}",
            "" if result["share"] is None else f"{result['share']:.2f} {result['limit']}",
        ]
        for result in report["results"]
    ]
    headings = ["config", "back-end", "weights", "kernel", "best ns", "median ns", "spread", "share of ceiling"]
    command = f"`pet bench {options}`"
    return "\n\n".join([command, machine_text(report), "Ceilings: " + "; ".join(ceilings) + ".", table(headings, rows)])


def peers_text(options: str) -> str:
    report = bench_report(options)
    if not report["peers"]:
        raise SystemExit("expected flwr and xaynet-sdk-python in this environment (extra peers), found neither")
    rows = [
        [
            found["peer"],
            found["what"],
            f"{found['length']:,}",
            f"{found['peer_ns']:.3g}",
            f"{found['pet_ns']:.3g}",
            f"**{found['ratio']:.3g}**",
        ]
        for found in report["peers"]
    ]
    headings = ["peer", "what", "weights", "peer, ns per weight", "pet, ns per weight", "times faster"]
    return "\n\n".join([f"`pet bench {options}`", machine_text(report), table(headings, rows)])


def script_text(options: str) -> str:
    script, *arguments = options.split()
    printed = run([f"benchmarks/{script}", *arguments]).strip()
    return f"`python benchmarks/{options}`\n\n```\n{printed}\n```"


def replace_part(page: str, name: str, text: str) -> str:
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE}: expected the markers of {name}, found none")
    return pattern.sub(lambda found: found[1] + "\n" + text + "\n\n" + found[2], page)


def main() -> None:
    parts: dict[str, tuple[Callable[[str], str], str]] = {
        **{name: (peers_text if "--peers" in options else kernels_text, options) for name, options in KERNEL_COMMANDS.items()},
        **{name: (script_text, options) for name, options in SCRIPTS.items()},
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", default=",".join(parts), help="some of " + ", ".join(parts))
    names = parser.parse_args().only.split(",")
    if unknown := set(names) - set(parts):
        parser.error(f"--only: expected some of {', '.join(parts)}, got {', '.join(sorted(unknown))}")
    for name in names:
        make, options = parts[name]
        text = make(options)
        PAGE.write_text(replace_part(PAGE.read_text(), name, text))


if __name__ == "__main__":
    main()
