"""What a disk can do to an SQLite database and its log: where each kind of byte lies, and the outcome of damage to each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

#: Of SQLite's file format: header of the log, header of a frame, and where their fields begin.
LOG_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096
LOG_FIELDS = {
    "mark": 3,
    "version": 7,
    "page size": 10,
    "checkpoint": 15,
    "salt 1": 17,
    "salt 2": 22,
    "sum 1": 24,
    "sum 2": 30,
}
FRAME_FIELDS = {
    "page number": 3,
    "size": 7,
    "salt 1": 9,
    "salt 2": 13,
    "sum 1": 16,
    "sum 2": 21,
    "page": 24,
    "cells": 24 + 4000,
}
#: Within a page: kind, first free block, number and beginning of cells, fragments, pointers, what is free, cells.
_PAGE_PLACES = (0, 2, 4, 6, 7, 9, 60, 2000, 3900, 4090)

Damage = Callable[[bytes], bytes]


def flip(place: int) -> Damage:
    """Return the change of one bit."""
    return lambda data: data[:place] + bytes([data[place] ^ 0x04]) + data[place + 1 :]


def frames(log: bytes) -> Iterator[int]:
    """Yield where the frames of a log begin."""
    return iter(range(LOG_HEADER, len(log), FRAME_HEADER + PAGE))


def database_places(size_bytes: int) -> list[int]:
    """Return places of every kind in a database: its header, and of each page header, pointers, free bytes and cells."""
    pages = [start + place for start in range(0, size_bytes, PAGE) for place in _PAGE_PLACES if start + place >= 100]
    return [*range(0, 100, 3), *(100 + place for place in _PAGE_PLACES if 100 + place < PAGE), *pages]


class DamagedFolder:
    """A folder as a kill left it, of which each copy is damaged in another way.

    Args:
        source: the folder.
        scratch: where copies are made.
        holds: opens a copy; True if nothing is missing or changed in it, False if it is refused as it has to be.
    """

    def __init__(self, source: Path, scratch: Path, holds: Callable[[Path], bool]) -> None:
        self._source, self._scratch, self._holds = source, scratch / "state", holds

    def __call__(self, name: str, damage: Damage) -> str:
        """Return the outcome of damage to one file: "refused", or "harmless"."""
        shutil.copytree(self._source, self._scratch)
        path = self._scratch / name
        path.write_bytes(damage(path.read_bytes()))
        try:
            return "harmless" if self._holds(self._scratch) else "refused"
        finally:
            shutil.rmtree(self._scratch)
