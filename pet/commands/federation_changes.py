"""`pet federation start`, `stop`, `leave` and `delete`: one request about one project each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Final

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.errors import SettingsError
from pet.federation.client.client import Client

Command = Callable[..., None]


def _command(request: Callable[[Client, str], object], outcome: str, description: str) -> Command:
    """Return a command.

    Args:
        request: what it asks the server to do with a project.
        outcome: what it prints then, with `{project}`.
        description: its help text, with an example.
    """

    def command(
        project: Project,
        key_file: KeyFile,
        url: Url = DEFAULT_URL,
        certificate: Certificate = None,
        compat: Compat = False,
    ) -> None:
        with client_of(url, key_file, certificate, compat=compat) as client:
            request(client, project)
        typer.echo(outcome.format(project=project))

    command.__doc__ = description
    return command


start: Final = _command(
    Client.start_pulse,
    "{project} pulses",
    """Let a peer pulse: it sends at each tick of the schedule, and merges what comes.

    Example: pet federation start mine -k bob.key
    """,
)
stop: Final = _command(
    Client.stop_pulse,
    "{project} does not pulse",
    """Let a peer stop pulsing; what it has learned stays.

    Example: pet federation stop mine -k bob.key
    """,
)


def _asking(change: Command, question: str) -> Command:
    """Return a command that asks before it makes a change that cannot be taken back."""

    def command(
        project: Project,
        key_file: KeyFile,
        url: Url = DEFAULT_URL,
        certificate: Certificate = None,
        compat: Compat = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    ) -> None:
        if not yes:
            if not sys.stdin.isatty():
                raise SettingsError("expected --yes, or a terminal to ask on: this cannot be taken back")
            typer.confirm(question.format(project=project), abort=True, err=True)
        change(project, key_file, url, certificate, compat)

    command.__doc__ = change.__doc__
    return command


_leave: Final = _command(
    Client.leave,
    "{project} left its federation",
    """Leave a federation; the project is gone from this server afterwards. The admin cannot leave, only delete.

    Example: pet federation leave mine -k bob.key
    """,
)
leave: Final = _asking(_leave, "{project} loses all rows that it learned, and can only come back with a new invitation. Leave?")
_delete: Final = _command(
    Client.delete,
    "the federation of {project} has ended",
    """End a federation for everybody, as its admin; its streams at the broker are removed.

    Example: pet federation delete admin -k alice.key
    """,
)
delete: Final = _asking(_delete, "The federation of {project} ends for all its members, and cannot be begun again. Delete?")
