"""`pet federation remove`: remove another peer, as the admin."""

from __future__ import annotations

from typing import Annotated

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of


def command(
    project: Project,
    member: Annotated[
        str, typer.Argument(metavar="MEMBER", help="Its name, fingerprint or uuid, as `pet federation members` shows it.")
    ],
    key_file: KeyFile,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Remove a peer, as the admin; the rest get a new federation key, and open invitations become worthless.

    Example: pet federation remove admin practice -k alice.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.remove_peer(project, member)
    typer.echo(f"{member} is removed")
