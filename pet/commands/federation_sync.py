"""`pet federation sync`: synchronise outside the schedule, and see it through if asked."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.errors import FederationUnavailableError
from pet.federation.client import Client

_POLL_SECONDS: Final = 0.3
#: How a line of the sync log begins that tells of a merge; others tell of members and changes.
_SUCCESS: Final = "Sync completed"


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
        merged, failed = _merges(client, project), client.error_log(project)
        client.sync_now(project)
        if wait is None:
            typer.echo(f"the request is on its way; the result shows in `pet federation status {project}`")
            return
        typer.echo(_wait(client, project, (merged, failed), wait))


def _merges(client: Client, project: str) -> list[str]:
    return [line for line in client.sync_log(project) if line.startswith(_SUCCESS)]


def _wait(client: Client, project: str, before: tuple[list[str], list[str]], seconds: float) -> str:
    """Return the first new line of the sync log that tells of a merge.

    Raises:
        FederationUnavailableError: none came in time; with what the error log says by then.
    """
    merged, failed = before
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (now := _merges(client, project)) and now[-1:] != merged[-1:]:
            return now[-1]
        time.sleep(_POLL_SECONDS)
    errors = client.error_log(project)
    reason = errors[-1] if errors[-1:] != failed[-1:] else "nothing in the error log"
    raise FederationUnavailableError(f"{project}: expected a merge within {seconds:g} s, got: {reason}")
