"""`pet config advise`: the cheapest mask configs for a bound, a number of models and a precision.

The cost model is pet/advice.py; this file parses, measures the rate if asked, and prints.
"""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pet import kernels
from pet.advice import NOMINAL_NANOSECONDS_PER_KIB, Advice, Task, advise, needs_dyadic_fractions, short_number
from pet.errors import ConfigError
from pet.mask_config import DataType, MaskConfig

#: Enough weights for the rate to settle, few enough to be quick with a slow back-end.
_MEASURED_LENGTH = 20_000

_BMAX_WARNING = (
    "* Bmax with floats: real xaynet clients hang on the exact fractions of such a model. A coordinator of pet"
    " publishes the fractions of the nearest floats instead; leave that on as long as real clients take part."
)


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"expected a number as 100, 1e-6 or 1/3, got {text!r}") from None


def _count(text: str) -> int:
    number = _fraction(text)
    if number.denominator != 1:
        raise typer.BadParameter(f"expected a whole number as 500 or 1e6, got {text!r}")
    return number.numerator


def _data_type(text: str) -> DataType:
    try:
        data_type: DataType = DataType.parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    return data_type


def command(
    bound: Annotated[
        Fraction,
        typer.Option("--bound", "-b", parser=_fraction, metavar="B", help="Largest absolute value of scalar * weight."),
    ],
    models: Annotated[int, typer.Option("--models", "-n", parser=_count, metavar="N", help="Most updates in one round.")],
    precision: Annotated[
        Fraction | None,
        typer.Option(
            "--precision",
            "--step",
            "-p",
            parser=_fraction,
            metavar="P",
            help="Largest acceptable error of a weight of the global model; a millionth of the bound if not given.",
        ),
    ] = None,
    scalar_sum: Annotated[
        Fraction | None,
        typer.Option(
            "--scalar-sum",
            parser=_fraction,
            metavar="S",
            help="Smallest sum of the scalars of a round: 1 for shares of the samples; N, as if each were 1, if not given.",
        ),
    ] = None,
    data_type: Annotated[
        DataType | None, typer.Option("--data-type", parser=_data_type, metavar="f32|f64|i32|i64", help="Type of the weights.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many configs to list.")] = 8,
    measure: Annotated[bool, typer.Option("--measure", help="Measure each listed config on this machine.")] = False,
    rate: Annotated[
        float, typer.Option("--rate", min=1.0, help="Nanoseconds that a KiB of ChaCha20 takes on one core.")
    ] = NOMINAL_NANOSECONDS_PER_KIB,
) -> None:
    """List the cheapest mask configs for a task.

    Example: pet config advise --bound 1 --models 500 --precision 1e-6 --measure
    """
    data_types = {} if data_type is None else {"data_types": (data_type,)}
    task = Task(
        bound=bound,
        model_count=models,
        precision=bound / 10**6 if precision is None else precision,
        scalar_sum=Fraction(models) if scalar_sum is None else scalar_sum,
        **data_types,
    )
    found = advise(task)
    console = Console(highlight=False)
    console.print(_table(found[:limit], rate, measure=measure))
    _print_notes(console, task, found, f"measured with {kernels.active_backend()!r}" if measure else f"at {rate:g} ns per KiB")
    if any(needs_dyadic_fractions(advice.config) for advice in found[:limit]):
        console.print(_BMAX_WARNING)


def _print_notes(console: Console, task: Task, found: list[Advice], timing: str) -> None:
    console.print(
        f"{len(found)} mask configs hold {task.model_count} models with weights up to {short_number(task.bound)} and keep each"
        f" weight of the mean exact to {short_number(task.precision)}; an integer group that costs as much as the prime one is"
        " left out. What a mask costs is keystream: draws that are not below the group's order are thrown away, so a larger"
        f" group can be cheaper. ns/weight: expanding one mask on one core, {timing}."
    )


def _table(found: list[Advice], rate: float, *, measure: bool) -> Table:
    table = Table(title="cheapest mask configs first", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("mask config", no_wrap=True)
    for heading in ("keystream\nbytes", "ns per\nweight", "wire\nbytes", "draws\naccepted", "error of\nthe mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for advice in found:
        nanoseconds = _measure(advice.config) if measure else advice.nanoseconds(rate)
        table.add_row(
            f"{advice.config}{' *' if needs_dyadic_fractions(advice.config) else ''}",
            f"{advice.keystream_bytes:.1f}",
            f"{nanoseconds:.1f}",
            str(advice.wire_bytes),
            f"{advice.acceptance:.2g}" if advice.acceptance < 0.01 else f"{advice.acceptance:.0%}",
            f"{float(advice.mean_error):.1e}",
        )
    return table


def _measure(config: MaskConfig) -> float:
    """Return the nanoseconds per weight that expanding a mask takes here: the best of three passes."""
    seed = bytes(kernels.SEED_BYTES)
    best = float("inf")
    kernels.expand(seed, config.order, 1000)  # numba compiles here, and wide units wake up
    for _ in range(3):
        start = time.perf_counter_ns()
        kernels.expand(seed, config.order, _MEASURED_LENGTH)
        best = min(best, (time.perf_counter_ns() - start) / _MEASURED_LENGTH)
    return best
