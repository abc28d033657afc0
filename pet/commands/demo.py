"""`pet demo`: a federated training on real data, from the coordinator to the picture at the end.

This file prints. The data and the training are in demo_data.py, the coordinator in demo_server.py, the participants in
demo_participants.py, the course of the rounds in demo_run.py, the check in demo_check.py, the picture in demo_plot.py.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pet import kernels
from pet.commands import demo_data
from pet.commands.demo_data import DemoData
from pet.commands.demo_plot import plot_demo
from pet.commands.demo_run import CONFIG, DemoRound, DemoRun
from pet.errors import PetError
from pet.messages import MessageTag, Tag
from pet.protocol.phases import Phase

PARTICIPANT_COUNT: Final = 20
_DROP_OUT_COUNT: Final = 2
_PICTURE: Final = Path("pet-demo.png")

_PHASE_TEXTS: Final = {
    Phase.IDLE: "new keys, new lottery",
    Phase.SUM: "sum phase: those drawn for it offer a key",
    Phase.UPDATE: "update phase: the others train, mask and send",
    Phase.SUM2: "sum2 phase: the masks are added up",
    Phase.UNMASK: "unmasking the sum",
    Phase.FAILURE: "the round failed",
    Phase.SHUTDOWN: "shutting down",
}


def command(
    rounds: Annotated[
        int, typer.Option("--rounds", "-r", min=1, max=1000, help="How many rounds have to end with a model.")
    ] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed deals the samples out in another way.")] = 7,
) -> None:
    """Train on handwritten digits with 20 participants, two of whom drop out, and check every mean; writes pet-demo.png.

    Example: pet demo --rounds 8
    """
    console = Console(highlight=False)
    _require_writable(_PICTURE)
    data = demo_data.load_data(PARTICIPANT_COUNT, seed)
    _introduce(console, data)
    started = time.monotonic()
    with _progress(console) as progress:
        reporter = _ConsoleReporter(progress, rounds)
        run = DemoRun(data, rounds, _choose_drop_outs(data, rounds), reporter)
        run.run()
    _conclude(console, run, time.monotonic() - started)
    plot_demo(run, data, _PICTURE)
    console.print(f"Picture: {_PICTURE}")
    if not all(result.check.is_passed for result in run.results):
        raise typer.Exit(1)


def _require_writable(picture: Path) -> None:
    """Find out before the training, and not after it, that the picture could not be written.

    Raises:
        PetError: it could not.
    """
    try:
        with tempfile.TemporaryFile(dir=picture.parent):
            pass
    except OSError as error:
        raise PetError(f"{picture}: expected a working directory that can be written to, got: {error.strerror}") from None


def _choose_drop_outs(data: DemoData, rounds: int) -> dict[int, int]:
    """Choose who vanishes, and in which round: two with a middling number of samples, in the middle third."""
    by_size = sorted(range(len(data.participants)), key=lambda index: len(data.participants[index]))
    middle = by_size[len(by_size) // 2 :][:_DROP_OUT_COUNT]
    return {index: 1 + max(1, rounds * (i + 1) // (_DROP_OUT_COUNT + 1)) for i, index in enumerate(middle)}


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.fields[round]}[/bold]"),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _introduce(console: Console, data: DemoData) -> None:
    sizes = [len(samples) for samples in data.participants]
    console.print(
        f"[bold]{PARTICIPANT_COUNT} participants learn to read handwritten digits together. Nobody shows a sample or a"
        f" model.[/bold]\n{len(data.pooled)} training images are dealt out, {min(sizes)} to {max(sizes)} each, and mostly of a"
        f" few digits. {len(data.test)} more are kept for the test.\n"
        "In every round a lottery draws some participants to add up masks. The others train, hide their model under a mask"
        " and send it to a coordinator on this machine, over HTTP. It adds up the masked models, takes the sum of the masks"
        " off, and is left with the mean, weighted by samples.\n"
        f"Model: {demo_data.MODEL_LENGTH} weights. Masks: {CONFIG}. Kernels: {kernels.active_backend()}.\n"
    )
    console.print("[bold]round  updates  masks  accuracy  one alone  pooled  error of mean  allowed[/bold]", soft_wrap=True)


class _ConsoleReporter:
    """Prints a line per finished round, above a bar that shows the round under way."""

    def __init__(self, progress: Progress, rounds: int) -> None:
        self._progress: Final = progress
        self._task: Final[TaskID] = progress.add_task("waiting for the first round", total=rounds, round="")
        self._phase_text = ""

    def phase_entered(self, round_id: int, phase: Phase) -> None:
        """Show the phase."""
        self._phase_text = _PHASE_TEXTS[phase]
        self._progress.update(self._task, round=f"round {round_id}", description=self._phase_text)

    def message_accepted(self, accepted: int, tag: MessageTag) -> None:
        """Count what came in this phase."""
        what: dict[MessageTag, str] = {Tag.SUM: "keys", Tag.UPDATE: "updates", Tag.SUM2: "masks"}
        self._progress.update(self._task, description=f"{self._phase_text} ({accepted} {what[tag]})")

    def round_finished(self, result: DemoRound) -> None:
        """Print the line of a round."""
        check = result.check
        verdict = "[green]ok[/green]" if check.is_passed else "[bold red]TOO FAR OFF[/bold red]"
        self._progress.advance(self._task)
        self._print(
            f"{result.round_id:5}  {result.update_count:7}  {result.mask_count:5}  {result.federated_accuracy:8.1%}"
            f"  {median(result.alone_accuracies):9.1%}  {result.pooled_accuracy:6.1%}  {check.error:13.1e}"
            f"  {check.tolerance:.1e} {verdict}"
        )

    def round_failed(self, round_id: int, reason: str, description: str) -> None:
        """Print why a round ended without a model."""
        self._print(f"{round_id:5}  [yellow]failed ({reason}): {description}; the next round begins[/yellow]")

    def dropped_out(self, participant: int, unfinished: str) -> None:
        """Print who is gone."""
        self._print(f"       [yellow]participant {participant + 1} drops out: {unfinished}[/yellow]")

    def _print(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True)


def _conclude(console: Console, run: DemoRun, seconds: float) -> None:
    last, counts = run.results[-1], run.accepted_counts
    passed = sum(result.check.is_passed for result in run.results)
    console.print(
        f"\nRounds: {len(run.results)}, in {seconds:.0f} s. The model learned together reads {last.federated_accuracy:.1%} of"
        f" the test images; one trained on all samples in one place reads {last.pooled_accuracy:.1%}. Alone, with its own"
        f" samples and as many rounds, a participant reads {min(last.alone_accuracies):.1%} to"
        f" {max(last.alone_accuracies):.1%}, half of them {median(last.alone_accuracies):.1%} or less.\n"
        f"Global models that equal the weighted mean of exactly the updates that were accepted: {passed} of {len(run.results)},"
        " within the allowed error: what n masked models and scalars can round off, n (1 + m) / (E S), and double precision.\n"
        f"[bold]The coordinator saw[/bold] who took part, {counts[Tag.UPDATE]} masked models (noise without their masks),"
        f" {counts[Tag.SUM2]} sums of masks, and the means. [bold]It did not see[/bold] any participant's samples or model.\n"
        "[bold]Mind:[/bold] that holds for a coordinator that follows the protocol. Together with one sum participant, or by"
        " handing out keys of its own, it can unmask every update."
    )
