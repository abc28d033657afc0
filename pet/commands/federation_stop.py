"""`pet federation stop`: stop a peer from taking part."""

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
    """Let a peer stop pulsing; what it has learned stays.

    Example: pet federation stop mine -k bob.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.stop_pulse(project)
    typer.echo(f"{project} does not pulse")
