"""`pet bench`: how fast the kernels are on this machine, beside what the machine can do at most.

What is measured stands in bench_workload.py, how in bench_kernels.py, the ceilings in bench_ceiling.py, the peers in
bench_peers.py; this file is the order in which it happens.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from pet import kernels
from pet.commands import bench_kernels, bench_options, bench_peers, bench_plot, bench_profiles, bench_tables
from pet.commands.bench_ceiling import Ceilings
from pet.commands.bench_comparison import Comparison
from pet.commands.bench_fields import make_cases
from pet.commands.bench_profiles import ProfileComparison
from pet.commands.bench_results import Result, cpu_model, report
from pet.commands.terminal_progress import shown_progress
from pet.mask_config import MaskConfig

#: xaynet's usual config, and the fields of pet-1 with the weights that they suit.
DEFAULT_CONFIGS: Final = "prime-f32-b0-m3,pet-1/z32,f32,bound=1,models=1000,pet-1/z64,f64,bound=1,models=1000"


def command(
    sizes: Annotated[str, typer.Option("--sizes", metavar="N,N", help="Numbers of weights.")] = "1e4,1e5,1e6",
    configs: Annotated[
        str, typer.Option("--configs", metavar="C,C", help="Mask configs; one of xaynet's and two of pet-1 if not given.")
    ] = DEFAULT_CONFIGS,
    backends: Annotated[
        str, typer.Option("--backends", metavar="B,B", help="Kernel back-ends; the one in use if not given.")
    ] = "",
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            parser=bench_options.parse_threads,
            metavar="N",
            help="Threads of a call; small models and fractions use one.",
        ),
    ] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every figure as JSON.")] = None,
    plot_file: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Draw times and shares of the ceilings over the size (.png, .svg, .pdf)."),
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers", help="Compare with flwr, tenseal and xaynet-sdk-python where they are installed; takes a minute."
        ),
    ] = False,
    peer_size: Annotated[
        str, typer.Option("--peer-size", metavar="N", help="Number of weights of that comparison, and of --profiles.")
    ] = "1e6",
    peer_seeds: Annotated[
        int,
        typer.Option(
            "--peer-seeds",
            parser=bench_options.parse_peer_seeds,
            metavar="N",
            help="Masks that a sum participant adds in that comparison.",
        ),
    ] = 5,
    profiles: Annotated[
        bool, typer.Option("--profiles", help="Compare a round of xaynet's profile with one of pet/1, role by role.")
    ] = False,
) -> None:
    """Measure the kernels: nanoseconds per weight, and the share of what this machine can do at most.

    Example: pet bench --sizes 1e4,1e6 --configs prime-f32-b0-m3,prime-f32-b0-m6 --backends avx2,portable --plot bench.png
    """
    peer_length = bench_options.parse_peer_size(peer_size)
    config_list, backend_list = bench_options.parse_configs(configs), bench_options.parse_backends(backends)
    size_list = bench_options.parse_sizes(sizes, config_list)
    bench_options.require_plot_format(plot_file)
    bench_options.require_folders(json_file, plot_file)
    console, ceilings = Console(highlight=False), Ceilings()
    results = _measure_all(backend_list, config_list, size_list, threads, ceilings)
    bench_tables.print_results(console, results)
    bench_tables.print_ceilings(console, ceilings)
    comparisons = _compare(console, peer_length, peer_seeds) if peers else []
    rounds = _compare_profiles(console, peer_length) if profiles else []
    if json_file is not None:
        json_file.write_text(json.dumps(report(results, ceilings.found, comparisons, rounds), indent=1) + "\n")
    if plot_file is not None:
        bench_plot.plot_results(results, cpu_model(), plot_file)


def _measure_all(
    backends: Sequence[str],
    configs: Sequence[MaskConfig],
    sizes: Sequence[int],
    threads: int,
    ceilings: Ceilings,
) -> list[Result]:
    """Measure every kernel with every back-end, config and size; the back-end in use is as before afterwards."""
    before = kernels.active_backend()
    results: list[Result] = []
    runs = [(config, size) for config in configs for size in sizes]
    thread_counts = sorted({1, threads})
    try:
        with shown_progress("bench", len(backends) * (len(runs) + 2), "parts") as progress:
            for number, backend in enumerate(backends):
                kernels.select_backend(backend)
                done = number * (len(runs) + 2)
                progress.describe(f"{backend}: ceilings")
                ceilings.measure(backend, thread_counts)
                for done, (config, size) in enumerate(runs, done + 1):  # noqa: B020  counts on
                    progress.update(done)
                    progress.describe(f"{backend}, {config}, {size:,} weights")
                    results.extend(_measure(config, size, backend, threads))
                progress.update(done + 1)
                progress.describe(f"{backend}: ceilings once more")
                ceilings.measure(backend, thread_counts)
    finally:
        kernels.select_backend(before)
    return [result.beside(ceilings.found) for result in results]


def _measure(config: MaskConfig, size: int, backend: str, threads: int) -> Iterator[Result]:
    """Measure every kernel once."""
    for case in make_cases(config, size, threads):
        yield Result.of(case, config, backend, size, bench_kernels.measure(case))


def _compare(console: Console, length: int, seed_count: int) -> list[Comparison]:
    """Compare with every peer that is installed, and report which are not."""
    for name in bench_peers.missing_peers():
        console.print(f"Not compared with {name}, which is not installed.")
    comparisons = []
    with shown_progress("peers") as progress:
        for found in bench_peers.compare(length, seed_count):
            comparisons.append(found)
            progress.describe(f"peers: {found.peer}, {found.what} done")
    if comparisons:
        bench_tables.print_comparisons(console, comparisons)
    return comparisons


def _compare_profiles(console: Console, length: int) -> list[ProfileComparison]:
    """Compare a round of each profile of the protocol."""
    with shown_progress("profiles", 2 * bench_profiles.TURNS, "rounds") as progress:
        done = itertools.count(1)
        comparisons = bench_profiles.compare(length, lambda: progress.update(next(done)))
    bench_tables.print_profiles(console, comparisons, length)
    return comparisons
