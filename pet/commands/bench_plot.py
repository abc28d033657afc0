"""The plot of `pet bench`: for each kernel, nanoseconds per weight and, below, GB/s over the size of the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pet.commands.bench_results import Result


def plot_results(results: Sequence[Result], title: str, path: Path) -> None:
    """Draw every result; the ceiling of a series is the dashed line of its colour.

    Args:
        results: in the order they were measured.
        title: what was measured where.
        path: a file whose suffix matplotlib knows.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kernels = list(dict.fromkeys(result.kernel for result in results))
    series = list(dict.fromkeys((result.config, result.backend) for result in results))
    columns = min(4, len(kernels))
    rows = 2 * -(-len(kernels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.5 * rows + 1.0), sharex=True, squeeze=False, layout="constrained"
    )
    for index, kernel in enumerate(kernels):
        row, column = 2 * (index // columns), index % columns
        _draw_kernel((grid[row, column], grid[row + 1, column]), kernel, series, results)
    for index in range(len(kernels), rows // 2 * columns):
        row, column = 2 * (index // columns), index % columns
        grid[row, column].set_axis_off()
        grid[row + 1, column].set_axis_off()
    _add_legend(figure, series, with_ceilings=any(result.ceiling_ns is not None for result in results))
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_kernel(panels: tuple[Any, Any], kernel: str, series: Sequence[tuple[str, str]], results: Sequence[Result]) -> None:
    """Draw one kernel into a panel with times and one with rates."""
    times, rates = panels
    limit = ""
    for index, key in enumerate(series):
        mine = [result for result in results if result.kernel == kernel and (result.config, result.backend) == key]
        limit = mine[0].limit
        sizes = [result.size for result in mine]
        style: dict[str, Any] = {"color": f"C{index}", "marker": "o", "markersize": 4}
        times.plot(sizes, [result.best_ns for result in mine], **style)
        rates.plot(sizes, [result.gigabytes_per_second for result in mine], **style)
        ceilings = [result.ceiling_ns for result in mine if result.ceiling_ns is not None]
        if len(ceilings) == len(mine):
            style = {"color": f"C{index}", "linestyle": "--", "linewidth": 1}
            times.plot(sizes, ceilings, **style)
            rates.plot(sizes, [r.limit_bytes / c for r, c in zip(mine, ceilings, strict=True)], **style)
    _format_panel(times, f"{kernel}: ns per weight")
    _format_panel(rates, f"{kernel}: GB/s of {limit}")


def _format_panel(panel: Any, title: str) -> None:
    from matplotlib.ticker import FuncFormatter

    panel.set_title(title, fontsize=10)
    panel.set_xlabel("weights", fontsize=9)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.grid(visible=True, which="major", alpha=0.4)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(FuncFormatter(_minor_label))
    panel.tick_params(which="both", labelsize=8)
    panel.tick_params(labelbottom=True)


def _add_legend(figure: Any, series: Sequence[tuple[str, str]], *, with_ceilings: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=f"C{i}", marker="o") for i in range(len(series))]
    labels = [f"{config}, {backend}" for config, backend in series]
    if with_ceilings:
        handles.append(Line2D([], [], color="grey", linestyle="--"))
        labels.append("ceiling of this machine")
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=9)


def _minor_label(value: float, _: int) -> str:
    """Label 2 and 5 of each decade: a panel often spans less than one."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
