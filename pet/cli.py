"""The command `pet`: runs one command line, and ends with what all commands have in common: an exit status.

Nothing is imported before it is needed, so `pet --help` and `pet --version` are quick and need no extra but `cli` (the version
not even that). The table of commands is pet/commands/entries.py; this file knows no command.

Exit status: 0 done, 1 failed, 2 called in a way that the command does not understand, 130 interrupted by Ctrl-C (servers end
with 0 then: it is how they are ended).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import pet
from pet.commands.entries import COMMANDS, extra_of, missing_extra
from pet.errors import PetError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command line; errors become one line on standard error.

    Returns:
        The exit status.
    """
    if list(arguments) == ["--version"]:
        print(f"pet {pet.__version__}")
        return 0
    try:
        try:
            from pet.commands import _table
        except ModuleNotFoundError as error:
            raise missing_extra(extra_of(COMMANDS, arguments), error) from error
        return _table.run(COMMANDS, arguments)
    except PetError as error:
        return _fail(str(error))
    except KeyboardInterrupt:  # at any moment: while a command is only being imported, too
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit as end:
        # So the libraries for output end a process whose reader has read enough, as in `pet --help | head`.
        if isinstance(end.__context__, BrokenPipeError):
            return _stop_printing()
        raise
    except BrokenPipeError as error:
        if error.filename is not None:
            raise
        return _stop_printing()
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"{where}{error.strerror or error}")


def _stop_printing() -> int:
    """Give the interpreter somewhere to flush what nobody reads, and call it a success."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - open until the process ends
    return 0


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 1
