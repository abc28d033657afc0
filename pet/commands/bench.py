"""`pet bench`: how fast the kernels are on this machine, beside what the machine can do at most.

What is measured stands in bench_kernels.py, the ceilings in bench_ceiling.py, the peers in bench_peers.py; this file parses,
prints and writes.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

import pet
from pet import kernels
from pet.commands import bench_ceiling, bench_kernels, bench_peers, bench_plot
from pet.commands.bench_ceiling import Ceiling
from pet.commands.bench_peers import Comparison
from pet.errors import ConfigError, PetError
from pet.mask_config import MaskConfig
from pet.threads import available_cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table; times in nanoseconds per weight (and vector, where a kernel takes several)."""

    kernel: str
    config: str
    backend: str
    size: int
    threads: int
    best_ns: float
    median_ns: float
    spread: float
    passes: int
    limit: str
    limit_bytes: float
    ceiling_ns: float | None

    @property
    def share(self) -> float | None:
        """The share of the ceiling that is reached: 1 is as fast as the machine."""
        return None if self.ceiling_ns is None else self.ceiling_ns / self.best_ns

    @property
    def gigabytes_per_second(self) -> float:
        """The rate of the bytes that limit it: keystream, or memory."""
        return self.limit_bytes / self.best_ns


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
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw ns per weight over size (.png, .svg).")
    ] = None,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Compare with flwr and xaynet-sdk-python where they are installed; takes a minute."),
    ] = False,
    peer_size: Annotated[str, typer.Option("--peer-size", metavar="N", help="Number of weights of that comparison.")] = "1e6",
    peer_seeds: Annotated[
        int, typer.Option("--peer-seeds", min=3, max=1000, help="Masks that a sum participant adds in that comparison.")
    ] = 5,
) -> None:
    """Measure the kernels: nanoseconds per weight, and the share of what this machine can do at most.

    Example: pet bench --sizes 1e4,1e6 --configs prime-f32-b0-m3,prime-f32-b0-m6 --backends avx2,portable --plot bench.png
    """
    (peer_length,) = _parse_sizes(peer_size, "--peer-size", most=1)
    size_list, config_list, backend_list = _parse_sizes(sizes), _parse_configs(configs), _parse_backends(backends)
    _require_folders(json_file, plot_file)
    console = Console(highlight=False)
    before = kernels.active_backend()
    results: list[Result] = []
    ceilings: dict[tuple[str, int], Ceiling | None] = {}
    try:
        for backend in backend_list:
            kernels.select_backend(backend)
            for config in config_list:
                for size in size_list:
                    with console.status(f"{backend}, {config}, {size} weights"):
                        results += _measure(config, size, backend, threads, ceilings)
    finally:
        kernels.select_backend(before)
    _print_tables(console, results)
    _print_ceilings(console, ceilings)
    comparisons = _compare(console, peer_length, peer_seeds) if peers else []
    if json_file is not None:
        json_file.write_text(json.dumps(_report(results, ceilings, comparisons), indent=1) + "\n")
    if plot_file is not None:
        bench_plot.plot_results(results, f"pet kernels on {_cpu_model()}", plot_file)


def _require_folders(*files: Path | None) -> None:
    """Find out before measuring, which takes minutes, that a file could not be written after it.

    Raises:
        PetError: the folder of a file does not exist.
    """
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise PetError(f"{file}: expected a folder that exists, got {file.parent}")


def _parse_sizes(text: str, option: str = "--sizes", most: int = 100) -> list[int]:
    try:
        sizes = [int(float(part)) for part in text.split(",")]
    except (ValueError, OverflowError):
        sizes = []
    if not 1 <= len(sizes) <= most or min(sizes) < 1:
        expected = "a number of weights as 1e6" if most == 1 else "numbers of weights as 1e4,1e5"
        raise typer.BadParameter(f"expected {expected}, got {text!r}", param_hint=option)
    return sizes


def _parse_configs(text: str) -> list[MaskConfig]:
    try:
        return [MaskConfig.parse(part) for part in text.split(",")]
    except ConfigError as error:
        raise typer.BadParameter(str(error), param_hint="--configs") from None


def _parse_backends(text: str) -> list[str]:
    names = text.split(",") if text else [kernels.active_backend()]
    available = kernels.available_backends()
    for name in names:
        if name not in available:
            expected = f"expected some of {', '.join(available)}, which this machine can run"
            raise typer.BadParameter(f"{expected}, got {name!r}", param_hint="--backends")
    return names


def _measure(
    config: MaskConfig, size: int, backend: str, threads: int, ceilings: dict[tuple[str, int], Ceiling | None]
) -> list[Result]:
    """Measure every kernel once; the ceiling of a back-end is measured the first time that it is asked for."""
    results = []
    for case in bench_kernels.Workload(config, size, threads).cases():
        key = (backend, case.threads)
        if key not in ceilings:
            ceilings[key] = bench_ceiling.measure_ceiling(backend, case.threads)
        ceiling = ceilings[key]
        timing = bench_kernels.measure(case)
        results.append(
            Result(
                kernel=case.name,
                config=str(config),
                backend=backend,
                size=size,
                threads=case.threads,
                best_ns=timing.best,
                median_ns=timing.median,
                spread=timing.spread,
                passes=timing.passes,
                limit=case.limit,
                limit_bytes=case.limit_bytes,
                ceiling_ns=None if ceiling is None else ceiling.nanoseconds(case),
            )
        )
    return results


def _print_tables(console: Console, results: Sequence[Result]) -> None:
    """Print one table for each mask config and back-end."""
    for config, backend in dict.fromkeys((result.config, result.backend) for result in results):
        table = Table(title=f"{config}, {backend}", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        table.add_column("kernel", no_wrap=True)
        for heading in ("weights", "threads", "best ns", "median", "spread", "share of\nceiling"):
            table.add_column(heading, justify="right", no_wrap=True)
        size = 0
        for result in [result for result in results if (result.config, result.backend) == (config, backend)]:
            if size not in (0, result.size):
                table.add_section()
            size = result.size
            table.add_row(*_row(result))
        console.print(table)


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.kernel,
        f"{result.size:,}",
        str(result.threads),
        _nanoseconds(result.best_ns),
        _nanoseconds(result.median_ns),
        f"{result.spread:.0%}",
        "" if result.share is None else f"{result.share:.0%} {result.limit}",
    )


def _nanoseconds(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _print_ceilings(console: Console, ceilings: Mapping[tuple[str, int], Ceiling | None]) -> None:
    for (backend, threads), ceiling in ceilings.items():
        if ceiling is None:
            console.print(f"No ceiling for {backend}: that takes a C compiler and benchmarks/ceiling.c of the repository.")
            continue
        console.print(
            f"ceiling of {backend}, threads {threads}: keystream {ceiling.keystream_ns_per_kib:.1f} ns/KiB, memory"
            f" {ceiling.memory_gb_per_s:.1f} GB/s (cc {ceiling.flags})"
        )
    console.print(
        "Times are per weight (and per vector, where a kernel takes eight). Above 100 %: the model fits a cache, or a kernel"
        " saves work that the probe of the keystream does."
    )


def _compare(console: Console, length: int, seed_count: int) -> list[Comparison]:
    """Compare with every peer that is installed, and say which are not."""
    for name in bench_peers.missing_peers():
        console.print(f"Not compared with {name}, which is not installed.")
    with console.status("peers"):
        comparisons = list(bench_peers.compare(length, seed_count))
    if comparisons:
        title = f"beside peers, {bench_peers.CONFIG}, {length:,} weights, one thread, ns per weight (and mask)"
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        table.add_column("peer", no_wrap=True)
        table.add_column("what")
        for heading in ("peer", "pet", "times faster"):
            table.add_column(heading, justify="right", no_wrap=True)
        for found in comparisons:
            times = _nanoseconds(found.peer_ns), _nanoseconds(found.pet_ns)
            table.add_row(found.peer, found.what, *times, f"{found.ratio:.3g}")
        console.print(table)
    return comparisons


def _report(
    results: Sequence[Result], ceilings: Mapping[tuple[str, int], Ceiling | None], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """Return everything that makes the figures worth quoting: the machine, the versions and the command beside them."""
    return {
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "platform": platform.platform(),
        "versions": {
            "pet": pet.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "cffi": importlib.metadata.version("cffi"),
        },
        "command": " ".join(["pet", *sys.argv[1:]]),
        "unit": "nanoseconds per weight (and vector)",
        "ceilings": [{"backend": backend, **asdict(found)} for (backend, _), found in ceilings.items() if found is not None],
        "results": [{**asdict(result), "share": result.share} for result in results],
        "peers": [{**asdict(found), "ratio": found.ratio} for found in comparisons],
    }


def _cpu_model() -> str:
    """Return what the processor calls itself, as far as the platform tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
