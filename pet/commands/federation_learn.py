"""`pet federation learn` and `forget`: let the local project learn the rows of a file, or take them out again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from pet.commands.federation_client import DEFAULT_URL, Certificate, Compat, KeyFile, Project, Url, client_of
from pet.commands.terminal_progress import shown_progress
from pet.errors import FederationValueError
from pet.federation.formats.csv_table import CsvTable
from pet.federation.formats.learning_records import Change
from pet.federation.formats.tables import is_parquet

SEPARATORS: Final = {"comma": ",", "semicolon": ";", "tab": "\t"}

File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a heading line, or Parquet (.parquet).")]
Encoding = Annotated[str, typer.Option("--encoding", help="Of a CSV file, for example utf-8, latin-1, cp1252, utf-16.")]
Separator = Annotated[
    str | None,
    typer.Option("--separator", metavar="NAME", help="comma, semicolon or tab; found in the heading if not given."),
]
Decimal = Annotated[str, typer.Option("--decimal", metavar="MARK", help="'.' or ',' in the numbers of a CSV file.")]
Again = Annotated[bool, typer.Option("--again", help="Even if the same rows were learned, or forgotten, already.")]
RequestId = Annotated[
    str | None,
    typer.Option("--request-id", metavar="ID", help="Of an earlier try that got no answer: its rows count once."),
]


def table_of(file: Path, encoding: str, separator: str | None, decimal: str) -> Path | CsvTable:
    """Return the table that a file and the options are.

    Raises:
        FederationValueError: an encoding or a decimal mark that is not supported.
    """
    if separator is not None and separator not in (*SEPARATORS, *SEPARATORS.values()):
        raise typer.BadParameter(f"expected comma, semicolon or tab, got {separator!r}", param_hint="--separator")
    if is_parquet(file):
        return file
    mark = None if separator is None else SEPARATORS.get(separator, separator)
    return CsvTable(file, encoding=encoding, separator=mark, decimal=decimal)


@contextmanager
def naming_file(file: Path) -> Iterator[None]:
    """Put the name of a file before what is wrong with its rows.

    Raises:
        FederationValueError: as it was, with the name.
    """
    try:
        yield
    except FederationValueError as error:
        raise FederationValueError(f"{file}: {error}") from None


def _command(change: Change, done: str, description: str) -> Callable[..., None]:
    """Return a command.

    Args:
        change: what it does with the rows of a file.
        done: the word for it when it is done.
        description: its help text, with an example.
    """

    def command(
        project: Project,
        file: File,
        key_file: KeyFile,
        encoding: Encoding = "utf-8",
        separator: Separator = None,
        decimal: Decimal = ".",
        again: Again = False,
        request_id: RequestId = None,
        url: Url = DEFAULT_URL,
        certificate: Certificate = None,
        compat: Compat = False,
    ) -> None:
        with client_of(url, key_file, certificate, compat=compat) as client:
            call = client.learn if change is Change.LEARN else client.forget
            with naming_file(file), shown_progress(str(change), _about_rows(file), "rows") as progress:
                table = table_of(file, encoding, separator, decimal)
                count = call(project, table, progress=progress.update, again=again, request_id=request_id)
            counts = client.row_counts(project)
        typer.echo(f"{project} {done} {count} rows; it has {counts['learned']}, of which the others hold {counts['shared']}")
        if (held := counts["heldBack"]) is not None:
            what = "what was forgotten is pending" if held["forgets"] else "held back"
            typer.echo(f"{what}: {held['rows']} rows of {held['least']} that are needed before the others see a change")

    command.__doc__ = description
    return command


learn: Final = _command(
    Change.LEARN,
    "learned",
    """Let the local project of a peer learn the rows of a file, whole or not at all. They stay on its server.

    Example: pet federation learn mine rows.csv -k bob.key
    """,
)
forget: Final = _command(
    Change.FORGET,
    "forgot",
    """Take the rows of a file out of the local project of a peer again; the others see it after the next synchronisation.

    Example: pet federation forget mine rows.csv -k bob.key
    """,
)


def _about_rows(file: Path) -> int | None:
    """Return about how many rows a file has, to say how much is left: counted where that is quick, and not parsed."""
    if not sys.stderr.isatty():
        return None  # nobody looks
    if is_parquet(file):
        with suppress(ImportError, OSError, ValueError):  # what is wrong with it is said when it is read
            import pyarrow.parquet

            return int(pyarrow.parquet.read_metadata(file).num_rows)
        return None
    with suppress(OSError), file.open("rb") as lines:
        return sum(block.count(b"\n") for block in iter(lambda: lines.read(1 << 20), b""))
    return None
