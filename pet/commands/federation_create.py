"""`pet federation create`: begin a federation, as its admin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from pet.commands.federation_client import (
    DEFAULT_URL,
    Certificate,
    Compat,
    KeyFile,
    NatsUser,
    PeerName,
    Project,
    Settings,
    Url,
    broker_credential,
    client_of,
    read_settings,
    read_text,
)
from pet.commands.federation_learn import Decimal, Encoding, Separator, naming_file, table_of
from pet.federation.formats.csv_table import CsvTable
from pet.federation.formats.tables import read_columns
from pet.federation.statistics.schema import Schema


def command(
    project: Project,
    key_file: KeyFile,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the federation, for people.")],
    nats_hosts: Annotated[str, typer.Option("--nats-hosts", help="URL of the broker, or several with commas between.")],
    schedule: Annotated[str, typer.Option("--schedule", "-s", help="m30, h3, d7: every 30 minutes, 3 hours, 7 days.")] = "h1",
    schema: Annotated[
        Path | None, typer.Option("--schema", metavar="FILE", help="Features, ranges and histogram edges (JSON).")
    ] = None,
    schema_from: Annotated[
        Path | None,
        typer.Option(
            "--schema-from",
            metavar="FILE",
            help="CSV or Parquet to propose features and ranges from; the others will see them.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option("--features", metavar="NAMES", help="Columns of --schema-from to use, with commas between; else all."),
    ] = None,
    encoding: Encoding = "utf-8",
    separator: Separator = None,
    decimal: Decimal = ".",
    nats_user: NatsUser = None,
    peer_name: PeerName = None,
    setting: Settings = None,
    url: Url = DEFAULT_URL,
    certificate: Certificate = None,
    compat: Compat = False,
) -> None:
    """Begin a federation. Credentials of the broker: PET_NATS_PASSWORD, PET_NATS_TOKEN or PET_NATS_NKEY_SEED.

    Example: pet federation create admin -k alice.key --name Hospitals --nats-hosts nats://127.0.0.1:4222 -s m1
    """
    options: dict[str, Any] = read_settings(setting)
    options |= broker_credential(nats_user)
    if peer_name is not None:
        options["fed_peer_name"] = peer_name
    table = None if schema_from is None else table_of(schema_from, encoding, separator, decimal)
    text = _schema_text(schema, schema_from, table, None if features is None else features.split(","))
    if text is not None:
        options["fed_schema"] = text
    with client_of(url, key_file, certificate, compat=compat) as client:
        client.create(project, name, nats_hosts=nats_hosts, schedule=schedule, **options)
    typer.echo(f"{project} is the admin's project of the federation {name}")


def _schema_text(
    schema: Path | None, schema_from: Path | None, table: Path | CsvTable | None, features: Sequence[str] | None
) -> str | None:
    if schema is not None and schema_from is not None:
        raise typer.BadParameter("expected one of --schema and --schema-from, got both", param_hint="--schema")
    if schema is not None:
        return read_text(schema)
    if schema_from is None or table is None:
        return None
    with naming_file(schema_from):
        return propose_schema(table, features)


def propose_schema(table: Path | CsvTable, features: Sequence[str] | None = None) -> str:
    """Return the JSON text of a schema for the rows of a file.

    Args:
        table: the file.
        features: the columns to use; all that have a name if not given.

    Raises:
        FederationValueError: the file is malformed, or a column is no feature; with line and column. Or there are no rows.
        OSError: the file cannot be read.
    """
    names, values = read_columns(table, features)
    return Schema.propose(names, values, has_missing=bool(np.isnan(values).any())).to_json()
