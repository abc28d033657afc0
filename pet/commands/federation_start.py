"""`pet federation start`: let a peer take part in synchronisations."""

from __future__ import annotations

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of


def command(
    project: Project,
    key_file: KeyFile,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Let a peer pulse: it sends at each tick of the schedule, and merges what comes.

    Example: pet federation start mine -k bob.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.start_pulse(project)
    typer.echo(f"{project} pulses")
