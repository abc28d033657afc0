"""`pet federation status`: how a federated project is doing, or which ones there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Url, client_of
from pet.commands.federation_members import print_members
from pet.federation.client.client import Client
from pet.federation.records import ProjectKind
from pet.federation.statistics.schema import Schema

#: The last lines of each log say what is going on; all of it is in getSyncLog and getErrorLog.
_LOG_LINES: Final = 5
#: Names of features that are shown; the schema has all of them.
_FEATURES: Final = 12


def command(
    key_file: KeyFile,
    project: Annotated[
        str | None, typer.Argument(metavar="PROJECT", help="Which one; without it the names of all, and this server's key.")
    ] = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Show a federated project: members, pulse, counts, and the end of its logs.

    Example: pet federation status mine -k bob.key
    """
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with client_of(url, key_file, certificate, compat=compat) as client:
        if project is not None:
            _show(client, project, console)
            return
        console.print(f"Key for invitations without password: {client.join_key()}")
        names = client.projects()
        console.print("\n".join(names) if names else "No projects yet.")


def _show(client: Client, project: str, console: Console) -> None:
    info, counts = client.info(project), client.statistics(project)
    role = "admin" if info["fed_is_admin"] == "true" else "peer"
    console.print(
        f"{project}: {role} of {info['fed_name']} ({info['fed_mode']}), {'pulsing' if info['is_pulsing'] else 'not pulsing'}"
    )
    how = "rounds of pet/1" if info["fed_use_smpc"] == "true" else "plain exchange"
    console.print(f"schedule {info['sync_sched']}, {how}, broker {info['nats_hosts']}: {info['nats_state']}")
    for warning in info.get("fed_warnings", []):
        console.print(f"warning: {warning}")
    if (proposed := client.contract(project)["proposed"]) is not None:
        console.print(
            f"change {proposed['number']} of the contract waits for your consent (pet federation accept-contract {project})"
        )
    print_members(console, project, client.members(project))
    if info["fed_project_kind"] == ProjectKind.STATISTICS:
        print_schema(console, info)
        _show_rows(client, project, console)
    console.print(f"sent {counts['sndCount']}, received {counts['rcvCount']}, receive errors {counts['rcvError']}")
    for title, lines in (("sync log", counts["syncLog"]), ("error log", counts["errorLog"])):
        for line in lines[-_LOG_LINES:]:
            console.print(f"{title}: {line}")


def print_schema(console: Console, info: Mapping[str, Any]) -> None:
    """Print what the admin says that rows are like, and how many have to leave a peer together; nothing where it has not yet.

    No invitation says it, so a person has to see whether it is what was spoken of. Peers with different ones merge nothing.
    """
    if "fed_schema" not in info:
        return
    schema = Schema.from_json(info["fed_schema"])
    shown = ", ".join(schema.names[:_FEATURES]) + (", ..." if len(schema) > _FEATURES else "")
    least = f"at least {schema.least_rows} rows leave a peer together, unless it lowers that"
    console.print(f"{len(schema)} features: {shown}; {least}")


def _show_rows(client: Client, project: str, console: Console) -> None:
    rows = client.row_counts(project)
    console.print(f"rows {rows['learned']} in {rows['tables']} tables, of which the others hold {rows['shared']}")
    if (held := rows["heldBack"]) is not None:
        forgets = "; what was forgotten is still in what the others hold (stop withdraws this peer)" if held["forgets"] else ""
        console.print(f"held back: {held['rows']} rows of {held['least']}{forgets}")
    for unit in rows["pending"]:
        console.print(
            f"  unfinished: {unit['rows']} rows to {unit['change']} in {unit['pieces']} pieces, "
            f"idle for {unit['idleSeconds']:.0f} s, request {unit['request']}"
        )
