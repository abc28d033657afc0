"""`pet test-drive`: dummy participants against any PET coordinator, of pet or of xaynet.

What they do is in pet/participant/test_drive.py; this file parses, shows how it goes, and ends on Ctrl-C.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from pet.commands._coordinator_status import what_it_waits_for
from pet.commands._coordinator_url import AllowInsecureOption, CoordinatorKeyOption, open_coordinator
from pet.commands._dummy_committee import dummy_committee
from pet.commands.stop_signals import call_on_stop
from pet.commands.terminal_progress import shown_progress
from pet.participant.fleet_progress import FleetProgress
from pet.participant.test_drive import DummyFleet
from pet.urls import shown_url

#: Longer than the phases of the shipped settings last.
_QUIET_SECONDS: Final = 20


def command(
    url: Annotated[
        str, typer.Option("--url", "-u", help="Where the coordinator is: http(s)://..., or nats://host:port[/federation].")
    ] = "http://127.0.0.1:8081",
    length: Annotated[
        int | None, typer.Option("--length", "-l", min=1, help="Length of the models; what the coordinator says if not given.")
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            "--count",
            "-n",
            min=1,
            help="How many participants; of fewer than 20 some rounds draw too few, and 4 are the least.",
        ),
    ] = 20,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            min=1,
            help="The longest model to make; without it, one whose masked vector has 1 GiB. A coordinator decides the length.",
        ),
    ] = None,
    period: Annotated[
        float, typer.Option("--period", "-p", min=0.0, help="Seconds between two looks at the coordinator.")
    ] = 1.0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Go on after errors that do not go away by themselves, such as 404 or a certificate.")
    ] = False,
    rounds: Annotated[int | None, typer.Option("--rounds", min=1, help="End after this number of finished rounds.")] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="How many each participant may use for its masks.")] = 1,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", "-c", metavar="FILE", help="The only authority to trust over https (PEM).")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", "-i", metavar="FILE", help="Certificate and key to appear with (PEM).")
    ] = None,
    coordinator_key: CoordinatorKeyOption = None,
    allow_insecure: AllowInsecureOption = False,
    enrolment: Annotated[
        str | None,
        typer.Option("--enrolment", "-e", metavar="FILE", help="Take part in rounds of pet/1, with the keys in --keys."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys",
            "-k",
            metavar="FOLDER",
            help="Key files (NAME.key) of enrolled participants and members; members keep NAME.state there.",
        ),
    ] = None,
) -> None:
    """Run dummy participants until Ctrl-C, or for some rounds; a coordinator that is away is waited for.

    Example: pet test-drive -u http://127.0.0.1:8081 -n 20 --rounds 3
    """
    console = Console(highlight=False)
    with (
        closing(open_coordinator(url, certificate, identity, coordinator_key, allow_insecure=allow_insecure)) as transport,
        dummy_committee(transport, enrolment, keys, threads) as committee,
    ):
        count = len(committee.signing_keys) or count
        for line in committee.lines:
            console.print(line, soft_wrap=True, markup=False)
        fleet = DummyFleet(
            transport,
            count,
            enrolment=enrolment,
            signing_keys=committee.signing_keys,
            members=committee.members,
            model_length=length,
            period_seconds=period,
            threads=threads,
            max_model_length=max_length,
            waits_for_repair=wait,
        )
        console.print(f"{count} participants for {shown_url(url)}" + ("" if rounds else ", until Ctrl-C"))
        progress = _drive(fleet, rounds, _ProgressPrinter(console, lambda: what_it_waits_for(transport, count)))
    _summarise(console, progress)
    if rounds is not None and progress.rounds_finished < rounds:
        raise typer.Exit(1)  # interrupted before it was done


def _drive(fleet: DummyFleet, rounds: int | None, printer: _ProgressPrinter) -> FleetProgress:
    """Let the fleet take part, and show how far it is."""
    with (
        call_on_stop(fleet.stop),
        _warnings_only_printed(),
        shown_progress("test drive", rounds, "rounds") as shown,
    ):

        def report(progress: FleetProgress) -> None:
            printer(progress)
            shown.describe(f"{progress.messages_delivered} messages")
            shown.update(progress.rounds_finished)

        return fleet.run(rounds, report)


def _summarise(console: Console, progress: FleetProgress) -> None:
    console.print(
        f"{progress.rounds_finished} rounds finished, {progress.rounds_given_up} given up;"
        f" {progress.messages_delivered} messages for {progress.sum_tasks} sum and {progress.update_tasks} update tasks"
        + (f"; {progress.messages_late} more came too late" if progress.messages_late else "")
    )


class _ProgressPrinter:
    """Prints a line when a round ends, when the coordinator goes away or comes back, and when all there is to do is to wait."""

    def __init__(
        self,
        console: Console,
        ask_coordinator: Callable[[], str | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Print to a console.

        Args:
            console: where.
            ask_coordinator: returns what the coordinator waits for, None if it does not say.
            clock: returns seconds that never go back.
        """
        self._console: Final = console
        self._ask_coordinator: Final = ask_coordinator
        self._clock: Final = clock
        self._last = FleetProgress()
        self._quiet_since: float | None = clock()

    def __call__(self, progress: FleetProgress) -> None:
        last, self._last = self._last, progress
        self._tell_quiet(is_quiet=replace(last, sweeps=progress.sweeps) == progress and progress.last_error is None)
        if progress.last_error != last.last_error:
            self._console.print(f"waiting: {progress.last_error}" if progress.last_error else "the coordinator answers")
        if progress.warning_count != last.warning_count:
            self._console.print(f"warning: {progress.last_warning}")
        if progress.rounds_finished != last.rounds_finished:
            late = f", messages that came too late: {progress.messages_late}" if progress.messages_late else ""
            self._console.print(f"rounds finished: {progress.rounds_finished}{late}")
        if progress.rounds_given_up != last.rounds_given_up:
            self._console.print(
                f"rounds given up: {progress.rounds_given_up} (failed, opened anew, or none of us was asked to add up masks)"
            )

    def _tell_quiet(self, *, is_quiet: bool) -> None:
        """Say once that nothing has happened for long: with too few participants nothing ever will."""
        if not is_quiet:
            self._quiet_since = self._clock()
        elif self._quiet_since is not None and self._clock() - self._quiet_since > _QUIET_SECONDS:
            self._quiet_since = None
            reason = self._ask_coordinator() or (
                "If the round does not go on, its coordinator waits for more sum or update participants: try a larger"
                " --count, and look into the coordinator's log"
            )
            self._console.print(
                f"quiet for {_QUIET_SECONDS} s: all have sent what they had to send. {reason}", soft_wrap=True, markup=False
            )


@contextmanager
def _warnings_only_printed() -> Iterator[None]:
    """Keep the fleet's warnings out of the log: they are printed with the progress."""
    logger = logging.getLogger(DummyFleet.__module__)
    earlier = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(earlier)
