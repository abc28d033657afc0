"""The plot of `pet bench` can be read: labels with units on every axis, large enough, and inside the picture."""

import importlib
import itertools
from dataclasses import replace

import pytest

from pet.commands.bench_results import Result

MACHINE = "A Processor With A Rather Long Name @ 2.00GHz (64 cores)"


#: Kernels, and what bounds each.
CASES = [("expand", "keystream"), ("aggregate 8", "reads"), ("unmask", "memory"), ("mask sum", "keystream"), ("x", "memory")]


def results(sizes, backends=("avx2", "portable"), *, base=10.0, ceiling=5.0, cases=CASES[:2]):
    return [
        Result(
            kernel=kernel,
            config="prime-f32-b0-m3",
            backend=backend,
            size=size,
            threads=1,
            best_ns=base,
            median_ns=base * (1 + index),
            spread=0.1,
            passes=5,
            limit=limit,
            limit_bytes=6.0,
            ceiling_ns=ceiling,
        )
        for index, backend in enumerate(backends)
        for size in sizes
        for kernel, limit in cases
    ]


SETS = {
    "one size": results([10_000]),
    "many sizes": results([10**k for k in range(1, 9)], cases=CASES),
    "nearly equal times": results([1000, 2000], ["avx2"], base=3.0, ceiling=3.0),
    "tiny times": results([1000, 2000], base=0.003, ceiling=0.001),
    "reference": results([10, 30], ["reference"], base=123_456.0),
    "no ceilings": results([100, 10_000], ceiling=None),
}


@pytest.fixture(scope="module")
def plot():
    """Every process of a session collects this file; only those that draw import matplotlib."""
    return importlib.import_module("pet.commands.bench_plot")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] if name != "one size" else []) for name in SETS])
def test_every_axis_has_labels_that_can_be_read_and_every_point_is_inside(plot, name):
    """In one test, because a figure takes half a second to draw."""
    figure = plot.draw_results(SETS[name], MACHINE)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    assert len(figure.axes) == (10 if name == "many sizes" else 4)
    for axes in figure.axes:
        assert axes.get_xlabel() == "weights"
        assert any(unit in axes.get_ylabel() for unit in ("ns per weight", "share of", "GB/s"))
        for axis, least in ((axes.xaxis, 1), (axes.yaxis, 2)):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            labels = [label for tick, label in ticks if low <= tick <= high]
            assert len([label for label in labels if label.get_text()]) >= least, (axes.get_title(), axis.axis_name)
            boxes = [label.get_window_extent(renderer) for label in labels]
            assert all(box.height >= 10 for box in boxes), "pixels"
            assert not any(first.overlaps(second) for first, second in itertools.pairwise(boxes))
            assert all(figure.bbox.padded(2).containsx(box.x0) and figure.bbox.padded(2).containsx(box.x1) for box in boxes)
        for line in axes.lines:
            (low, high), ys = axes.get_ylim(), line.get_ydata()
            assert all(low <= y <= high for y in ys)


def test_the_title_says_machine_back_end_and_config(plot):
    title = plot.draw_results(results([10, 100], ["avx2"]), MACHINE).get_suptitle()
    assert MACHINE in title
    assert "back-end avx2" in title
    assert "prime-f32-b0-m3" in title


def test_a_title_is_no_wider_than_the_figure(plot):
    names = [f"pet-1/z64,f64,bound=0.{digits},models=1000" for digits in ("3333333333333334", "14285714285714285", "1")]
    made = [replace(result, config=name) for name in names for result in results([10, 100], ["avx2"], cases=CASES)]
    figure = plot.draw_results(made, MACHINE)
    figure.canvas.draw()
    assert "back-end avx2; 3 configs; one thread" in figure.get_suptitle()
    for text in (figure._suptitle, *figure.legends[0].get_texts()):
        box = text.get_window_extent(figure.canvas.get_renderer())
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text.get_text()


@pytest.mark.parametrize("suffix", [".svg", pytest.param(".pdf", marks=pytest.mark.long)])  # test_bench_command.py: .png
def test_a_plot_is_written_in_the_format_of_its_name(plot, suffix, tmp_path):
    path = tmp_path / f"bench{suffix}"
    plot.plot_results(SETS["one size"], MACHINE, path)
    assert path.read_bytes().startswith({".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])


@pytest.mark.parametrize(("size", "text"), [(800, "800"), (1_500, "1.5k"), (10**6, "1M"), (25_000_000, "25M"), (10**9, "1G")])
def test_sizes_are_written_short(plot, size, text):
    assert plot.short_size(size) == text
