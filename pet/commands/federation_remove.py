"""`pet federation remove`: remove another peer, as the admin."""

from __future__ import annotations

from typing import Annotated

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of


def command(
    project: Project,
    peer: Annotated[str, typer.Argument(metavar="UUID", help="Which one, as `pet federation status` shows it.")],
    key_file: KeyFile,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Remove a peer, as the admin; the rest get a new federation key, and open invitations become worthless.

    Example: pet federation remove admin 0123456789abcdef0123456789abcdef -k alice.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.remove_peer(project, peer)
    typer.echo(f"{peer} is removed")
