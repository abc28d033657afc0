"""How `pet bench` prints what it found."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from pet.commands.bench_ceiling import Ceilings
from pet.commands.bench_comparison import CONFIG, Comparison
from pet.commands.bench_profiles import PET1_CONFIG, PLAN, TURNS, UPDATE_COUNT, ProfileComparison
from pet.commands.bench_results import Result


def print_results(console: Console, results: Sequence[Result]) -> None:
    """Print one table for each mask config and back-end."""
    for config, backend in dict.fromkeys((result.config, result.backend) for result in results):
        table = _table(f"{config}, {backend}", "kernel")
        for heading in ("weights", "threads", "best ns", "median", "spread", "share of"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("ceiling", no_wrap=True)
        size = 0
        for result in [result for result in results if (result.config, result.backend) == (config, backend)]:
            if size not in (0, result.size):
                table.add_section()
            size = result.size
            table.add_row(*_row(result))
        console.print(table)


def _table(title: str, first: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    table.add_column(first, no_wrap=True)
    return table


def _row(result: Result) -> tuple[str, ...]:
    return (
        result.kernel,
        f"{result.size:,}",
        str(result.threads),
        nanoseconds(result.best_ns),
        nanoseconds(result.median_ns),
        f"{result.spread:.0%}",
        "" if result.share is None else f"{result.share:.0%}",
        "" if result.share is None else result.limit,
    )


def nanoseconds(value: float) -> str:
    """Write a time with three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def print_ceilings(console: Console, ceilings: Ceilings) -> None:
    """Print every ceiling, what the columns mean, and why a ceiling is missing."""
    for (backend, threads), found in ceilings.found.items():
        console.print(
            f"ceiling of {backend}, threads {threads}: keystream {found.keystream_ns_per_kib:.1f} ns/KiB, memory"
            f" {found.memory_gb_per_s:.1f} GB/s, reads {found.reads_gb_per_s:.1f} GB/s (cc {found.flags})"
        )
    for reason in dict.fromkeys(ceilings.reasons.values()):
        console.print(f"No ceilings: {reason}. The figures stand without them.", soft_wrap=True)
    console.print(
        "Times are per weight (and per vector, where a kernel takes eight); each pass works on other data. Above 100 %: a"
        " kernel saves work that the probe of the keystream does, or the probe lost time to other work on this machine."
    )


def print_comparisons(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print the times of pet and its peers, then bytes and errors where they are compared."""
    length = comparisons[0].length
    table = _table(f"beside peers, {CONFIG}, {length:,} weights, one thread, ns per weight (and mask)", "peer")
    table.add_column("what")
    for heading in ("peer", "pet", "times faster"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in comparisons:
        table.add_row(found.peer, found.what, nanoseconds(found.peer_ns), nanoseconds(found.pet_ns), f"{found.ratio:.3g}")
    console.print(table)
    for found in comparisons:
        if found.peer_bytes is not None and found.pet_bytes is not None:
            console.print(f"Bytes a weight on the wire: {found.peer} {found.peer_bytes:.3g}, pet {found.pet_bytes:.3g}.")
        if found.peer_error is not None and found.pet_error is not None:
            errors = f"{found.peer} {found.peer_error:.1e}, pet {found.pet_error:.1e}"
            console.print(f"Largest error of a weight of the mean: {errors}.")


def print_profiles(console: Console, comparisons: Sequence[ProfileComparison], length: int) -> None:
    """Print what a round costs each role under xaynet's profile and under pet/1."""
    title = (
        f"profiles: {UPDATE_COUNT} updates, {length:,} weights, one thread, ns and bytes a weight, medians of {TURNS} rounds"
    )
    table = _table(title, "role")
    table.add_column("what", no_wrap=True)
    for heading in ("xaynet", "pet/1", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for found in comparisons:
        row = nanoseconds(found.xaynet), nanoseconds(found.pet1), f"{found.pet1 / found.xaynet:.3g}"
        table.add_row(found.role, found.what, *row)
    console.print(table)
    console.print(
        f"xaynet: {CONFIG}, one sum participant, who unmasks alone; pet/1: {PET1_CONFIG}, {PLAN.threshold} of"
        f" {PLAN.member_count} members unmask together, each with a share of every mask."
    )
