"""`pet key new` and `pet key show`: the key that a coordinator signs its answers with; only its public key is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet.coordinator.key_file import create_key_file, read_key_file


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the key; only its owner can read it.")],
) -> None:
    """Make a key for a coordinator. Its public key is printed: participants are given it, by another way than the coordinator.

    The coordinator gets the file as service.coordinator_key. Each coordinator has a key of its own.

    Example: pet key new coordinator.key
    """
    typer.echo(create_key_file(file).public_key.hex())


def show(file: Annotated[Path, typer.Argument(metavar="FILE", help="What `pet key new` made.")]) -> None:
    """Print the public key of a key file, as --coordinator-key and coordinator_key= take it.

    Example: pet key show coordinator.key
    """
    typer.echo(read_key_file(file).public_key.hex())
