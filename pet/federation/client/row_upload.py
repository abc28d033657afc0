"""Sends a table to a server in pieces under one request: repeated when an answer is lost, from the beginning after a restart.

The pieces are one unit: the server learns or forgets all of them with the last one, once, or nothing. Forms of rows are the
business of row_pieces.py.

Source: docs/spec/federation.md 9.2, 9.3.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from pet.errors import FederationError, FederationRefusedError, FederationUnavailableError
from pet.federation.client.entities import taken
from pet.federation.client.requests import SignedRequests
from pet.federation.formats.csv_table import CsvTable
from pet.federation.formats.learning_records import Change, Piece, Taken
from pet.federation.statistics.row_pieces import CONTENT_TYPE, PIECE_BYTES, pieces
from pet.federation.statistics.schema import Schema

#: A piece without an answer is sent again after these times; the last failure is the caller's.
_RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)
#: A unit that the server no longer holds, as it was restarted, is begun again this often.
_MAX_RESTARTS: Final = 3
_BUSY: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowUpload:
    """One table and where it goes.

    Attributes:
        requests: to the server.
        read: reads the entities of an answer, or raises FederationUnavailableError.
        project_id: the federated project.
        rows: the table, as `Client.learn` takes it.
        names: of the columns of an array.
        schema: of the federation, if it has one.
        progress: called after each piece with the number of rows so far.
        piece_bytes: size of a piece, about.
    """

    requests: SignedRequests
    read: Callable[[dict[str, Any], Callable[[dict[str, Any]], Taken]], Taken]
    project_id: str
    rows: Any
    names: Sequence[str] | str | None
    schema: Schema | None
    progress: Callable[[int], None] | None = None
    piece_bytes: int = PIECE_BYTES

    def send(self, change: Change, *, again: bool, request_id: str | None) -> int:
        """Have the table learned or forgotten, and return how many rows it has.

        Raises:
            RowError, FederationValueError: the table is malformed, or does not fit the schema; nothing was learned.
            FederationRefusedError: the server refuses it; nothing was learned.
            FederationUnavailableError: no answer. The rows may have been learned: the same call with the id of the request,
                which the error names, counts them once.
        """
        piece = Piece(request=request_id or secrets.token_hex(16), change=change, again=again)
        for restarts in range(_MAX_RESTARTS + 1):
            try:
                return self._send_all(piece)
            except FederationRefusedError as error:
                is_last = restarts == _MAX_RESTARTS or not self._can_be_read_again()
                if error.status != HTTPStatus.GONE or is_last:
                    raise
        raise AssertionError("the last restart returns or raises")

    def _send_all(self, unit: Piece) -> int:
        is_held = False
        try:
            for number, (body, is_last) in enumerate(_with_end(pieces(self.rows, self.names, self.schema, self.piece_bytes))):
                found = self._send(replace(unit, number=number, is_last=is_last), body)
                is_held = not found.is_done
                if self.progress is not None:
                    self.progress(found.rows)
                if found.is_done:
                    return found.rows
        except BaseException as error:
            # Nothing of it was learned, and nothing will be. Without an answer the same request may still be repeated.
            if is_held and not isinstance(error, FederationUnavailableError):
                with suppress(FederationError):
                    self._post("cancelRows", {"request": unit.request})
            raise
        raise AssertionError("the server is done with the last piece")

    def _send(self, piece: Piece, body: bytes) -> Taken:
        """Send one piece, again where there is no answer, which the server counts once."""
        query = {"request": piece.request, "piece": str(piece.number), "last": str(piece.is_last).lower()}
        if piece.again:
            query["again"] = "true"
        for seconds in _RETRY_SECONDS:
            with suppress(FederationUnavailableError):
                try:
                    return self.read(self._post(piece.change, query, body), taken)
                except FederationRefusedError as error:
                    if error.status not in _BUSY:
                        raise
            time.sleep(seconds)
        try:
            return self.read(self._post(piece.change, query, body), taken)
        except FederationUnavailableError as error:
            done = f"the rows may be {'learned' if piece.change is Change.LEARN else 'forgotten'} now or later"
            raise FederationUnavailableError(
                f"{error}; {done}: the same call with request_id={piece.request!r} counts them once"
            ) from None

    def _post(self, path: str, query: Mapping[str, str], body: bytes = b"") -> dict[str, Any]:
        return self.requests.call("POST", f"fedml/{self.project_id}/{path}", query, body, content_type=CONTENT_TYPE)

    def _can_be_read_again(self) -> bool:
        source = self.rows.source if isinstance(self.rows, CsvTable) else self.rows
        is_stream = hasattr(source, "read") or hasattr(source, "read_next_batch")
        return isinstance(source, str | Path | bytes) or not is_stream


def _with_end(parts: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield each part and whether it is the last one."""
    part = next(parts)
    for following in parts:
        yield part, False
        part = following
    yield part, True
