"""`pet federation learn`: let the local project learn rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of


def command(
    project: Project,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a heading line; empty fields are missing values.")],
    key_file: KeyFile,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Let the local project of a peer learn the rows of a CSV file with a heading line. They stay on its server.

    Example: pet federation learn mine rows.csv -k bob.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        count = client.learn(project, file)
    typer.echo(f"{project} learned {count} rows")
