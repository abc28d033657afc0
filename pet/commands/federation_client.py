"""What the commands of a federation's client have in common: where the server is, and whose key signs.

Every command takes the same three options; a key is read from a file that only its owner can read, never from the command line,
where other users of the machine would see it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pet.errors import SettingsError
from pet.federation.client.client import Client
from pet.secret import Secret

DEFAULT_URL: Final = "http://127.0.0.1:8090"
PASSWORD_VARIABLE: Final = "PET_FEDERATION_PASSWORD"  # noqa: S105  the name of a variable

#: Credentials of the broker come from the environment: other users of a machine see command lines.
_CREDENTIALS: Final = {
    "nats_sec_passwd": "PET_NATS_PASSWORD",
    "nats_sec_token": "PET_NATS_TOKEN",
    "nats_sec_nkey_seed": "PET_NATS_NKEY_SEED",
}

Url = Annotated[str, typer.Option("--url", "-u", envvar="PET_FEDERATION_URL", help="Where the federation server is.")]
KeyFile = Annotated[
    Path,
    typer.Option(
        "--key-file",
        "-k",
        envvar="PET_FEDERATION_KEY_FILE",
        metavar="FILE",
        help="User and key, from `pet federation user add`.",
    ),
]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", "-c", metavar="FILE", help="The only authority to trust over https (PEM).")
]
Compat = Annotated[bool, typer.Option("--compat", help="Speak the vendor's formats, which are weak.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A further key, for example fed_local_type=gpu.")
]
NatsUser = Annotated[str | None, typer.Option("--nats-user", help="User of the broker; the password is in PET_NATS_PASSWORD.")]
PeerName = Annotated[
    str | None,
    typer.Option("--peer-name", metavar="NAME", help="What the other members call this peer; the project's name if not given."),
]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the federated project on its server.")]


@contextmanager
def client_of(url: str, key_file: Path, certificate: Path | None, *, compat: bool) -> Iterator[Client]:
    """Yield the client that the options describe.

    Raises:
        SettingsError: the key file cannot be used.
        FederationError: the URL cannot be used; and whatever the calls raise.
    """
    with Client.from_key_file(url, key_file, authority=certificate, compat=compat) as client:
        yield client


def read_text(path: Path) -> str:
    """Return the text of a file that an option names.

    Raises:
        SettingsError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: expected UTF-8, got another byte at offset {error.start}") from None


def read_settings(texts: list[str] | None) -> dict[str, Any]:
    """Return the keys and values of all `--set`; the last one of a key counts.

    Raises:
        typer.BadParameter: one has no equals sign.
    """
    settings = {}
    for text in texts or []:
        key, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"expected KEY=VALUE, got {key!r}", param_hint="--set")
        settings[key] = value
    return settings


def read_password(path: Path | None) -> Secret:
    """Return the password of an invitation: from a file, the environment, or a question without an echo.

    Raises:
        SettingsError: the file is empty.
    """
    if path is None:
        return Secret(os.environ.get(PASSWORD_VARIABLE) or typer.prompt("Password of the invitation", hide_input=True))
    text = read_text(path).strip()
    if not text:
        raise SettingsError(f"{path}: expected the password of an invitation, got an empty file")
    return Secret(text)


def broker_credential(user: str | None) -> dict[str, str]:
    """Return the keys of the broker's credential: a user from an option, secrets from the environment."""
    found = {key: os.environ[variable] for key, variable in _CREDENTIALS.items() if variable in os.environ}
    return found if user is None else {**found, "nats_sec_user": user}
