"""The charts in front of docs/benchmarks.md, from the figures that write_report.py measured."""

import textwrap
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image
from report_text import number

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
FONT = 11
DOTS_PER_INCH = 100


def new_figure(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(10, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH)
    shrink(path)


def shrink(path: Path) -> None:
    """Reduce a PNG to as many colours as a chart needs: a fifth of the bytes."""
    with Image.open(path) as image:
        reduced = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def format_value_axis(axis: Any, label: str, lowest: float, highest: float) -> None:
    axis.set_xscale("log")
    axis.set_xlim(lowest, highest)
    axis.set_xlabel(label, fontsize=FONT)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=FONT)
    axis.grid(visible=True, axis="x", which="major", alpha=0.35)
    axis.set_axisbelow(True)


def draw_kernels(report: dict[str, Any], size: int, path: Path) -> None:
    """Draw the median time of each kernel on each back-end at one size, and the ceiling of each as a line."""
    results = [result for result in report["results"] if result["size"] == size]
    kernels = list(dict.fromkeys(result["kernel"] for result in results))
    backends = list(dict.fromkeys(result["backend"] for result in results))
    figure, axis = new_figure(0.75 * len(kernels) + 1.3)
    thickness = 0.8 / len(backends)
    for index, backend in enumerate(backends):
        mine = [result for result in results if result["backend"] == backend]
        places = [kernels.index(result["kernel"]) + thickness * (index - (len(backends) - 1) / 2) for result in mine]
        axis.barh(places, [r["median_ns"] for r in mine], 0.9 * thickness, color=COLOURS[index % 4], label=backend)
        for place, result in zip(places, mine, strict=True):
            after = 1.06 * max(result["median_ns"], result["ceiling_ns"] or 0)
            axis.text(after, place, number(result["median_ns"]), va="center", fontsize=FONT - 2)
            if result["ceiling_ns"] is not None:
                axis.plot([result["ceiling_ns"]] * 2, [place - 0.5 * thickness, place + 0.5 * thickness], "k", linewidth=2)
    if any(result["ceiling_ns"] is not None for result in results):
        axis.plot([], [], "k", linewidth=2, label="ceiling of the machine")
    axis.set_yticks(range(len(kernels)), kernels)
    axis.invert_yaxis()
    times = [time for result in results for time in (result["median_ns"], result["ceiling_ns"]) if time is not None]
    format_value_axis(axis, "ns per weight (and vector), median; shorter is better", min(times) / 2, max(times) * 2)
    figure.legend(fontsize=FONT, loc="outside lower center", ncols=4)
    config = results[0]["config"]
    axis.set_title(f"{config}, {size:,} weights, one thread; {report['cpu']}", fontsize=FONT + 1)
    save(figure, path)


def draw_peers(report: dict[str, Any], path: Path) -> None:
    """Draw how many times faster or slower pet is than each peer, with both times."""
    found = report["peers"]
    figure, axis = new_figure(0.6 * len(found) + 1.3)
    for place, comparison in enumerate(found):
        ratio = comparison["ratio"]
        axis.barh(place, ratio - 1, left=1, height=0.6, color=COLOURS[0] if ratio >= 1 else COLOURS[1])
        text = f" {number(ratio)} x  ({number(comparison['peer_ns'])} / {number(comparison['pet_ns'])} ns)"
        axis.text(max(ratio, 1), place, text, va="center", fontsize=FONT - 1)
    labels = [f"{comparison['peer'].split()[0]}: {comparison['what']}" for comparison in found]
    axis.set_yticks(range(len(found)), [textwrap.fill(label, 40) for label in labels])
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=1)
    ratios = [comparison["ratio"] for comparison in found]
    format_value_axis(axis, "times faster (peer / pet, ns per weight, medians)", min(0.5, min(ratios) / 1.5), max(ratios) * 60)
    axis.set_title(f"{found[0]['length']:,} weights, one thread; {report['cpu']}", fontsize=FONT + 1)
    save(figure, path)
