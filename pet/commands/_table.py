"""Turn the table of pet/commands/entries.py into a typer application that imports a command only when it is called.

This file knows typer, and no command.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

import pet
from pet.commands.entries import CommandEntry, GroupEntry, extra_of, missing_extra
from pet.log_lines import log_to_standard_error

#: What every error of parsing a command line is: of click, or of the copy of it that newer versions of typer bring. typer
#: exports no more of them than this one grandchild.
_ParserError: Final[type[Any]] = typer.BadParameter.__mro__[2]


class LogLevel(StrEnum):
    """How much pet tells on standard error."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pet {pet.__version__}")
        raise typer.Exit


def _set_log_level(level: LogLevel | None) -> None:
    """Let pet log at this level; other packages only speak up when something is wrong, or everybody with "debug"."""
    log_to_standard_error()
    if level is not None:
        logging.getLogger("pet").setLevel(level.upper())


def _shared_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, expose_value=False, callback=_print_version
        ),
    ] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option("--log-level", help="How much to tell on standard error.", expose_value=False, callback=_set_log_level),
    ] = None,
) -> None:
    """Aggregate model updates without seeing them: a coordinator, participants and tools for the PET protocol.

    Example: pet demo
    """


class _LazyCommand(TyperCommand):
    """Stands for a command in the help of its group; called, it loads the real one and hands over."""

    def __init__(self, name: str, entry: CommandEntry) -> None:
        super().__init__(name=name, help=entry.summary)
        self._entry = entry

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the real command."""
        return self._load().make_context(info_name, args, parent=parent, **extra)

    def _load(self) -> Any:
        try:
            module = importlib.import_module(self._entry.module)
        except ModuleNotFoundError as error:
            raise missing_extra(self._entry.extra, error) from error
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(self.name)(getattr(module, self._entry.function))
        command: Any = typer.main.get_command(app)
        command.params.extend(_shared_parameters())
        return command


def run(entries: Mapping[str, CommandEntry | GroupEntry], arguments: Sequence[str]) -> int:
    """Parse a command line, run its command, return the exit status; Ctrl-C and errors other than of usage come through."""
    try:
        status = _build(entries).main(args=list(arguments), prog_name="pet", standalone_mode=False)
    except ModuleNotFoundError as error:
        raise missing_extra(extra_of(entries, arguments), error) from error
    except _ParserError as error:
        return _misunderstood(error)
    except typer.Abort as abort:
        # Of Ctrl-C at a question, or of the answer no.
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        print("nothing was changed", file=sys.stderr)
        return 1
    # 130 is how typer reports Ctrl-C, and shells: 128 and the number of the signal.
    if status == 130:
        raise KeyboardInterrupt
    return int(status or 0)


def _build(entries: Mapping[str, CommandEntry | GroupEntry]) -> TyperGroup:
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_shared_options)
    group = typer.main.get_group(app)
    _fill(group, entries)
    return group


def _fill(group: Any, entries: Mapping[str, CommandEntry | GroupEntry], words: str = "pet") -> None:
    for name, entry in entries.items():
        if isinstance(entry, CommandEntry):
            group.add_command(_LazyCommand(name, entry))
            continue
        example = f"Example: {words} {name} {next(iter(entry.commands))} --help"
        subgroup = TyperGroup(
            name=name,
            help=f"{entry.summary}\n\n{example}",
            short_help=entry.summary,
            no_args_is_help=True,
            rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"]},
            params=_shared_parameters(),
        )
        _fill(subgroup, entry.commands, f"{words} {name}")
        group.add_command(subgroup)


def _shared_parameters() -> list[Any]:
    """Return --version and --log-level as parameters, so that they may stand after the name of a command too."""
    return [parameter for parameter in _build({}).params if parameter.name in ("version", "log_level")]


def _misunderstood(error: Any) -> int:
    """Say in one line what is wrong with a command line; help that was asked for by giving no command is printed as it is."""
    message = error.format_message()
    if not message or "\n" in message:
        typer.echo(message, nl=bool(message))
        return 2
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "pet"
    print(f"error: {message.rstrip('.')} (see '{command} --help')", file=sys.stderr)
    return 2
