"""`pet federation accept-contract`: let a contract that the admin changed count at this peer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of


def command(
    project: Project,
    key_file: KeyFile,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept what is printed, without a question.")] = False,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Show the contract that waits for consent, and accept it: from then on it decides what this peer sends and merges.

    Example: pet federation accept-contract mine -k bob.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        proposed = client.contract(project)["proposed"]
        if proposed is None:
            typer.echo(f"{project}: no change of the contract waits for consent")
            return
        typer.echo("\n".join(proposed["lines"]) or "(no lines: everything is sent and merged)")
        if not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("expected --yes, as nobody can be asked here", param_hint="--yes")
            typer.confirm("Shall this contract count?", abort=True)
        client.accept_contract(project, proposed["number"])
    typer.echo(f"{project} follows change {proposed['number']} of the contract")
