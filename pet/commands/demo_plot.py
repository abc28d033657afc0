"""The picture that `pet demo` leaves: how well it learned, who had what, how exact the means were, what travelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from pet.commands import demo_data
from pet.commands.demo_data import DemoData
from pet.commands.demo_run import DemoRun
from pet.mask_config import MaskConfig
from pet.masking import mask_model

mpl.use("Agg")  # draws into files, with or without a display

#: The digit whose 64 weights are shown, as an image of 8 by 8.
_SHOWN_DIGIT = 0


def plot_demo(run: DemoRun, data: DemoData, path: Path) -> None:
    """Draw the picture of a finished demo into a PNG file."""
    figure: Any = plt.figure(figsize=(13, 8.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    accuracy, split = upper.subplots(1, 2, width_ratios=(1, 1.05))
    _draw_accuracy(accuracy, run)
    _draw_split(upper, split, run, data)
    # Three square images beside each other are this much wider than high.
    errors, weights = lower.subfigures(1, 2, width_ratios=(1, 1.75))
    _draw_errors(errors.subplots(), run)
    _draw_weights(weights, run, data)
    figure.suptitle(
        f"pet demo: {len(data.participants)} participants, {len(run.results)} rounds, no model seen but the mean", fontsize=14
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_accuracy(panel: Any, run: DemoRun) -> None:
    rounds = [result.number for result in run.results]
    panel.plot(rounds, [100 * r.pooled_accuracy for r in run.results], color="C7", marker="s", label="all samples in one place")
    panel.plot(
        rounds, [100 * r.federated_accuracy for r in run.results], color="C0", marker="o", label="learned together, masked"
    )
    alone = 100 * np.array([result.alone_accuracies for result in run.results])
    panel.fill_between(rounds, alone.min(axis=1), alone.max(axis=1), color="C1", alpha=0.2, label="each alone: worst to best")
    panel.plot(rounds, np.median(alone, axis=1), color="C1", marker="^", label="each alone: median")
    panel.set_ylim(0, 100)
    lowest = panel.get_ylim()[0]
    for number, misfortune in run.misfortunes:
        panel.axvline(number, color="C3", linestyle=":", linewidth=1.5)
        panel.annotate(
            misfortune.label,
            (number, lowest),
            xytext=(4, 6),
            textcoords="offset points",
            fontsize=9,
            color="C3",
        )
    panel.set_title("Accuracy on images nobody trained on")
    panel.set_xlabel("round")
    panel.set_ylabel("read correctly, %")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(alpha=0.35)
    panel.legend(loc="lower right", bbox_to_anchor=(1, 0.14), fontsize=9)  # the names of those who dropped out stand below


def _draw_split(figure: Any, panel: Any, run: DemoRun, data: DemoData) -> None:
    counts = np.array([samples.label_counts() for samples in data.participants]).T
    image = panel.imshow(counts, cmap="Blues", aspect="auto", origin="lower")
    for digit, participant in np.argwhere(counts > 0):
        count = counts[digit, participant]
        color = "white" if count > counts.max() / 2 else "black"
        panel.text(participant, digit, str(count), ha="center", va="center", fontsize=7, color=color)
    panel.set_title("Training images of each participant, by digit")
    panel.set_xlabel("participant (red: dropped out, or cheated)")
    panel.set_ylabel("digit")
    panel.set_xticks(range(len(data.participants)), [str(index + 1) for index in range(len(data.participants))])
    panel.set_yticks(range(demo_data.LABELS))
    for label in panel.get_xticklabels():
        label.set_fontsize(8)
    for participant in {each.participant for _, each in run.misfortunes if each.participant is not None}:
        panel.get_xticklabels()[participant].set_color("C3")
        panel.get_xticklabels()[participant].set_fontweight("bold")
    figure.colorbar(image, ax=panel, shrink=0.85)


def _draw_errors(panel: Any, run: DemoRun) -> None:
    rounds = [result.number for result in run.results]
    panel.plot(rounds, [r.check.tolerance for r in run.results], color="C3", linestyle="--", label="allowed")
    panel.plot(rounds, [r.check.error for r in run.results], color="C2", marker="o", label="largest error of the global model")
    panel.set_ylim(bottom=0)
    panel.set_title("Global model against the plain\nweighted mean of the accepted updates", pad=16)
    panel.set_xlabel("round")
    panel.set_ylabel("absolute error of a weight")
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(alpha=0.35)
    panel.legend(loc="lower right")


def _draw_weights(figure: Any, run: DemoRun, data: DemoData) -> None:
    """Show one participant's weights in clear, masked, and in the mean: the middle one is all that a coordinator gets."""
    owner = int(np.argmax([samples.label_counts()[_SHOWN_DIGIT] for samples in data.participants]))
    weights = demo_data.train(demo_data.initial_weights(), data.participants[owner], random_seed=0)
    images = [
        (f"learned by participant {owner + 1}", _as_image(weights), "RdBu_r"),
        ("the same, masked: all that is sent", _as_image(_masked(weights, run.scene.config)), "Greys"),
        ("the last mean of all models", _as_image(run.model), "RdBu_r"),
    ]
    figure.suptitle(f"Weights for the digit {_SHOWN_DIGIT}, one per pixel (made for this picture)", fontsize=12)
    for panel, (title, image, colors) in zip(figure.subplots(1, len(images)), images, strict=True):
        limit = np.abs(image).max()
        panel.imshow(image, cmap=colors, vmin=-limit if colors == "RdBu_r" else 0, vmax=limit)
        panel.set_title(title, fontsize=10)
        panel.set_xticks([])
        panel.set_yticks([])


def _masked(weights: NDArray[np.float32], config: MaskConfig) -> NDArray[np.float64]:
    """Return masked weights as numbers between 0 and 1: the share of the group's order."""
    _, masked_model = mask_model(weights, config, on_clip="count")
    elements = np.array([int.from_bytes(row.tobytes(), "little") for row in masked_model.vect], dtype=np.float64)
    return elements / float(config.order)


def _as_image(weights: NDArray[Any]) -> NDArray[Any]:
    by_digit = weights[: -demo_data.LABELS].reshape(-1, demo_data.LABELS)
    return by_digit[:, _SHOWN_DIGIT].reshape(8, 8)
