"""Fuzz every target for a number of executions, one after the other, and print one line of figures for each.

    python tests/fuzzing/campaign.py --decoder-runs 10000000 --path-runs 10000000

New inputs stay in a folder of the campaign, so that the next one goes on from there. Ends with status 1 if an input failed,
took longer than ten seconds or made the process grow beyond 1 GiB.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import targets

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 10
MEMORY_MEGABYTES = 1024


def fuzz(target: str, runs: int, folder: Path) -> bool:
    """Fuzz one target; returns whether nothing was found."""
    found, kept = folder / target, HERE / "corpus" / target
    found.mkdir(parents=True, exist_ok=True)
    arguments = [str(found), *([str(kept)] if kept.is_dir() else [])]
    limits = [f"-runs={runs}", f"-timeout={TIMEOUT_SECONDS}", f"-rss_limit_mb={MEMORY_MEGABYTES}"]
    start = time.monotonic()
    finished = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), target, *arguments, *limits, f"-artifact_prefix={folder}/{target}-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seconds = time.monotonic() - start
    done = re.search(r"#(\d+)\s+DONE\s+cov: (\d+).*rss: (\d+)Mb", finished.stdout)
    if done is None or finished.returncode != 0:
        print(f"{target}: FAILED\n{finished.stdout[-3000:]}", flush=True)
        return False
    rate = int(done[1]) / seconds
    figures = f"{int(done[1]):,} executions in {seconds:.0f} s ({rate:,.0f}/s), coverage {done[2]} edges, peak {done[3]} MB"
    print(f"{target}: {figures}", flush=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder-runs", type=int, default=10_000, help="for each decoder")
    parser.add_argument("--path-runs", type=int, default=10_000, help="for the whole way of a message")
    parser.add_argument("--folder", type=Path, default=Path("fuzzing-found"), help="where findings are kept")
    parser.add_argument("--targets", default=",".join([*targets.DECODERS, "message_path"]))
    arguments = parser.parse_args()
    runs = {name: arguments.path_runs if name == "message_path" else arguments.decoder_runs for name in targets.TARGETS}
    results = [fuzz(name, runs[name], arguments.folder) for name in arguments.targets.split(",")]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
