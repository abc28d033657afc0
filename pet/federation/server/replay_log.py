"""What was taken once, in a file beside the store, so that nothing signed counts again after a restart.

Each id is written before what carries it is acted on: a killed server forgets none. They are synchronised once a second at
most, as doing so for each request would cost more than most requests; a loss of power can lose the ids of the last second.

Two files in turn: one that has been written for as long as ids count is left alone, and the other, whose ids count no longer,
is begun anew. A line is one id. One that a crash cut off is removed: nothing was acted on. Any other that cannot be read is
damage: what it named could be repeated, so it is reported and counted, and the server goes on. Both are for their owner only.

Knows no request and no message. One thread at a time.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pet.errors import StorageError
from pet.federation.formats.replay_guard import MEMORY_SECONDS, Known, ReplayGuard
from pet.files import open_private, shown_fault, sync_data

_logger: Final = logging.getLogger(__name__)

_NAMES: Final = ("taken-0.jsonl", "taken-1.jsonl")
_SYNC_SECONDS: Final = 1.0


class ReplayLog:
    """The ids of a server, for all who remember some.

    Args:
        folder: where the files are, made before; None keeps the ids in memory.
        clock: Unix seconds, as of those who remember.

    Raises:
        StorageError: a file cannot be used.

    Attributes:
        damaged_count: lines that could not be read when the files were opened.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float]) -> None:
        self._guards: Final[dict[str, ReplayGuard]] = {}
        self._known: Final[dict[str, list[Known]]] = defaultdict(list)
        self._paths: Final = [] if folder is None else [folder / name for name in _NAMES]
        self._files: list[io.FileIO] = []
        self._present = 0
        self.damaged_count = 0
        #: When the present file was begun; when it was synchronised last.
        self._begun_seconds = self._synced_seconds = clock()
        try:
            for path in self._paths:
                self._files.append(io.FileIO(open_private(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+"))
            self._load(clock())
        except OSError as error:
            self.close()
            raise StorageError(shown_fault(error, self._paths[0], "a file for what was taken")) from None

    def guard(self, name: str, max_ids: int) -> ReplayGuard:
        """Return what remembers ids under a name; the same one each time."""
        if name not in self._guards:
            note = (lambda known: self._note(name, known)) if self._files else None
            self._guards[name] = ReplayGuard(max_ids, known=self._known.pop(name, ()), note=note)
        return self._guards[name]

    def close(self) -> None:
        """Close the files. Calling it twice does no harm."""
        for file in self._files:
            file.close()

    def _load(self, now_seconds: float) -> None:
        begun = [-1.0] * len(self._files)
        found: list[tuple[str, Known]] = []
        for index, file in enumerate(self._files):
            file.seek(0)
            data = file.read()
            whole, end, cut_off = data.rpartition(b"\n")
            if cut_off:
                file.truncate(len(whole + end))
            lines, damaged = _parse(whole)
            if damaged:
                text = "%s: %d of %d lines are damaged: requests that they named, of the last %g s, could be taken again"
                _logger.warning(text, self._paths[index], damaged, len(lines) + damaged, MEMORY_SECONDS)
            self.damaged_count += damaged
            begun[index] = lines[0][1].seconds if lines else -1.0
            found += lines
        for name, known in sorted(found, key=lambda each: each[1].seconds):
            if known.seconds >= now_seconds - MEMORY_SECONDS:
                self._known[name].append(known)
        if found:
            self._present = begun.index(max(begun))
            self._begun_seconds = begun[self._present]

    def _note(self, name: str, known: Known) -> None:
        """Write an id.

        Raises:
            StorageError: it could not be written; what carries it must not be acted on.
        """
        try:
            if known.seconds > self._begun_seconds + MEMORY_SECONDS:
                self._present = 1 - self._present
                self._files[self._present].truncate(0)
                self._begun_seconds = known.seconds
            line = json.dumps([name, known.sender, known.identifier, known.seconds]).encode() + b"\n"
            file = self._files[self._present]
            written = file.write(line)
            if written != len(line):
                file.truncate(os.fstat(file.fileno()).st_size - (written or 0))  # or the next line would be damaged, too
                raise OSError("expected to write a whole line, wrote a part")
            if not 0 <= known.seconds - self._synced_seconds < _SYNC_SECONDS:
                sync_data(file.fileno())
                self._synced_seconds = known.seconds
        except OSError as error:
            raise StorageError(shown_fault(error, self._paths[self._present], "a file for what was taken")) from None


def _parse(data: bytes) -> tuple[list[tuple[str, Known]], int]:
    """Return what lines say, and how many say nothing."""
    lines = data.splitlines()
    found = [known for line in lines if (known := _parse_line(line)) is not None]
    return found, len(lines) - len(found)


def _parse_line(line: bytes) -> tuple[str, Known] | None:
    try:
        name, sender, identifier, seconds = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return None
    if all(type(text) is str for text in (name, sender, identifier)) and type(seconds) in (int, float):
        return name, Known(sender, identifier, seconds)
    return None
