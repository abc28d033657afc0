"""`pet demo`: a federated training on real data, from the coordinator to the picture at the end.

This file prints. The data and the training are in demo_data.py, the coordinator in demo_server.py, the participants in
demo_participants.py, the profiles of the protocol in demo_scene.py and demo_pet1.py, the course of the rounds in demo_run.py,
the check in demo_check.py, the picture in demo_plot.py.
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
from pet.commands.demo_pet1 import Pet1Scene
from pet.commands.demo_plot import plot_demo
from pet.commands.demo_run import DemoRound, DemoRun
from pet.commands.demo_scene import Scene, XaynetScene
from pet.errors import PetError
from pet.messages import MessageTag
from pet.protocol.phases import Phase

PARTICIPANT_COUNT: Final = 20
XAYNET: Final = "xaynet"
PET_1: Final = "pet/1"
_DROP_OUT_COUNT: Final = 2
_PICTURE: Final = Path("pet-demo.png")


def command(
    rounds: Annotated[
        int, typer.Option("--rounds", "-r", min=1, max=1000, help="How many rounds have to end with a model.")
    ] = 10,
    profile: Annotated[
        str, typer.Option("--profile", metavar="NAME", help="The protocol: xaynet, or pet/1 with a committee of five.")
    ] = XAYNET,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed deals the samples out in another way.")] = 7,
) -> None:
    """Train on handwritten digits with 20 participants, some of whom fail, and check every mean; writes pet-demo.png.

    Example: pet demo --rounds 8 --profile pet/1
    """
    console = Console(highlight=False)
    _require_writable(_PICTURE)
    data = demo_data.load_data(PARTICIPANT_COUNT, seed)
    scene = _choose_scene(profile, data, rounds)
    _introduce(console, data, scene)
    started = time.monotonic()
    with _progress(console) as progress:
        run = DemoRun(data, rounds, scene, _ConsoleReporter(progress, rounds, scene))
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


def _choose_scene(profile: str, data: DemoData, rounds: int) -> Scene:
    """Return a profile of the protocol, with what goes wrong in it.

    Raises:
        typer.BadParameter: there is no such profile.
    """
    chosen = _choose_drop_outs(data, rounds)
    if profile == XAYNET:
        return XaynetScene(data, chosen)
    if profile == PET_1:
        (cheat, cheats_in), (_, vanishes_in) = chosen.items()
        return Pet1Scene(data, vanishes_in=vanishes_in, cheat=cheat, cheats_in=cheats_in)
    raise typer.BadParameter(f"expected {XAYNET} or {PET_1}, got {profile!r}", param_hint="--profile")


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


def _introduce(console: Console, data: DemoData, scene: Scene) -> None:
    sizes = [len(samples) for samples in data.participants]
    console.print(
        f"[bold]{PARTICIPANT_COUNT} participants learn to read handwritten digits together. Nobody shows a sample or a"
        f" model.[/bold]\n{len(data.pooled)} training images are dealt out, {min(sizes)} to {max(sizes)} each, and mostly of a"
        f" few digits. {len(data.test)} more are kept for the test.\n"
        f"{scene.how_it_works()}\n"
        f"Model: {demo_data.MODEL_LENGTH} weights. Masks: {scene.config}. Kernels: {kernels.active_backend()}.\n"
    )
    answers = scene.message_names[scene.answer_tag]
    console.print(
        f"[bold]round  updates  {answers}  accuracy  one alone  pooled  error of mean  allowed[/bold]", soft_wrap=True
    )


class _ConsoleReporter:
    """Prints a line per finished round, above a bar that shows the round under way."""

    def __init__(self, progress: Progress, rounds: int, scene: Scene) -> None:
        self._progress: Final = progress
        self._scene: Final = scene
        self._task: Final[TaskID] = progress.add_task("waiting for the first round", total=rounds, round="")
        self._phase_text = ""

    def phase_entered(self, number: int, phase: Phase) -> None:
        """Show the phase."""
        self._phase_text = self._scene.phase_texts[phase]
        self._progress.update(self._task, round=f"round {number}", description=self._phase_text)

    def message_accepted(self, accepted: int, tag: MessageTag) -> None:
        """Count what came in this phase."""
        self._progress.update(self._task, description=f"{self._phase_text} ({accepted} {self._scene.message_names[tag]})")

    def round_finished(self, result: DemoRound) -> None:
        """Print the line of a round."""
        check = result.check
        verdict = "[green]ok[/green]" if check.is_passed else "[bold red]TOO FAR OFF[/bold red]"
        answers = f"{result.mask_count:{len(self._scene.message_names[self._scene.answer_tag])}}"
        self._progress.advance(self._task)
        self._print(
            f"{result.number:5}  {result.update_count:7}  {answers}  {result.federated_accuracy:8.1%}"
            f"  {median(result.alone_accuracies):9.1%}  {result.pooled_accuracy:6.1%}  {check.error:13.1e}"
            f"  {check.tolerance:.1e} {verdict}"
        )

    def round_failed(self, number: int, reason: str, description: str) -> None:
        """Print why a round ended without a model."""
        self._print(f"{number:5}  [yellow]failed ({reason}): {description}; the next round begins[/yellow]")

    def went_wrong(self, text: str) -> None:
        """Print what went wrong, and whose doing it was."""
        self._print(f"       [yellow]{text}[/yellow]")

    def _print(self, line: str) -> None:
        self._progress.console.print(line, soft_wrap=True)


def _conclude(console: Console, run: DemoRun, seconds: float) -> None:
    last = run.results[-1]
    passed = sum(result.check.is_passed for result in run.results)
    console.print(
        f"\nRounds: {len(run.results)}, in {seconds:.0f} s. The model learned together reads {last.federated_accuracy:.1%} of"
        f" the test images; one trained on all samples in one place reads {last.pooled_accuracy:.1%}. Alone, with its own"
        f" samples and as many rounds, a participant reads {min(last.alone_accuracies):.1%} to"
        f" {max(last.alone_accuracies):.1%}, half of them {median(last.alone_accuracies):.1%} or less.\n"
        f"Global models that equal the weighted mean of exactly the updates that were accepted: {passed} of {len(run.results)},"
        " within the allowed error: what masking rounds off, and the precision that it is computed in.\n"
        f"{run.scene.who_learns_what(run.accepted_counts)}"
    )
