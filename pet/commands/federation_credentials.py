"""`pet federation credentials`: another credential of the broker for a peer that exists."""

from __future__ import annotations

from typing import Annotated

import typer

from pet.commands.federation_client import (
    DEFAULT_URL,
    Certificate,
    Compat,
    KeyFile,
    NatsUser,
    Project,
    Url,
    broker_credential,
    client_of,
)


def command(
    project: Project,
    key_file: KeyFile,
    nats_user: NatsUser = None,
    nats_hosts: Annotated[
        str | None, typer.Option("--nats-hosts", help="Where the broker is from now on; as before if not given.")
    ] = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Give a peer another credential of the broker: PET_NATS_PASSWORD, PET_NATS_TOKEN or PET_NATS_NKEY_SEED.

    One that the broker refuses changes nothing. Invitations that the admin makes afterwards carry the new one.

    Example: pet federation credentials mine -k bob.key --nats-user federation
    """
    options = broker_credential(nats_user) | ({} if nats_hosts is None else {"nats_hosts": nats_hosts})
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.set_credentials(project, **options)
        state = client.info(project)["nats_state"]
    typer.echo(f"{project} has a new credential of the broker: {state}")
