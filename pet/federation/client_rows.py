"""Rows as a client has them, in the forms that a server learns: columns of doubles, or pieces of CSV text.

No request is known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError
from pet.federation.numbers import to_floats

#: Far below what a server takes, and large enough that a request costs nothing beside its rows.
PIECE_BYTES: Final = 8 << 20


def as_columns(rows: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Return one-dimensional columns of doubles from a mapping of columns, or a pandas table; NaN is a missing value.

    Raises:
        FederationValueError: they are something else; a column is not numeric or holds an infinity, or they differ in length.
    """
    if not hasattr(rows, "items"):
        raise FederationValueError(f"rows: expected columns by name, or the path of a CSV file, got {type(rows).__name__}")
    columns = {str(name): to_floats(values, f"column {name}") for name, values in rows.items()}
    if {column.ndim for column in columns.values()} != {1} or len({len(column) for column in columns.values()}) != 1:
        raise FederationValueError("rows: expected columns of one length by name")
    for name, column in columns.items():
        if np.isinf(column).any():
            raise FederationValueError(f"column {name}: expected finite numbers or NaN, got an infinity")
    return columns


def csv_pieces(path: Path, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yield a CSV file in pieces of whole lines, each with the file's heading line; quoted line breaks are not supported."""
    with path.open("rb") as file:
        heading = file.readline()
        while lines := file.readlines(piece_bytes):
            if not lines[-1].endswith(b"\n"):
                lines.append(b"\n")
            yield b"".join([heading.rstrip(b"\r\n"), b"\n", *lines])
