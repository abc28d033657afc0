"""`pet federation invite`: an invitation for one future peer, and its password, in two files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.errors import SettingsError
from pet.files import write_private


def command(
    project: Project,
    key_file: KeyFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the invitation goes.")],
    password_file: Annotated[
        Path | None,
        typer.Option("--password-file", "-p", metavar="FILE", help="Where its password goes; FILE.password if not given."),
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", help="How long it can be used; 2 if not given.")] = None,
    peer_key: Annotated[
        str | None, typer.Option("--peer-key", help="The future peer's key instead of a password (`pet federation status`).")
    ] = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Make an invitation. It works once. Send it and its password by two different channels.

    Example: pet federation invite admin -k alice.key -o bob.invitation -p bob.password
    """
    secret_target = password_file or output.with_name(f"{output.name}.password")
    for path in (output, secret_target):
        if path.exists():
            raise SettingsError(f"{path}: expected a new file, got one that exists")
    with client_of(url, key_file, certificate, compat=compat) as client:
        text, password = client.invite(project, lifespan_hours=hours, peer_key=peer_key)
    write_private(output, text + "\n")
    if password is None:
        typer.echo(f"the invitation is in {output}; only the holder of that key can open it")
        return
    write_private(secret_target, password.reveal() + "\n")
    typer.echo(f"the invitation is in {output}, its password in {secret_target}")
