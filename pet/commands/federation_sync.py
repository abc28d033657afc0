"""`pet federation sync`: synchronise outside the schedule, and see it through if asked."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.commands.terminal_progress import shown_progress
from pet.errors import FederationUnavailableError
from pet.federation.client.client import Client

_POLL_SECONDS: Final = 0.3
#: How lines of the sync log begin that end a synchronisation; others report members and changes.
_ENDS: Final = ("Sync completed", "Nothing new")
#: How lines of the error log begin that end one.
_REFUSALS: Final = ("Sync refused", "Sync failed")


def command(
    project: Project,
    key_file: KeyFile,
    wait: Annotated[
        float | None, typer.Option("--wait", "-w", metavar="SECONDS", min=0.0, help="Wait up to this long for it to be done.")
    ] = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Ask all pulsing peers to synchronise now, outside the schedule.

    Example: pet federation sync mine -k bob.key --wait 60
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        before = _outcomes(client, project)
        client.sync_now(project)
        if wait is None:
            typer.echo(f"the request is on its way; the result shows in `pet federation status {project}`")
            return
        with shown_progress("waiting for the synchronisation"):
            outcome = _wait(client, project, before, wait)
        typer.echo(outcome)


def _outcomes(client: Client, project: str) -> tuple[list[str], list[str]]:
    """Return the lines of both logs that say how a synchronisation ended."""
    ends = [line for line in client.sync_log(project) if line.startswith(_ENDS)]
    return ends, [line for line in client.error_log(project) if line.startswith(_REFUSALS)]


def _wait(client: Client, project: str, before: tuple[list[str], list[str]], seconds: float) -> str:
    """Return the first new line of the sync log that says how it ended.

    Raises:
        FederationUnavailableError: it was refused or failed, with the reason; or nothing came in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ends, refusals = _outcomes(client, project)
        if ends and ends[-1:] != before[0][-1:]:
            return ends[-1]
        if refusals and refusals[-1:] != before[1][-1:]:
            raise FederationUnavailableError(f"{project}: expected a merge, got: {refusals[-1]}")
        time.sleep(_POLL_SECONDS)
    errors = client.error_log(project)
    reason = errors[-1] if errors else "nothing in the error log"
    raise FederationUnavailableError(f"{project}: expected a merge within {seconds:g} s, got: {reason}")
