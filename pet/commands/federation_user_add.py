"""`pet federation user add`: a new user of a federation server, and the key to sign with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pet.errors import SettingsError
from pet.federation.formats.users import add_user, write_key_file


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '_', '.', '-'.")],
    users: Annotated[
        Path, typer.Option("--users", metavar="FILE", help="The users' file of the server; made if it is absent.")
    ] = Path("users.json"),
    key_file: Annotated[
        Path | None, typer.Option("--key-file", "-k", metavar="FILE", help="Where the user's key goes; NAME.key if not given.")
    ] = None,
) -> None:
    """Add a user to a federation server, also while it runs. The key goes to a file for the user; it is shown nowhere.

    Example: pet federation user add alice --users users.json --key-file alice.key
    """
    target = key_file or Path(f"{name}.key")
    if target.exists():
        raise SettingsError(f"{target}: expected a new file for the key, got one that exists")
    write_key_file(target, name, add_user(users, name))
    typer.echo(f"{name} is a user in {users}; the key is in {target}")
