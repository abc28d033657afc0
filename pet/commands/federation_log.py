"""`pet federation log`: what happened to a federated project, and what went wrong."""

from __future__ import annotations

from typing import Annotated

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of


def command(
    project: Project,
    key_file: KeyFile,
    errors: Annotated[bool, typer.Option("--errors", "-e", help="The error log alone.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many lines of each log at most.")] = 50,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Print the logs of a federated project, oldest line first: what was merged, and why something was not.

    Example: pet federation log mine -k bob.key --lines 20
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        logs = [("error", client.error_log(project))]
        if not errors:
            logs.insert(0, ("sync", client.sync_log(project)))
    for name, found in logs:
        for line in found[-lines:]:
            typer.echo(f"{name}: {line}")
        if not found:
            typer.echo(f"{name}: no lines yet")
