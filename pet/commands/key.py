"""`pet key new` and `pet key show`: the key of a coordinator, or of who is enrolled; only its public key is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet.coordinator.key_file import create_key_file, read_key_file


def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file for the key; only its owner can read it.")],
) -> None:
    """Make a key for a coordinator, or for a member, a participant or the authority of pet/1. Its public key is printed.

    A coordinator gets the file as service.coordinator_key; participants are given the public key, by another way than the
    coordinator. Each has a key of its own.

    Example: pet key new coordinator.key
    """
    typer.echo(create_key_file(file).public_key.hex())


def show(file: Annotated[Path, typer.Argument(metavar="FILE", help="What `pet key new` made.")]) -> None:
    """Print the public key of a key file, as --coordinator-key and coordinator_key= take it.

    Example: pet key show coordinator.key
    """
    typer.echo(read_key_file(file).public_key.hex())
