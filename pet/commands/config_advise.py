"""`pet config advise`: the cheapest mask configs for a bound, a number of models and a precision.

The cost model is pet/advice.py; this file parses, measures how fast this machine expands masks, and prints.
"""

from __future__ import annotations

import math
import time
from fractions import Fraction
from typing import Annotated, Final

import numpy as np
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from pet import kernels
from pet.advice import Advice, Requirements, advise, has_no_wire_code, needs_dyadic_fractions, short_number
from pet.errors import ConfigError
from pet.field_config import FieldConfig
from pet.kernels import fields
from pet.mask_config import DataType, MaskConfig

#: What the rate of the keystream is measured with: xaynet's default config, and the usual one of pet-1, which stores its
#: elements faster than xaynet's order of draws allows.
_PROBES: Final[dict[type[MaskConfig], MaskConfig]] = {
    MaskConfig: MaskConfig.parse("prime-f32-b0-m3"),
    FieldConfig: MaskConfig.parse("pet-1/z32,f32,bound=1,models=1000"),
}
_NAMES: Final[dict[type[MaskConfig], str]] = {MaskConfig: "xaynet", FieldConfig: "pet-1"}
#: Seconds that the probe takes, and how long one of its passes should at least last.
PROBE_SECONDS: Final = 0.15
_PASS_SECONDS: Final = 0.01
#: The first pass, a batch of pet-1; the reference back-end needs 0.1 ms for a weight. And the most, 6 MB of elements.
_LENGTHS: Final = (256, 1 << 20)

_FIELD_NOTE = (
    "+ pet-1 has no code on the wire yet: no coordinator takes it, and rounds have to be of xaynet's configs (--xaynet). It is"
    " for those who bring their own protocol (pet.mask_model, pet.Aggregation, pet.shares). Its number of models is twice what"
    " was asked for, so that totals of rubbish are noticed."
)
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


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise typer.BadParameter(f"expected nanoseconds per KiB as 385, got {text!r}")
    return rate


def _data_type(text: str) -> DataType:
    try:
        data_type: DataType = DataType.parse(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    return data_type


Bound = Annotated[
    Fraction, typer.Option("--bound", "-b", parser=_fraction, metavar="B", help="Largest absolute value of scalar * weight.")
]
Models = Annotated[int, typer.Option("--models", "-n", parser=_count, metavar="N", help="Most updates in one round.")]
Precision = Annotated[
    Fraction | None,
    typer.Option(
        "--precision",
        "--step",
        "-p",
        parser=_fraction,
        metavar="P",
        help="Largest acceptable error of a weight of the global model; a millionth of the bound if not given.",
    ),
]
ScalarSum = Annotated[
    Fraction | None,
    typer.Option(
        "--scalar-sum",
        parser=_fraction,
        metavar="S",
        help="Smallest sum of the scalars of a round: 1 for shares of the samples; N, as if each were 1, if not given.",
    ),
]
WeightType = Annotated[
    DataType | None, typer.Option("--data-type", parser=_data_type, metavar="f32|f64|i32|i64", help="Type of the weights.")
]
Xaynet = Annotated[bool, typer.Option("--xaynet", help="Only xaynet's configs, which every coordinator takes; none of pet-1.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many configs to list.")]
Measure = Annotated[
    bool, typer.Option("--measure", help="Measure each listed config, in place of computing its cost from its keystream.")
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        parser=_rate,
        metavar="NS",
        help="Nanoseconds that a KiB of ChaCha20 takes on one core of another machine; measured on this one if not given.",
    ),
]


def command(
    bound: Bound,
    models: Models,
    precision: Precision = None,
    scalar_sum: ScalarSum = None,
    data_type: WeightType = None,
    xaynet: Xaynet = False,
    limit: Limit = 8,
    measure: Measure = False,
    rate: Rate = None,
) -> None:
    """List the cheapest mask configs for a task, with their cost per weight on this machine and on the wire.

    The first is what pet.MaskConfig.for_data returns. Example: pet config advise --bound 1 --models 500 --precision 1e-6
    """
    if measure and rate is not None:
        raise typer.BadParameter("expected one of --measure and --rate, got both", param_hint="--rate")
    task = Requirements.of(bound, models, bound / 10**6 if precision is None else precision, scalar_sum, data_type)
    found = advise(task, xaynet=xaynet)
    console = Console(highlight=False)
    listed = found[:limit]
    times, timing = _times(listed, rate, measure=measure)
    console.print(_table(listed, times))
    _print_notes(console, task, found, timing)
    for applies, note in ((has_no_wire_code, _FIELD_NOTE), (needs_dyadic_fractions, _BMAX_WARNING)):
        if any(applies(advice.config) for advice in listed):
            console.print(note)


def _times(listed: list[Advice], rate: float | None, *, measure: bool) -> tuple[list[float], str]:
    """Return the nanoseconds per weight of each config, and how they were found."""
    if rate is not None:
        return [advice.nanoseconds(rate) for advice in listed], f"at the {rate:g} ns per KiB of keystream that were given"
    where = f"measured on this machine (back-end {kernels.active_backend()})"
    if measure:
        return [measure_expansion(advice.config) for advice in listed], f"each config {where}"
    rates = {form: measure_keystream(probe) for form, probe in _PROBES.items() if any(type(a.config) is form for a in listed)}
    shown = " and ".join(f"{rate:.0f} ns per KiB of keystream ({_NAMES[form]})" for form, rate in rates.items())
    return [advice.nanoseconds(rates[type(advice.config)]) for advice in listed], f"at {shown}, {where}"


def _print_notes(console: Console, task: Requirements, found: list[Advice], timing: str) -> None:
    console.print(
        f"{len(found)} mask configs hold {task.model_count} models with weights up to {short_number(task.bound)} and keep each"
        f" weight of the mean exact to {short_number(task.precision)}; an integer group that costs as much as the prime one is"
        " left out. What a mask costs is keystream, here in bytes per weight: draws that are not below the group's order are"
        " thrown away, so a larger group can be cheaper. ns per weight: expanding one mask on one core, "
        f"{timing}. Bytes sent: a weight in an update message, and in the mask of a sum participant."
    )


def _table(found: list[Advice], times: list[float]) -> Table:
    # The names of pet-1's configs leave little of 80 columns; longer ones, of bounds with many digits, go on below.
    table = Table(title="cheapest mask configs first", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("mask config", overflow="fold")
    for heading in ("key-\nstream", "ns per\nweight", "bytes\nsent", "draws\nused", "error of\nthe mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for advice, nanoseconds in zip(found, times, strict=True):
        table.add_row(
            f"{advice.config}{' *' if needs_dyadic_fractions(advice.config) else ''}",
            f"{advice.keystream_bytes:.1f}",
            f"{nanoseconds:.1f}",
            f"{advice.wire_bytes}{' +' if has_no_wire_code(advice.config) else ''}",
            f"{advice.acceptance:.2g}" if advice.acceptance < 0.01 else f"{advice.acceptance:.0%}",
            f"{float(advice.mean_error):.1e}",
        )
    return table


def measure_keystream(probe: MaskConfig) -> float:
    """Return the nanoseconds that drawing from a KiB of keystream takes on one core with the back-end in use."""
    return measure_expansion(probe) * 1024 / probe.mean_keystream_bytes


def measure_expansion(config: MaskConfig) -> float:
    """Return the nanoseconds per weight that expanding a mask takes: the best pass of PROBE_SECONDS.

    The first pass is short and does not count (numba compiles there). Passes grow until one is long enough for the clock, which
    counts the time of this thread on a core: on a busy machine a pass may be interrupted for longer than it takes.
    """
    length, most = _LENGTHS
    _expand(bytes(kernels.SEED_BYTES), config, length)
    best, end = math.inf, time.perf_counter() + PROBE_SECONDS
    counter = 0
    while counter == 0 or time.perf_counter() < end:
        counter += 1
        seed = counter.to_bytes(kernels.SEED_BYTES, "little")
        start = time.thread_time()
        _expand(seed, config, length)
        elapsed = time.thread_time() - start
        best = min(best, elapsed * 1e9 / length) if elapsed > 0 else best  # a coarse clock may not have moved
        if elapsed < _PASS_SECONDS / 2:
            length = min(2 * length, most)
    return best


def _expand(seed: bytes, config: MaskConfig, length: int) -> None:
    if isinstance(config, FieldConfig):
        fields.expand_add(np.zeros((length, config.element_bytes), dtype=np.uint8), 0, seed, config.order)
    else:
        kernels.expand(seed, config.order, length)
