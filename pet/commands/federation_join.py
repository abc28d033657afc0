"""`pet federation join`: become a peer of a federation with an invitation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pet.commands.federation_client import (
    DEFAULT_URL,
    Certificate,
    Compat,
    KeyFile,
    PeerName,
    Project,
    Settings,
    Url,
    client_of,
    read_password,
    read_settings,
    read_text,
)
from pet.commands.federation_members import print_members
from pet.commands.federation_status import print_schema
from pet.commands.terminal_progress import shown_progress


def command(
    project: Project,
    invitation: Annotated[Path, typer.Argument(metavar="FILE", help="The invitation.")],
    key_file: KeyFile,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", "-p", metavar="FILE", help="Its password; PET_FEDERATION_PASSWORD or asked for if not given."
        ),
    ] = None,
    admin_key: Annotated[
        str | None, typer.Option("--admin-key", help="For an invitation without password: the admin's public signing key.")
    ] = None,
    name: PeerName = None,
    accept_contracts: Annotated[
        bool, typer.Option("--accept-contracts", help="Let contracts that the admin changes count without asking.")
    ] = False,
    least_rows: Annotated[
        int | None,
        typer.Option("--least-rows", min=1, help="Share from this many rows on; features + 5 if not given. Fewer show more."),
    ] = None,
    nats_hosts: Annotated[
        str | None, typer.Option("--nats-hosts", help="This peer's own way to the broker; the invitation's if not given.")
    ] = None,
    setting: Settings = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Join a federation; PROJECT is the new name of the federated project on this user's server.

    Example: pet federation join mine bob.invitation -k bob.key -p bob.password
    """
    own = read_settings(setting) | ({} if nats_hosts is None else {"nats_hosts": nats_hosts})
    password = None if admin_key is not None else read_password(password_file)
    if name is not None:
        own["fed_peer_name"] = name
    with client_of(url, key_file, certificate, compat=compat) as client:
        with shown_progress("waiting for the broker and the admin"):
            client.join(
                project,
                read_text(invitation).strip(),
                password,
                admin_key=admin_key,
                accept_contracts=accept_contracts,
                least_rows=least_rows,
                **own,
            )
        found, info = client.members(project), client.info(project)
    typer.echo(f"{project} is a peer now; let it learn rows, then start its pulse. The members are:")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    print_members(console, project, found)
    print_schema(console, info)
