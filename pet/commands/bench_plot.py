"""The plot of `pet bench`: nanoseconds per weight over the size of the model, one panel per kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pet.commands.bench import Result


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
    rows = -(-len(kernels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.9 * rows + 1.0), sharex=True, squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for panel, kernel in zip(panels, kernels, strict=False):
        for index, key in enumerate(series):
            _draw_series(panel, [r for r in results if r.kernel == kernel and (r.config, r.backend) == key], f"C{index}")
        _format_panel(panel, kernel)
    for panel in panels[len(kernels) :]:
        panel.set_axis_off()
    _add_legend(figure, series, with_ceilings=any(result.ceiling_ns is not None for result in results))
    figure.suptitle(title, fontsize=11)
    figure.supylabel("nanoseconds per weight", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _format_panel(panel: Any, kernel: str) -> None:
    from matplotlib.ticker import FuncFormatter

    panel.set_title(kernel, fontsize=11)
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


def _draw_series(panel: Any, results: Sequence[Result], color: str) -> None:
    sizes = [result.size for result in results]
    panel.plot(sizes, [result.best_ns for result in results], color=color, marker="o", markersize=4)
    if all(result.ceiling_ns is not None for result in results):
        panel.plot(sizes, [result.ceiling_ns for result in results], color=color, linestyle="--", linewidth=1)


def _minor_label(value: float, _: int) -> str:
    """Label 2 and 5 of each decade: a panel often spans less than one."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
