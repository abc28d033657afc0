"""Lines of a log that each event has one of, whatever the bytes of a peer in it say.

For the programs of pet; an application that embeds pet can give its handlers a `LineFormatter` too. Knows `logging` only.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from pet.shown import escape_controls

_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_INDENT: Final = "    "


class LineFormatter(logging.Formatter):
    """Formats a record as one line without control characters, and a traceback as indented lines below it."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Return the line."""
        return escape_controls(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's
        """Return a traceback; no line of it can be taken for a line of the log."""
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's
        """Return a stack in the same form."""
        return _indented(super().formatStack(stack_info))


def log_to_standard_error() -> None:
    """Let the program log in such lines, what is a warning or more, unless that was set up before."""
    if logging.root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def _indented(text: str) -> str:
    return "\n".join(_INDENT + escape_controls(line, keeps="\t") for line in text.split("\n"))
