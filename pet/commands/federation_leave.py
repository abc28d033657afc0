"""`pet federation leave`: leave a federation."""

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
    """Leave a federation; the project is gone from this server afterwards. The admin cannot leave, only delete.

    Example: pet federation leave mine -k bob.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.leave(project)
    typer.echo(f"{project} left its federation")
