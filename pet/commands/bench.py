"""`pet bench`: how fast the kernels are on this machine, beside what the machine can do at most.

What is measured stands in bench_workload.py, how in bench_kernels.py, the ceilings in bench_ceiling.py, the peers in
bench_peers.py; this file is the order in which it happens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pet import kernels
from pet.commands import bench_kernels, bench_options, bench_peers, bench_plot, bench_tables
from pet.commands.bench_ceiling import Ceilings
from pet.commands.bench_comparison import Comparison
from pet.commands.bench_results import Result, cpu_model, report
from pet.commands.bench_workload import Workload
from pet.mask_config import MaskConfig


def command(
    sizes: Annotated[str, typer.Option("--sizes", metavar="N,N", help="Numbers of weights.")] = "1e4,1e5,1e6",
    configs: Annotated[str, typer.Option("--configs", metavar="C,C", help="Mask configs.")] = "prime-f32-b0-m3",
    backends: Annotated[
        str, typer.Option("--backends", metavar="B,B", help="Kernel back-ends; the one in use if not given.")
    ] = "",
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=256, help="Threads of a call; small models and fractions use one.")
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
    peer_size: Annotated[str, typer.Option("--peer-size", metavar="N", help="Number of weights of that comparison.")] = "1e6",
    peer_seeds: Annotated[
        int, typer.Option("--peer-seeds", min=3, max=1000, help="Masks that a sum participant adds in that comparison.")
    ] = 5,
) -> None:
    """Measure the kernels: nanoseconds per weight, and the share of what this machine can do at most.

    Example: pet bench --sizes 1e4,1e6 --configs prime-f32-b0-m3,prime-f32-b0-m6 --backends avx2,portable --plot bench.png
    """
    peer_length = bench_options.parse_peer_size(peer_size)
    config_list, backend_list = bench_options.parse_configs(configs), bench_options.parse_backends(backends)
    size_list = bench_options.parse_sizes(sizes, config_list)
    bench_options.require_plot_format(plot_file)
    bench_options.require_folders(json_file, plot_file)
    console, progress = Console(highlight=False), Console(highlight=False, stderr=True)
    ceilings = Ceilings()
    results = _measure_all(progress, backend_list, config_list, size_list, threads, ceilings)
    bench_tables.print_results(console, results)
    bench_tables.print_ceilings(console, ceilings)
    comparisons = _compare(console, progress, peer_length, peer_seeds) if peers else []
    if json_file is not None:
        json_file.write_text(json.dumps(report(results, ceilings.found, comparisons), indent=1) + "\n")
    if plot_file is not None:
        bench_plot.plot_results(results, cpu_model(), plot_file)


def _measure_all(
    progress: Console,
    backends: Sequence[str],
    configs: Sequence[MaskConfig],
    sizes: Sequence[int],
    threads: int,
    ceilings: Ceilings,
) -> list[Result]:
    """Measure every kernel with every back-end, config and size; the back-end in use is as before afterwards."""
    before = kernels.active_backend()
    results: list[Result] = []
    runs = [(backend, config, size) for backend in backends for config in configs for size in sizes]
    try:
        for number, (backend, config, size) in enumerate(runs, 1):
            kernels.select_backend(backend)
            label = f"{number} of {len(runs)}: {backend}, {config}, {size:,} weights"
            with progress.status(label) as status:
                for result in _measure(config, size, backend, threads, ceilings):
                    results.append(result)
                    status.update(f"{label}, {result.kernel} done")
    finally:
        kernels.select_backend(before)
    return results


def _measure(config: MaskConfig, size: int, backend: str, threads: int, ceilings: Ceilings) -> Iterator[Result]:
    """Measure every kernel once; the ceiling of a back-end is measured the first time that it is asked for."""
    for case in Workload(config, size, threads).cases():
        ceiling = ceilings.of(backend, case.threads)
        yield Result.of(case, config, backend, size, bench_kernels.measure(case), ceiling)


def _compare(console: Console, progress: Console, length: int, seed_count: int) -> list[Comparison]:
    """Compare with every peer that is installed, and report which are not."""
    for name in bench_peers.missing_peers():
        console.print(f"Not compared with {name}, which is not installed.")
    comparisons = []
    with progress.status("peers") as status:
        for found in bench_peers.compare(length, seed_count):
            comparisons.append(found)
            status.update(f"peers: {found.peer}, {found.what} done")
    if comparisons:
        bench_tables.print_comparisons(console, comparisons)
    return comparisons
