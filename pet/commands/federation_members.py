"""`pet federation members`: who belongs to a federation, and the code by which people see that they mean the same list."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.federation.formats.member_list import shown_fingerprint
from pet.federation.records import Confirm, MemberList, MemberState


def command(
    project: Project,
    key_file: KeyFile,
    code: Annotated[bool, typer.Option("--code", help="Print the code of the list alone.")] = False,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Show the members of a federation, whom of them this peer has confirmed, and the code of the whole list.

    Compare the code with each of them, by another way than through the admin, then `pet federation confirm`.

    Example: pet federation members mine -k bob.key
    """
    with client_of(url, key_file, certificate, compat=compat) as client:
        found = client.members(project)
    if code:
        typer.echo(found.code)
    else:
        print_members(Console(highlight=False, markup=False, soft_wrap=True), project, found)


def print_members(console: Console, project: str, found: MemberList) -> None:
    """Print a list, its code, and what is to be done about it."""
    width = max(len(member.name) for member in found.members)
    for member in found.members:
        console.print(f"  {member.name:{width}}  {shown_fingerprint(member.fingerprint)}  {_state(member, found.confirm)}")
    console.print(f"Code of the list: {found.code}")
    if found.confirm is Confirm.ADMIN:
        console.print("The admin's word is taken for who is a member: one that cheats can invent members, and read this peer.")
    elif any(not member.is_confirmed for member in found.members):
        console.print(
            "Unconfirmed members take part in nothing with this peer. Compare the code with each member, by another way than "
            f"through the admin, then: pet federation confirm {project} --list CODE"
        )


def _state(member: MemberState, confirm: Confirm) -> str:
    if member.is_this:
        state = "this peer"
    elif confirm is Confirm.ADMIN:
        state = "as the admin says"
    else:
        state = "confirmed" if member.is_confirmed else "unconfirmed"
    return f"{state}, admin" if member.is_admin else state
