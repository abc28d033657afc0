"""The plot of `pet bench`: for each kernel the time per weight and, below, the share of the ceiling, over the model's size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pet.commands.bench_results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Inches of a panel.
_PANEL_WIDTH: Final = 3.5
_PANEL_HEIGHT: Final = 2.6
_DOTS_PER_INCH: Final = 110
#: Kernels in one row.
_MAX_COLUMNS: Final = 4
#: In points.
_FONT: Final = 11
#: Of the names of one kind in the title.
_TITLE_CHARACTERS: Final = 90
#: Colours that people with any colour vision can tell apart, also in print (Okabe and Ito).
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS: Final = "osD^vPX"

#: A value of a result, or None where it has none.
_Value = Callable[[Result], float | None]


def plot_results(results: Sequence[Result], machine: str, path: Path) -> None:
    """Draw every result into a file.

    Args:
        results: in the order they were measured.
        machine: what they were measured on.
        path: a file whose suffix matplotlib knows.
    """
    figure = draw_results(results, machine)
    figure.savefig(path, dpi=_DOTS_PER_INCH)


def draw_results(results: Sequence[Result], machine: str) -> Figure:
    """Return the figure: two panels for each kernel, one line for each config and back-end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kernels = list(dict.fromkeys(result.kernel for result in results))
    columns = min(_MAX_COLUMNS, len(kernels))
    rows = -(-len(kernels) // columns)
    figure = Figure(figsize=(_PANEL_WIDTH * columns, 2 * _PANEL_HEIGHT * rows + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    series = _series(results)
    for index, kernel in enumerate(kernels):
        mine = [result for result in results if result.kernel == kernel]
        row, column = 2 * (index // columns), index % columns
        times = figure.add_subplot(2 * rows, columns, row * columns + column + 1)
        shares = figure.add_subplot(2 * rows, columns, (row + 1) * columns + column + 1)
        _draw_times(times, mine, series)
        _draw_shares(shares, mine, series)
    _add_legend(figure, series, with_ceilings=any(result.ceiling_ns is not None for result in results))
    figure.suptitle(_title(results, machine), fontsize=_FONT + 3)
    return figure


def _series(results: Sequence[Result]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((result.config, result.backend) for result in results))


def _title(results: Sequence[Result], machine: str) -> str:
    """Return what was measured where: the machine, and the back-ends, configs and threads if there is one of each."""
    parts = [f"pet kernels on {machine}"]
    for singular, values in (
        ("back-end", [result.backend for result in results]),
        ("config", [result.config for result in results]),
    ):
        names = list(dict.fromkeys(values))
        listed = ", ".join(names)
        # The legend names them all; more than this would be wider than the figure.
        if len(listed) > _TITLE_CHARACTERS:
            parts.append(f"{len(names)} {singular}s")
        else:
            parts.append(f"{singular if len(names) == 1 else singular + 's'} {listed}")
    threads = max(result.threads for result in results)
    parts.append("one thread" if threads == 1 else f"up to {threads} threads")
    return "\n".join([parts[0], "; ".join(parts[1:])])


def _draw_times(panel: Axes, results: Sequence[Result], series: Sequence[tuple[str, str]]) -> None:
    """Draw the time of a kernel, and below it the least that the machine allows."""
    _draw_lines(panel, results, series, lambda result: result.median_ns)
    _draw_lines(panel, results, series, lambda result: result.ceiling_ns, is_ceiling=True)
    panel.set_title(results[0].kernel, fontsize=_FONT + 1, fontweight="bold")
    panel.set_ylabel(_time_unit(results[0].kernel), fontsize=_FONT)
    panel.set_yscale("log")
    _label_decades(panel)
    _format_sizes(panel, results)


def _time_unit(kernel: str) -> str:
    """Return the unit of a kernel's times: kernels that take eight vectors, or seeds, are measured per vector."""
    if kernel == "mask sum":
        return "ns per weight\nand seed"
    return "ns per weight\nand vector" if kernel.startswith("aggregate") else "ns per weight"


def _draw_shares(panel: Axes, results: Sequence[Result], series: Sequence[tuple[str, str]]) -> None:
    """Draw the share of the ceiling; the rate in GB/s where there are no ceilings."""
    from matplotlib.ticker import PercentFormatter

    if any(result.ceiling_ns is not None for result in results):
        _draw_lines(panel, results, series, _median_share)
        panel.axhline(1, color="grey", linestyle="--", linewidth=1.2)
        panel.set_ylabel(f"share of\n{results[0].limit} ceiling", fontsize=_FONT)
        panel.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
        panel.set_ylim(0, max(1.1, 1.05 * panel.get_ylim()[1]))
    else:
        _draw_lines(panel, results, series, lambda result: result.limit_bytes / result.median_ns)
        panel.set_ylabel("GB/s" if results[0].limit != "keystream" else "GB/s of keystream", fontsize=_FONT)
        panel.set_ylim(0, 1.05 * panel.get_ylim()[1])
    _format_sizes(panel, results)


def _median_share(result: Result) -> float | None:
    return None if result.ceiling_ns is None else result.ceiling_ns / result.median_ns


def _draw_lines(
    panel: Axes, results: Sequence[Result], series: Sequence[tuple[str, str]], value: _Value, *, is_ceiling: bool = False
) -> None:
    for index, key in enumerate(series):
        values = [(result.size, value(result)) for result in results if (result.config, result.backend) == key]
        points = sorted((size, y) for size, y in values if y is not None)
        style: dict[str, Any] = {"color": _COLOURS[index % len(_COLOURS)]}
        if is_ceiling:
            style |= {"linestyle": "--", "linewidth": 1.2, "marker": "_", "markersize": 10}
        else:
            style |= {"marker": _MARKERS[index % len(_MARKERS)], "markersize": 6, "linewidth": 1.8}
        panel.plot([size for size, _ in points], [y for _, y in points], **style)


def _label_decades(panel: Axes) -> None:
    """Label 1, 2 and 5 of each decade, and give a panel at least a decade: so there are always labels to read a value from."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    low, high = panel.get_ylim()
    while high / low < 10:
        low, high = low / 1.2, high * 1.2
    decades = range(-4, 7)
    marks = [mark * 10.0**decade for decade in decades for mark in ((1, 2, 5) if high / low < 300 else (1,))]
    panel.set_ylim(low, high)
    panel.yaxis.set_major_locator(FixedLocator([mark for mark in marks if low <= mark <= high]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _format_sizes(panel: Axes, results: Sequence[Result]) -> None:
    """Label the sizes that were measured; of more than fit, every second or third."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    sizes = sorted({result.size for result in results})
    step = -(-len(sizes) // 5)
    panel.set_xscale("log")
    panel.set_xlim(sizes[0] / 1.6, sizes[-1] * 1.6)
    panel.xaxis.set_major_locator(FixedLocator(sizes[::step]))
    panel.xaxis.set_major_formatter(FixedFormatter([short_size(size) for size in sizes[::step]]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("weights", fontsize=_FONT)
    panel.tick_params(labelsize=_FONT)
    panel.grid(visible=True, which="major", alpha=0.35)


def short_size(size: int) -> str:
    """Write a number of weights short: 25M, 1.5k, 800."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if size >= unit:
            return f"{size / unit:.3g}{name}"
    return str(size)


def _add_legend(figure: Figure, series: Sequence[tuple[str, str]], *, with_ceilings: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_COLOURS[i % len(_COLOURS)], marker=_MARKERS[i % len(_MARKERS)], linewidth=1.8)
        for i in range(len(series))
    ]
    labels = [f"{config}, {backend} (median)" for config, backend in series]
    if with_ceilings:
        handles.append(Line2D([], [], color="grey", linestyle="--", linewidth=1.2))
        labels.append("ceiling of this machine")
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), fontsize=_FONT)
