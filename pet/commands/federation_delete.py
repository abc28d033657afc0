"""`pet federation delete`: end a federation for everybody."""

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
    """End a federation for everybody, as its admin; its streams at the broker are removed.

    Example: pet federation delete admin -k alice.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.delete(project)
    typer.echo(f"the federation of {project} has ended")
