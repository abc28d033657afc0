"""Calls about the rows of the local project, and its model: learned, forgotten, counted.

Source: docs/spec/federation.md 9.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pet.errors import FederationValueError
from pet.federation.client.entities import row_counts
from pet.federation.client.row_upload import RowUpload
from pet.federation.client.server_calls import ServerCalls
from pet.federation.formats.learning_records import Change
from pet.federation.formats.numbers import to_finite_floats
from pet.federation.records import Mode, ProjectKind
from pet.federation.statistics.row_pieces import COMPAT_PIECE_BYTES, PIECE_BYTES
from pet.federation.statistics.schema import Schema
from pet.numbers import checked_number


class RowCalls(ServerCalls):
    """What a peer gives: rows, or a model vector."""

    def learn(
        self,
        project_id: str,
        rows: Any,
        *,
        names: Sequence[str] | str | None = None,
        again: bool = False,
        request_id: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Let the local project learn a table of any size, whole or not at all, and once.

        Args:
            project_id: the federated project.
            rows: the path of a CSV or Parquet file, or a `pet.federation.CsvTable`, which says encoding, separator and decimal
                mark; columns by name; a pandas or Arrow table; a NumPy array with one or two dimensions, with `names`. Columns
                that are no feature of the federation stay here.
            names: of the columns of an array, in their order.
            again: learn rows although the same were learned already.
            request_id: 16 to 64 letters, digits, "_", "-"; drawn if not given. A call that is repeated with the same one, after
                an answer was lost, counts the rows once, also after a restart of the server.
            progress: called after each piece with the number of rows so far.

        Returns:
            How many rows were learned.

        Raises:
            RowError, FederationValueError: the table is malformed, with line and column; nothing was learned.
            FederationRefusedError: the server refuses it, 409 where the same rows were learned already; nothing was learned.
            FederationUnavailableError: no answer; names the `request_id` to repeat the call with.
        """
        return self._upload(project_id, rows, names, progress).send(Change.LEARN, again=again, request_id=request_id)

    def forget(
        self,
        project_id: str,
        rows: Any,
        *,
        names: Sequence[str] | str | None = None,
        again: bool = False,
        request_id: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Let the local project forget rows that it learned, and return how many.

        Arguments and errors are those of `learn`; `again` forgets rows although the same were forgotten already.
        """
        return self._upload(project_id, rows, names, progress).send(Change.FORGET, again=again, request_id=request_id)

    def row_counts(self, project_id: str) -> dict[str, Any]:
        """Return how many rows were `learned` and are `shared`, how many `tables`, and which are `pending`, with their ids.

        `heldBack` has `rows` and `least` where the rule of minimum rows keeps them from the others, and whether they `forgets`.
        """
        return self._read(self._get(f"{project_id}/rows"), row_counts)

    def cancel_rows(self, project_id: str, request_id: str) -> bool:
        """Drop an unfinished table, of which nothing was learned; False if there is none under this id."""
        values = self._post(f"{project_id}/cancelRows", query={"request": request_id})
        return self._read(values, lambda found: bool(found["cancelled"]))

    def set_model(self, project_id: str, weights: NDArray[np.float64], weight: float = 1.0) -> None:
        """Give the peer's model vector for the next round, with its weight.

        Args:
            project_id: the federated project.
            weights: a vector of finite numbers, sent as float64.
            weight: a number of Python or NumPy.

        Raises:
            FederationValueError: a number is not finite; nothing was sent.
        """
        model = {
            "weights": to_finite_floats(weights, "weights").tolist(),
            "weight": checked_number(weight, "weight", error=FederationValueError),
        }
        self._send(f"{project_id}/model", json.dumps(model, allow_nan=False).encode())

    def _upload(
        self, project_id: str, rows: Any, names: Sequence[str] | str | None, progress: Callable[[int], None] | None
    ) -> RowUpload:
        info = self.info(project_id)
        has_schema = info.get("fed_project_kind") == ProjectKind.STATISTICS and "fed_schema" in info
        schema = self._read(info, lambda found: Schema.from_json(found["fed_schema"])) if has_schema else None
        return RowUpload(
            requests=self._requests,
            read=self._read,
            project_id=project_id,
            rows=rows,
            names=names,
            schema=schema,
            progress=progress,
            piece_bytes=COMPAT_PIECE_BYTES if self._mode is Mode.COMPAT else PIECE_BYTES,
        )
