"""`pet federation confirm`: say that a member is who it seems to be, or that all of them are."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.commands.federation_members import print_members
from pet.federation.client.client import Client
from pet.federation.formats.member_list import find_listed, is_fingerprint, shown_fingerprint


def command(
    project: Project,
    key_file: KeyFile,
    member: Annotated[
        str | None, typer.Argument(metavar="MEMBER", help="Its fingerprint; or its name, and the fingerprint is asked about.")
    ] = None,
    code: Annotated[
        str | None, typer.Option("--list", metavar="CODE", help="All members, whose list has this code for all of them.")
    ] = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Confirm members after you compared fingerprints, or the code of the list, by another way than through the admin.

    The admin passes the list on: one that cheats shows you members of its own invention.

    Example: pet federation confirm mine -k bob.key --list 6RYX-2DNO-QW3F-EAUH-7T5M
    """
    if (member is None) == (code is None):
        raise typer.BadParameter("expected one of MEMBER and --list CODE", param_hint="MEMBER")
    with client_of(url, key_file, certificate, compat=compat) as client:
        if code is not None:
            found = client.confirm_list(project, code)
        elif member is not None:
            found = client.confirm(project, _fingerprint(client, project, member))
    print_members(Console(highlight=False, markup=False, soft_wrap=True), project, found)


def _fingerprint(client: Client, project: str, text: str) -> str:
    """Return the fingerprint to confirm; of a name only after the user has agreed to it.

    Raises:
        FederationValueError: there is no such member.
        typer.Abort: the user does not agree, or cannot be asked.
    """
    if is_fingerprint(text):
        return text
    member = find_listed(client.members(project).members, text)
    question = f"Does {member.name} itself call this its fingerprint: {shown_fingerprint(member.fingerprint)}?"
    if not sys.stdin.isatty():
        raise typer.BadParameter("expected a fingerprint, as nobody can be asked about a name here", param_hint="MEMBER")
    typer.confirm(question, abort=True)
    return member.fingerprint
